//! What the kernel says while a story is told, shown as soon as it is said.
//!
//! The verdict comes from the whole log at the end; this is for those who wait in front of a screen. It
//! follows the agent's kernel-log stream and the console side by side, because either can be the only
//! one left, and judges what has come whenever nothing more comes for a moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_client::KmsgStream;
use clock::Clock;
use kernel_log::{Expectations, Finding, Kind, Record, Severity, judge};
use machine::Console;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Guest;
use super::evidence::excuse_by;

/// Gets each finding once.
pub type Listener = Arc<dyn Fn(&Finding) + Send + Sync>;

/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A report of the kernel is over when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(80);

/// But a flood is judged this often.
const FLOOD: Duration = Duration::from_millis(600);

/// Lines after which a report is complete.
const ENDS: &[&str] = &["---[ end trace", "---[ end Kernel panic"];

/// After a finding from which nothing later can be trusted, what else the kernel says is waited for this
/// long: a story that hangs in the broken kernel would hang to its deadline.
const AFTERMATH: Duration = Duration::from_millis(300);

/// The one who listens. Ends when dropped.
pub(super) struct Live {
    task: JoinHandle<()>,
    fatal: watch::Receiver<Option<String>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Live {
    /// Listens to a guest from `mark` on, for at most `longest`.
    pub(super) async fn follow(
        guest: &Guest,
        mark: u64,
        expected: Expectations,
        longest: Duration,
        listener: Listener,
    ) -> Live {
        // Without a stream there is still the console.
        let stream = guest.client().kmsg_follow(mark, longest).await.ok();
        let (console, clock) = (guest.machine().console(), guest.machine().clock());
        let machine = (console.clone(), clock.clone());
        let (tell, fatal) = watch::channel(None);
        Live {
            task: tokio::spawn(listen(stream, machine, expected, listener, tell)),
            fatal,
        }
    }

    /// Resolves a moment after the kernel has said that it is gone, stuck or corrupted, with what it
    /// said. It does not borrow the listener.
    pub(super) fn fatal(&self) -> impl Future<Output = String> + Send + 'static {
        let mut fatal = self.fatal.clone();
        async move {
            let title = fatal
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|t| t.clone());
            let Some(title) = title else {
                // Nobody listens any more.
                return std::future::pending().await;
            };
            tokio::time::sleep(AFTERMATH).await;
            title
        }
    }
}

async fn listen(
    mut stream: Option<KmsgStream>,
    (console, clock): (Console, Clock),
    expected: Expectations,
    listener: Listener,
    tell: watch::Sender<Option<String>>,
) {
    let mut place = console.mark();
    let mut heard = Heard::default();
    let mut told: Vec<String> = Vec::new();
    loop {
        tokio::select! {
            next = next(&mut stream) => match next {
                Some(records) => heard.add(records),
                None => stream = None,
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        let (lines, now) = console.since(place);
        place = now;
        heard.add(
            lines
                .iter()
                .map(|line| Record::console(&line.text))
                .collect(),
        );
        if !heard.is_due() {
            continue;
        }
        let mut findings = judge(&heard.records, &expected);
        excuse_by(&mut findings, &console, &clock);
        for finding in findings {
            let missing = finding.kind == Kind::Missing;
            if finding.counts() && !missing && !told.contains(&finding.title) {
                listener(&finding);
                if finding.severity == Severity::Fatal {
                    tell.send_replace(Some(finding.title.clone()));
                }
                told.push(finding.title);
            }
        }
    }
}

/// The stream's next records; never returns when there is no stream, `None` when it ends.
async fn next(stream: &mut Option<KmsgStream>) -> Option<Vec<Record>> {
    let Some(stream) = stream else {
        return std::future::pending().await;
    };
    let (records, _lost) = stream.next().await.ok()??;
    Some(records.iter().map(Record::from).collect())
}

/// What has come, and when.
#[derive(Default)]
struct Heard {
    records: Vec<Record>,
    /// When the first and the last came that were not judged yet.
    since: Option<(Instant, Instant)>,
    ended: bool,
}

impl Heard {
    fn add(&mut self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let now = Instant::now();
        let ends = |record: &Record| ENDS.iter().any(|end| record.text.contains(end));
        self.ended |= records.iter().any(ends);
        self.since = Some((self.since.map_or(now, |(first, _)| first), now));
        self.records.extend(records);
    }

    /// Whether it is time to judge; then it counts as judged.
    fn is_due(&mut self) -> bool {
        let due = self.since.is_some_and(|(first, last)| {
            self.ended || last.elapsed() >= QUIET || first.elapsed() >= FLOOD
        });
        if due {
            self.since = None;
            self.ended = false;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_judged_when_it_is_over_and_not_before() {
        let mut heard = Heard::default();
        assert!(!heard.is_due());
        heard.add(vec![Record::console(
            "BUG: kernel NULL pointer dereference",
        )]);
        assert!(!heard.is_due());
        heard.add(vec![Record::console(
            "---[ end trace 0000000000000000 ]---",
        )]);
        assert!(heard.is_due());
        assert!(!heard.is_due());
    }
}
