//! What kind of host this is.

use machine::Host;
use results::figures::HostKind;

/// The kind of this host, for figures.
pub fn kind_of(host: &Host) -> HostKind {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    HostKind {
        cpu: processor(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        accelerator: host.accel.chosen.to_string(),
        vsock: host.vsock.chosen.to_string(),
        qemu: host.qemu.version.to_string(),
        host_kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

/// The model of this host's processor.
fn processor() -> String {
    model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The first processor's model in `/proc/cpuinfo` (proc(5)).
fn model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(
        || "unknown".to_owned(),
        |(_, model)| model.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_read() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: X 1\n\nmodel name\t: Y"),
            "X 1"
        );
        assert_eq!(model(""), "unknown");
    }
}
