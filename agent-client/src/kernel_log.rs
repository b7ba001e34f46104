//! The kernel log of the guest: from a mark to now, or as it grows.

use agent_protocol::message::KmsgRecord;
use agent_protocol::{Event, Reply, Request};

use super::talk::{Next, Talk};
use super::{AgentError, Client, Deadline};

/// Most records collected.
const MOST_RECORDS: usize = 65_536;

/// Part of the kernel log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KmsgLog {
    /// Records in order, of all facilities: judge by [`KmsgRecord::is_kernel`].
    pub records: Vec<KmsgRecord>,
    /// Records the guest's ring overwrote before they were read.
    pub lost: u64,
    /// Whether there were more than this side collects.
    pub truncated: bool,
    /// Mark from which to go on.
    pub next: u64,
}

impl Client {
    /// Where the kernel log ends now: the sequence number of the next record.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn kmsg_mark(&self, deadline: impl Into<Deadline>) -> Result<u64, AgentError> {
        self.ask(Request::KmsgMark, deadline, |reply| match reply {
            Reply::Mark { next } => Some(next),
            _ => None,
        })
        .await
    }

    /// The kernel log from a mark (0: from its beginning) to its end now.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn kmsg_since(
        &self,
        mark: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<KmsgLog, AgentError> {
        let request = Request::KmsgRead {
            from: mark,
            follow: false,
        };
        let mut talk = self.begin(request, deadline).await?;
        let mut log = KmsgLog::default();
        loop {
            match talk.next().await? {
                Next::Event(Event::Kmsg(records)) => {
                    let room = MOST_RECORDS - log.records.len();
                    log.truncated |= records.len() > room;
                    log.records.extend(records.into_iter().take(room));
                }
                Next::Event(Event::KmsgLost { records }) => {
                    log.lost = log.lost.saturating_add(records);
                }
                Next::Reply(Reply::Mark { next }) => {
                    log.next = next;
                    return Ok(log);
                }
                other => return Err(talk.unfit(&other)),
            }
        }
    }

    /// The kernel log from a mark on, as it grows, until the deadline.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn kmsg_follow(
        &self,
        mark: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<KmsgStream, AgentError> {
        let request = Request::KmsgRead {
            from: mark,
            follow: true,
        };
        Ok(KmsgStream {
            talk: self.begin(request, deadline).await?,
        })
    }
}

/// The kernel log as it grows.
pub struct KmsgStream {
    talk: Talk,
}

impl KmsgStream {
    /// The next records, and how many were lost before them; `None` when the deadline has ended it.
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn next(&mut self) -> Result<Option<(Vec<KmsgRecord>, u64)>, AgentError> {
        match self.talk.next().await? {
            Next::Event(Event::Kmsg(records)) => Ok(Some((records, 0))),
            Next::Event(Event::KmsgLost { records }) => Ok(Some((Vec::new(), records))),
            Next::Reply(Reply::Mark { .. }) => Ok(None),
            other => Err(self.talk.unfit(&other)),
        }
    }
}
