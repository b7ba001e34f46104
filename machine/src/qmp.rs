//! A QMP client: commands with answers, and a stream of events.
//!
//! The `qapi` crate was tried first: it takes half a minute of compile time for the types of one
//! QEMU version's whole schema, and fails on events another version added. We use a dozen commands
//! and look at two or three fields of an answer, so plain JSON serves better.
//! The protocol: QEMU's `docs/interop/qmp-spec`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clock::{Clock, waited};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// How long QEMU may take over a command, by its machine's clock, unless the caller says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same while there is no machine yet: far above what a host under heavy load makes of it.
const FIRST_PATIENCE: Duration = Duration::from_secs(120);

/// The longest message taken from QEMU in bytes; `query-qmp-schema` is about 200 KB.
const LONGEST: u64 = 16 << 20;

/// Why a QMP command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused the command.
    #[error("QEMU refused `{command}`: {description} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// QEMU did not answer in time.
    #[error(
        "QEMU did not answer `{command}` within {} s{}",
        within.as_secs_f32(), waited(*lost)
    )]
    Slow {
        /// The command.
        command: String,
        /// How long was waited.
        within: Duration,
        /// What the host kept the machine waiting meanwhile, which does not count.
        lost: Duration,
    },
    /// QEMU ended, or closed the connection.
    #[error("QEMU has gone; `{command}` has no answer")]
    Gone {
        /// The command.
        command: String,
    },
    /// What came was not QMP.
    #[error("QEMU's monitor does not speak QMP: {0}")]
    NotQmp(String),
}

/// An event from QEMU.
#[derive(Debug, Clone, Deserialize)]
pub struct QmpEvent {
    /// Its name, for example `SHUTDOWN`.
    #[serde(rename = "event")]
    pub name: String,
    /// Its data; `null` for events without.
    #[serde(default)]
    pub data: Value,
}

/// Any message QEMU sends.
#[derive(Deserialize)]
struct Message {
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

type Answer = Result<Value, Refusal>;

/// Who waits for which answer; `None` once the connection is closed.
type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A connection to one QEMU's monitor. Clones share it.
#[derive(Clone)]
pub struct Qmp {
    inner: Arc<Inner>,
}

struct Inner {
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    clock: OnceLock<Clock>,
}

impl std::fmt::Debug for Qmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Qmp")
    }
}

impl Qmp {
    /// Takes up the conversation on a fresh connection and negotiates capabilities. The receiver
    /// gets all events from here on, and ends when QEMU closes the connection.
    ///
    /// # Errors
    /// [`QmpError::NotQmp`] if no greeting comes, and those of [`Qmp::execute`].
    pub async fn open(
        stream: UnixStream,
    ) -> Result<(Qmp, mpsc::UnboundedReceiver<QmpEvent>), QmpError> {
        let (read, write) = stream.into_split();
        let mut read = BufReader::new(read);
        let greeting = message(&mut read).await.unwrap_or_default();
        if !String::from_utf8_lossy(&greeting).contains("\"QMP\"") {
            let said: String = String::from_utf8_lossy(&greeting)
                .chars()
                .take(200)
                .collect();
            return Err(QmpError::NotQmp(format!("it greets with {said:?}")));
        }
        let (events, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(listen(read, waiting.clone(), events));
        let qmp = Qmp {
            inner: Arc::new(Inner {
                write: tokio::sync::Mutex::new(write),
                waiting,
                next: AtomicU64::new(1),
                clock: OnceLock::new(),
            }),
        };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok((qmp, receiver))
    }

    /// From now on waits by this clock.
    pub(super) fn follow(&self, clock: Clock) {
        // A monitor is one machine's, which has one clock.
        self.inner.clock.set(clock).unwrap_or_default();
    }

    /// Runs a command and returns its answer, waiting at most ten seconds.
    ///
    /// # Errors
    /// [`QmpError::Refused`], [`QmpError::Slow`] or [`QmpError::Gone`].
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let patience = match self.inner.clock.get() {
            Some(_) => PATIENCE,
            None => FIRST_PATIENCE,
        };
        self.execute_within(command, arguments, patience).await
    }

    /// Like [`Qmp::execute`], with a time limit of the caller's.
    ///
    /// # Errors
    /// [`QmpError::Refused`], [`QmpError::Slow`] or [`QmpError::Gone`].
    pub async fn execute_within(
        &self,
        command: &str,
        arguments: Value,
        within: Duration,
    ) -> Result<Value, QmpError> {
        let gone = || QmpError::Gone {
            command: command.into(),
        };
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        match lock(&self.inner.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(gone()),
        };
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        let exchange = async {
            self.inner
                .write
                .lock()
                .await
                .write_all(line.as_bytes())
                .await
                .map_err(|_| gone())?;
            answer.await.map_err(|_| gone())
        };
        let clock = self.inner.clock.get().cloned().unwrap_or_default();
        match clock.timeout(within, exchange).await {
            Ok(answer) => answer?.map_err(|refusal| QmpError::Refused {
                command: command.into(),
                class: refusal.class,
                description: refusal.desc,
            }),
            Err(late) => {
                if let Some(waiting) = lock(&self.inner.waiting).as_mut() {
                    waiting.remove(&id);
                }
                Err(QmpError::Slow {
                    command: command.into(),
                    within,
                    lost: late.lost,
                })
            }
        }
    }

    /// Runs a command of the human monitor and returns what it prints.
    ///
    /// # Errors
    /// Those of [`Qmp::execute`].
    pub async fn human(&self, command: &str) -> Result<String, QmpError> {
        let answer = self
            .execute("human-monitor-command", json!({"command-line": command}))
            .await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }
}

fn lock(
    waiting: &Waiting,
) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One message; `None` at the end of the stream, on a read error or on one that is too long.
async fn message(read: &mut BufReader<OwnedReadHalf>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    read.take(LONGEST).read_until(b'\n', &mut line).await.ok()?;
    line.ends_with(b"\n").then_some(line)
}

/// Hands answers to those who wait and events to the one who listens, until QEMU hangs up.
async fn listen(
    mut read: BufReader<OwnedReadHalf>,
    waiting: Arc<Waiting>,
    events: mpsc::UnboundedSender<QmpEvent>,
) {
    while let Some(line) = message(&mut read).await {
        // A message we do not understand is not worth losing the machine for.
        let Ok(message) = serde_json::from_slice::<Message>(&line) else {
            continue;
        };
        if let Some(name) = message.event {
            // Nobody listening any more is the listener's affair.
            events
                .send(QmpEvent {
                    name,
                    data: message.data,
                })
                .unwrap_or_default();
            continue;
        }
        let answer = match (message.answer, message.error) {
            (_, Some(refusal)) => Err(refusal),
            (answer, None) => Ok(answer.unwrap_or_default()),
        };
        let asker = message
            .id
            .and_then(|id| lock(&waiting).as_mut()?.remove(&id));
        if let Some(asker) = asker {
            // The asker may have given up.
            asker.send(answer).unwrap_or_default();
        }
    }
    // Dropping the senders tells all who still wait that QEMU is gone.
    lock(&waiting).take();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fake QEMU: greets, then lets `script` answer each line.
    async fn fake(
        script: impl Fn(Value) -> Vec<String> + Send + 'static,
    ) -> Result<(Qmp, mpsc::UnboundedReceiver<QmpEvent>), QmpError> {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            write
                .write_all(b"{\"QMP\": {\"version\": {}}}\n")
                .await
                .expect("greeting");
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                for answer in script(serde_json::from_str(&line).expect("JSON")) {
                    if answer == "hang up" {
                        return;
                    }
                    write.write_all(answer.as_bytes()).await.expect("answer");
                    write.write_all(b"\n").await.expect("newline");
                }
            }
        });
        Qmp::open(ours).await
    }

    fn ok(request: &Value) -> String {
        json!({"return": {}, "id": request["id"]}).to_string()
    }

    #[tokio::test]
    async fn answers_events_and_refusals_find_their_way() {
        let (qmp, mut events) = fake(|request| match request["execute"].as_str() {
            Some("query-status") => vec![
                json!({"event": "RESUME", "timestamp": {"seconds": 1}}).to_string(),
                "not JSON".into(),
                json!({"return": {"status": "running"}, "id": request["id"]}).to_string(),
            ],
            Some("bogus") => vec![
                json!({"error": {"class": "CommandNotFound", "desc": "no bogus"}, "id": request["id"]})
                    .to_string(),
            ],
            _ => vec![ok(&request)],
        })
        .await
        .expect("opens");
        let status = qmp
            .execute("query-status", json!({}))
            .await
            .expect("answer");
        assert_eq!(status["status"], "running");
        assert_eq!(events.recv().await.expect("event").name, "RESUME");
        let error = qmp.execute("bogus", json!({})).await.expect_err("refused");
        assert_eq!(
            error.to_string(),
            "QEMU refused `bogus`: no bogus (CommandNotFound)"
        );
    }

    #[tokio::test]
    async fn a_qemu_that_goes_ends_all_waiting() {
        let (qmp, mut events) = fake(|request| match request["execute"].as_str() {
            Some("quit") => vec!["hang up".into()],
            _ => vec![ok(&request)],
        })
        .await
        .expect("opens");
        let error = qmp.execute("quit", json!({})).await.expect_err("gone");
        assert!(matches!(error, QmpError::Gone { .. }), "{error}");
        assert!(events.recv().await.is_none());
        let error = qmp
            .execute("stop", json!({}))
            .await
            .expect_err("still gone");
        assert!(matches!(error, QmpError::Gone { .. }), "{error}");
    }

    #[tokio::test]
    async fn silence_has_a_limit() {
        let (qmp, _events) = fake(|request| match request["execute"].as_str() {
            Some("stop") => vec![],
            _ => vec![ok(&request)],
        })
        .await
        .expect("opens");
        let within = Duration::from_millis(20);
        let error = qmp
            .execute_within("stop", json!({}), within)
            .await
            .expect_err("slow");
        assert_eq!(
            error.to_string(),
            "QEMU did not answer `stop` within 0.02 s"
        );
        assert!(lock(&qmp.inner.waiting).as_ref().expect("open").is_empty());
    }

    #[tokio::test]
    async fn a_stranger_is_not_taken_for_qemu() {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        theirs
            .write_all(b"SSH-2.0-OpenSSH\r\n")
            .await
            .expect("write");
        let error = Qmp::open(ours).await.expect_err("not QMP");
        assert!(error.to_string().contains("SSH-2.0"), "{error}");
    }
}
