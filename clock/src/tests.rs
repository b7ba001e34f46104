//! Clocks against tokio's own, held still, and against real processes.

use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_deadline_stands_still_while_its_machine_does() {
    let begin = Instant::now();
    let clock = Clock::told(begin);
    clock.lose(begin + s(2), begin + s(9), s(6));
    let done = clock.timeout(s(5), tokio::time::sleep(s(10))).await;
    assert_eq!(done, Ok(()));

    let begin = Instant::now();
    let passed = clock.timeout(s(5), std::future::pending::<()>()).await;
    let passed = passed.unwrap_err();
    assert_eq!(
        (begin.elapsed(), passed.to_string()),
        (s(5), "within 5 s".into())
    );

    let begin = Instant::now();
    clock.lose(begin, begin + s(40), s(31));
    let passed = clock.timeout(s(60), std::future::pending::<()>()).await;
    assert_eq!(begin.elapsed(), s(91));
    assert_eq!(
        passed.unwrap_err().to_string(),
        "within 60 s (the host kept its machine waiting for another 31 s)"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_over_in_time_is_not_waited_for() {
    let begin = Instant::now();
    assert_eq!(Clock::wall().timeout(s(5), async { 7 }).await, Ok(7));
    let wall = Clock::wall();
    let passed = wall.timeout(s(5), std::future::pending::<()>()).await;
    assert!(passed.is_err());
    assert_eq!(begin.elapsed(), s(5));
    // As with tokio's, what is ready counts although its time has passed.
    assert_eq!(
        Clock::wall().timeout_from(begin, s(1), async { 7 }).await,
        Ok(7)
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_runs_has_its_end_by_the_wall() {
    let begin = Instant::now();
    let clock = Clock::told(begin);
    clock.lose(begin, begin + s(100_000), s(100_000));
    let passed = clock.timeout(s(60), std::future::pending::<()>()).await;
    assert!(passed.is_err());
    assert_eq!(begin.elapsed(), bound(s(60)));
    assert_eq!(bound(s(60)), s(630));
    assert!(bound(Duration::MAX) > CENTURY);
}

/// A process that keeps a processor busy for as long as this lives.
struct Busy(Child);

impl Busy {
    fn on(processor: &str) -> Busy {
        let mut command = Command::new("taskset");
        command.args(["-c", processor, "sh", "-c", "while :; do :; done"]);
        Busy(command.spawn().expect("util-linux is there"))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("it lives");
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Reaped in any case: it is ours.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// The first processor this process may use.
fn processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("a list");
    let digits = list.trim().split(|c: char| !c.is_ascii_digit()).next();
    digits.expect("a number").to_owned()
}

#[tokio::test]
async fn a_process_that_shares_its_processor_loses_what_the_other_gets() {
    let one = Busy::on(&processor());
    let other = Busy::on(&processor());
    let begin = Instant::now();
    let clock = Clock::of(vec![one.0.id()], begin);
    let watch = tokio::spawn(clock.clone().watch());
    tokio::time::sleep(s(1)).await;
    let lost = clock.lost_since(begin);
    // Others may want that processor too; a fair scheduler gives the two the same.
    assert!(lost > Duration::from_millis(300), "{lost:?}");
    assert!(lost < begin.elapsed(), "{lost:?}");
    let share = clock.properties()[0].clone();
    assert_eq!(share.0, "processor-share");
    let percent: f64 = share.1.trim_end_matches(" %").parse().expect("a number");
    assert!((1.0..70.0).contains(&percent), "{percent}");
    watch.abort();
    drop((one, other));
}

#[tokio::test]
async fn a_stopped_process_loses_all_until_it_goes_on() {
    let busy = Busy::on(&processor());
    let begin = Instant::now();
    let clock = Clock::of(vec![busy.0.id()], begin);
    let watch = tokio::spawn(clock.clone().watch());
    busy.signal(Signal::SIGSTOP);
    let late = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        busy.signal(Signal::SIGCONT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let done = clock.timeout(Duration::from_millis(300), late).await;
    assert_eq!(done, Ok(()), "{:?}", clock.lost_since(begin));
    assert!(clock.lost_since(begin) >= Duration::from_millis(700));
    watch.abort();
}

#[test]
fn a_time_that_was_never_given_is_not_the_guests_fault() {
    let whose = |lost| {
        let within = Duration::from_secs(60);
        let lost = Duration::from_secs(lost);
        Passed { within, lost }.whose()
    };
    assert_eq!(whose(0), Whose::Guest);
    assert_eq!(whose(500), Whose::Guest);
    // 600 s and 30 s by the wall.
    assert_eq!(whose(570), Whose::Host);
    assert_eq!(whose(600), Whose::Host);
}
