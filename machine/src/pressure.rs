//! How much others want of this host's processors and memory, and how many machines that leaves.
//!
//! Pressure alone (PSI, `Documentation/accounting/psi.rst`) does not say whose it is: four machines of ours on two
//! processors, the normal case, are pressure too. Nor does the processor time that others got: beside four
//! machines of ours a compiler with two threads gets a third of it and would look modest. What they want is
//! told by their threads that are ready to run, whoever gets the processor (`procs_running` of proc(5), less
//! ours), so each of those takes the place of a machine: every thread, theirs or a guest's, keeps the share it
//! would have had. PSI only says when there is nothing to look for, and when memory is short.

use procfs::process::{Process, all_processes};
use procfs::{Current, CurrentSI};

/// Below this share of time (percent, over ten seconds) in which somebody waited for a processor, nobody is
/// looked for.
const QUIET_PERCENT: f32 = 10.0;

/// With somebody waiting for memory this share of the time the host pages out what it needs; no more machines
/// then than one.
const THRASHING_PERCENT: f32 = 20.0;

/// How often others are looked for: one moment shows a shell that starts a program, all of them a load.
const LOOKS: u32 = 5;

/// Between two looks; together less than a tenth of what a fork takes, and only on a host that is not quiet.
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(5);

/// What others want.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pressure {
    /// Their threads that are ready to run.
    pub(super) threads: u64,
    /// Percent of the last ten seconds in which somebody waited for memory.
    pub(super) memory: f32,
}

/// Whether one more machine may start beside `running` of ours on a host with that many tickets. The first
/// always may, whatever others do: nobody waits for what never comes.
pub(super) fn admits(running: u64, tickets: u64, pressure: Pressure) -> bool {
    let allowed = match pressure.memory >= THRASHING_PERCENT {
        true => 1,
        false => tickets.saturating_sub(pressure.threads).max(1),
    };
    running < allowed
}

/// Looks at this host. Where it does not say, nobody is there.
pub(super) async fn look() -> Pressure {
    let memory = procfs::MemoryPressure::current().map_or(0.0, |memory| memory.some.avg10);
    let quiet = procfs::CpuPressure::current().is_ok_and(|cpu| cpu.some.avg10 < QUIET_PERCENT);
    let mut least = u64::MAX;
    if !quiet {
        let machines = machines();
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(BETWEEN).await;
            }
            least = least.min(others(&machines));
            if least == 0 {
                break;
            }
        }
    }
    Pressure {
        threads: if least == u64::MAX { 0 } else { least },
        memory,
    }
}

/// The QEMU processes of our machines, of all users: their command line names a machine's directory.
fn machines() -> Vec<Process> {
    let processes = all_processes().into_iter().flatten().flatten();
    let ours = |process: &Process| {
        let comm = process.stat().map(|stat| stat.comm).unwrap_or_default();
        comm.starts_with("qemu-system")
            && process
                .cmdline()
                .is_ok_and(|words| words.iter().any(|word| word.contains("/vexfs-")))
    };
    processes.filter(ours).collect()
}

/// Threads ready to run that are neither our machines' nor this one.
fn others(machines: &[Process]) -> u64 {
    let all = procfs::KernelStats::current().map_or(0, |stat| stat.procs_running.unwrap_or(0));
    let threads = machines.iter().filter_map(|machine| machine.tasks().ok());
    let running = threads.flatten().filter(|task| {
        task.as_ref()
            .is_ok_and(|task| task.stat().is_ok_and(|s| s.state == 'R'))
    });
    u64::from(all).saturating_sub(1 + running.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(threads: u64) -> Pressure {
        Pressure {
            threads,
            memory: 0.0,
        }
    }

    #[test]
    fn each_thread_of_others_takes_the_place_of_a_machine() {
        // Two processors, four tickets.
        let most = |threads| (0..9).take_while(|n| admits(*n, 4, want(threads))).count();
        assert_eq!([0, 1, 2, 3, 4, 99].map(most), [4, 3, 2, 1, 1, 1]);
    }

    #[test]
    fn the_first_machine_always_enters() {
        let worst = Pressure {
            threads: u64::MAX,
            memory: 100.0,
        };
        assert!(admits(0, 1, worst) && admits(0, 0, worst));
        assert!(!admits(1, 4, worst));
        let paging = Pressure {
            threads: 0,
            memory: 20.0,
        };
        assert!(admits(0, 4, paging) && !admits(1, 4, paging));
    }

    #[test]
    fn looking_takes_less_than_a_tenth_of_a_fork() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let begin = std::time::Instant::now();
        let pressure = runtime.expect("a runtime").block_on(look());
        // Generous: it says so when somebody puts a window to sleep through here.
        assert!(
            begin.elapsed().as_millis() < 1000,
            "{:?}: {pressure:?}",
            begin.elapsed()
        );
    }
}
