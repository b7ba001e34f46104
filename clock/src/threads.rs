//! A look at a machine's threads: proc(5), `/proc/PID/task/TID/stat` and `schedstat`.

use super::account::{Look, State, Thread};

/// All threads of these processes. One that ends meanwhile is left out.
pub(super) fn look(pids: &[u32]) -> Look {
    let threads = pids.iter().flat_map(|pid| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
        threads.into_iter().flatten().flatten()
    });
    let known = threads.filter_map(|thread| {
        let id = thread.file_name().to_str()?.parse().ok()?;
        let read = |name| std::fs::read_to_string(thread.path().join(name)).ok();
        let state = state(&read("stat")?)?;
        // Kernels without CONFIG_SCHED_INFO do not have the file, others show zeros when told to.
        let [run, wait, slices] = read("schedstat")
            .and_then(|text| counts(&text))
            .unwrap_or_default();
        let thread = Thread {
            state,
            run,
            wait,
            slices,
        };
        Some((id, thread))
    });
    known.collect()
}

/// The letter after the name, which is in brackets and may hold any.
fn state(stat: &str) -> Option<State> {
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(match rest.chars().next()? {
        'R' => State::Ready,
        'T' | 't' => State::Stopped,
        _ => State::Asleep,
    })
}

fn counts(schedstat: &str) -> Option<[u64; 3]> {
    let mut words = schedstat.split_ascii_whitespace().map(str::parse);
    let mut next = || words.next()?.ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_read() {
        assert_eq!(state("7 (a) T) b) R 1 7 7"), Some(State::Ready));
        assert_eq!(state("7 (qemu) t 1 7 7"), Some(State::Stopped));
        assert_eq!(state("7 (qemu) D 1 7 7"), Some(State::Asleep));
        assert_eq!(state(""), None);
        assert_eq!(
            counts("142080182 161814259 42\n"),
            Some([142_080_182, 161_814_259, 42])
        );
        assert_eq!(counts("1 2\n"), None);
    }

    #[test]
    fn we_see_ourselves() {
        let me = std::process::id();
        let look = look(&[me, u32::MAX]);
        assert_eq!(
            look.get(&me).map(|thread| thread.state == State::Stopped),
            Some(false)
        );
    }
}
