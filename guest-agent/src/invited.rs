//! What the host turns on by inviting: a broken kernel shall talk.

use std::path::Path;

use crate::log;

/// A sysctl, its value, and why.
struct Setting {
    path: &'static str,
    value: &'static str,
}

/// Kernel documentation: admin-guide/sysctl/kernel.rst.
const SETTINGS: &[Setting] = &[
    // Debian's mask leaves out the task dumps.
    Setting {
        path: "kernel/sysrq",
        value: "1",
    },
    // Without it, an NMI injected by the host prints nothing on a kernel that has stopped answering.
    Setting {
        path: "kernel/unknown_nmi_panic",
        value: "1",
    },
    // Everything above debug goes to the console, where the host records it with times. The other
    // three fields keep the kernel's defaults.
    Setting {
        path: "kernel/printk",
        value: "7 4 1 7",
    },
];

/// Sets them all; says which did not take, and goes on.
pub fn talk() {
    talk_below(Path::new("/proc/sys"));
}

fn talk_below(root: &Path) {
    for Setting { path, value } in SETTINGS {
        if let Err(error) = std::fs::write(root.join(path), value) {
            log::warn(format_args!("sysctl {path} = {value}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_sysctl_does_not_hold_up_the_others() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("kernel")).unwrap();
        // A directory in the place of a file cannot be written.
        std::fs::create_dir(root.path().join("kernel/sysrq")).unwrap();
        talk_below(root.path());
        let printk = std::fs::read_to_string(root.path().join("kernel/printk")).unwrap();
        assert_eq!(printk, "7 4 1 7");
    }
}
