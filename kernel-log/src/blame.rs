//! Who is to blame that a kernel hangs: from the traces it was made to write, or from its registers.

use crate::title::telling_frame;

/// What the registers of all CPUs say about a guest that does not answer: QEMU shows `HLT=1` for a CPU
/// that waits for an interrupt, and bit 9 of `RFL` is whether it takes any (Intel SDM, volume 1, 3.4.3). A
/// kernel that panics leaves its other CPUs waiting for what they do not take
/// (arch/x86/kernel/process.c, `stop_this_cpu`).
pub fn posture_of(registers: &str) -> Option<&'static str> {
    const TAKES_INTERRUPTS: u64 = 1 << 9;
    let field = |line: &str, name: &str| -> Option<u64> {
        let value = line.split(name).nth(1)?.split_whitespace().next()?;
        u64::from_str_radix(value, 16).ok()
    };
    let cpus: Vec<(bool, bool)> = registers
        .lines()
        .filter_map(|line| {
            let flags = field(line, "RFL=").or_else(|| field(line, "EFL="))?;
            Some((field(line, "HLT=")? == 1, flags & TAKES_INTERRUPTS != 0))
        })
        .collect();
    if cpus.contains(&(true, false)) {
        return Some("nobody answers, and a CPU is stopped for good, as after a panic");
    }
    let idle = !cpus.is_empty() && cpus.iter().all(|cpu| *cpu == (true, true));
    idle.then_some("nobody answers, and the guest is idle: its agent or its vsock device is gone")
}

/// What starts and ends tasks that are often seen waiting and seldom to blame.
const SERVANTS: &[&str] = &["(udev-worker)", "systemd-udevd", "modprobe"];

/// A task or CPU in the traces, and where it is.
#[derive(Debug, Default)]
struct Trace {
    /// Process id of a blocked task.
    pid: Option<u32>,
    /// A kernel thread or one of [`SERVANTS`].
    servant: bool,
    who: String,
    /// The first function that is worth a word, and whether it is a module's.
    place: Option<(String, bool)>,
    /// This is the one that shows the traces.
    ours: bool,
    blocked: bool,
}

/// What hangs: a blocked task or a busy CPU; one in a module's code is taken before others, and a
/// blocked task before a busy CPU. `lines` are what sysrq `w` and `l` wrote, or a panic's trace; what several
/// looks were taken at counts only if all of them show it.
pub fn culprit(lines: &[&str]) -> Option<String> {
    let mut traces: Vec<Trace> = Vec::new();
    for line in lines {
        if let Some(rest) = line.strip_prefix("task:") {
            let name = rest.split_whitespace().next().unwrap_or_default();
            let field = |key: &str| -> &str { rest.split(key).nth(1).unwrap_or_default() };
            let number = |key: &str| field(key).split_whitespace().next()?.parse().ok();
            let state = field("state:");
            traces.push(Trace {
                pid: number(" pid:"),
                servant: number(" ppid:") == Some(2) || SERVANTS.contains(&name),
                who: format!("`{name}` is blocked"),
                blocked: state.starts_with('D'),
                ..Trace::default()
            });
        } else if let Some(rest) = line.strip_prefix("CPU: ") {
            let number = rest.split_whitespace().next().unwrap_or_default();
            let name = rest.split("Comm: ").nth(1).unwrap_or_default();
            let name = name.split_whitespace().next().unwrap_or_default();
            traces.push(Trace {
                who: format!("`{name}` keeps CPU {number} busy"),
                ..Trace::default()
            });
        }
        let Some(trace) = traces.last_mut() else {
            continue;
        };
        trace.ours |= line.contains("sysrq_handle") || line.contains("Comm: swapper");
        let in_module = line.trim_end().ends_with(']') && line.contains(" [");
        match (telling_frame(line), &trace.place) {
            (Some(name), None) => trace.place = Some((name, in_module)),
            (Some(name), Some((_, false))) if in_module => trace.place = Some((name, true)),
            _ => {}
        }
    }
    let rank = |trace: &Trace| {
        let in_module = trace.place.as_ref().is_some_and(|(_, module)| *module);
        // Of equals the one that was started last.
        (!trace.servant, in_module, trace.blocked, trace.pid)
    };
    let looks = lines
        .iter()
        .filter(|line| line.contains("Show Blocked State"));
    let looks = looks.count();
    let stays = |trace: &Trace| {
        let same = |other: &&Trace| other.pid == trace.pid && other.place == trace.place;
        trace.pid.is_none() || traces.iter().filter(same).count() >= looks
    };
    let candidates = traces.iter().filter(|trace| !trace.ours && stays(trace));
    let worst = candidates.max_by_key(|trace| rank(trace))?;
    let (place, _) = worst.place.as_ref()?;
    Some(format!("{} in {place}", worst.who))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_task_is_named_with_its_module_function() {
        let lines = [
            "sysrq: Show Blocked State",
            "task:kworker/0:1     state:D stack:0     pid:11    ppid:2      flags:0x00004000",
            "Call Trace:",
            " <TASK>",
            " __schedule+0x351/0xa20",
            " io_schedule+0x46/0x70",
            " jbd2_journal_commit_transaction+0x1/0x2",
            "task:insmod          state:D stack:0     pid:701   ppid:1      flags:0x00004002",
            "Call Trace:",
            " <TASK>",
            " __schedule+0x351/0xa20",
            " schedule+0x5e/0xd0",
            " msleep+0x2d/0x40",
            " fault_init+0x19/0x1000 [fault_sleep]",
            " do_one_initcall+0x157/0x1e8",
            "sysrq: Show backtrace of all active CPUs",
            "NMI backtrace for cpu 0",
            "CPU: 0 PID: 300 Comm: vexfs-agent Not tainted 6.1.0 #1",
            " sysrq_handle_showallcpus+0x10/0x20",
        ];
        assert_eq!(
            culprit(&lines).as_deref(),
            Some("`insmod` is blocked in fault_init")
        );
        assert_eq!(
            culprit(&lines[..7]).as_deref(),
            Some("`kworker/0:1` is blocked in jbd2_journal_commit_transaction")
        );
        assert_eq!(culprit(&lines[15..]), None);
    }

    #[test]
    fn who_only_passes_by_is_not_to_blame() {
        let task = |name: &str, pid: u32, ppid: u32, place: &str| {
            vec![
                format!(
                    "task:{name}     state:D stack:0     pid:{pid}    ppid:{ppid}      flags:0x0"
                ),
                "Call Trace:".to_owned(),
                format!(" {place}+0x19/0x100"),
            ]
        };
        let look = || vec!["sysrq: Show Blocked State".to_owned()];
        let lines = [
            look(),
            task("passer", 900, 1, "read_pages [ext4]"),
            task("(udev-worker)", 950, 200, "slow_init"),
            task("sh", 800, 700, "mnt_want_write"),
            task("kworker/1:1", 30, 2, "flush_something"),
            look(),
            task("(udev-worker)", 950, 200, "slow_init"),
            task("sh", 800, 700, "mnt_want_write"),
            task("kworker/1:1", 30, 2, "flush_something"),
        ]
        .concat();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(
            culprit(&lines).as_deref(),
            Some("`sh` is blocked in mnt_want_write")
        );
    }

    #[test]
    fn a_guest_without_a_trace_is_told_by_its_registers() {
        let cpu = |number: u32, flags: &str, halted: u32| {
            format!(
                "CPU#{number}\nRAX=0000000000000000 RBX=0000000000000001\n\
                 RIP=ffffffff81a0b2c4 RFL={flags} [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT={halted}\n"
            )
        };
        let (idle, stopped) = ("00000246", "00000046");
        let told = |cpus: [String; 2]| posture_of(&cpus.concat()).unwrap_or_default();
        assert!(told([cpu(0, idle, 1), cpu(1, idle, 1)]).contains("the guest is idle"));
        assert!(told([cpu(0, idle, 0), cpu(1, stopped, 1)]).contains("as after a panic"));
        assert_eq!(told([cpu(0, idle, 0), cpu(1, idle, 1)]), "");
        assert_eq!(posture_of("no registers"), None);
    }

    #[test]
    fn a_spinning_task_is_named_from_the_nmi_trace() {
        let lines = [
            "Kernel panic - not syncing: NMI: Not continuing",
            "CPU: 1 PID: 655 Comm: insmod Tainted: G           OE      6.1.0-56-cloud-amd64 #1",
            "Call Trace:",
            " <NMI>",
            " dump_stack_lvl+0x44/0x5c",
            " panic+0x118/0x2ed",
            " nmi_panic.cold+0xc/0xc",
            "RIP: 0010:spin+0x5/0x10 [fault_spin]",
            " </NMI>",
            " do_one_initcall+0x56/0x230",
        ];
        assert_eq!(
            culprit(&lines).as_deref(),
            Some("`insmod` keeps CPU 1 busy in spin")
        );
    }
}
