//! QEMU's guest agent on the same machine: JSON lines over a vsock port (QEMU's
//! docs/interop/qemu-ga-ref). It comes on the tools disk.

use std::time::{Duration, Instant};

use clock::Clock;
use machine::Stream;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::sync::Mutex;

use super::{milliseconds, rate, ssh};
use crate::lab::{Failure, Guest};

/// The port it listens on.
const PORT: u32 = 5757;

/// How long one answer may take under emulation.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of a file in one message; base64 makes them 64 KiB.
const CHUNK: usize = 48 << 10;

/// A connection to it.
pub(super) struct QemuGa(Mutex<BufStream<Box<dyn Stream>>>, Clock);

fn trouble(why: impl std::fmt::Display) -> Failure {
    Failure::check("qemu-ga", format!("QEMU's guest agent: {why}"), "")
}

impl QemuGa {
    /// Starts it in the guest, and connects.
    pub(super) async fn connect(guest: &Guest) -> Result<QemuGa, Failure> {
        let tools = guest.mount_tools().await?;
        // VMADDR_CID_ANY of vsock(7).
        guest
            .sh(&format!(
                "mkdir -p /run/qga
                 systemd-run --quiet --unit=vexfs-perf-qga {tools}/qemu-ga \
                   --method=vsock-listen --path=4294967295:{PORT} --statedir=/run/qga"
            ))
            .await?;
        let stream = guest.machine().wait_for_port(PORT, PATIENCE).await?;
        let clock = guest.machine().clock().clone();
        let ga = QemuGa(Mutex::new(BufStream::new(stream)), clock);
        ga.execute("guest-sync", json!({"id": 4711})).await?;
        Ok(ga)
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let mut stream = self.0.lock().await;
        let line = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        let mut answer = String::new();
        let talk = async {
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await?;
            stream.read_line(&mut answer).await
        };
        self.1
            .timeout(PATIENCE, talk)
            .await
            .map_err(|late| trouble(format!("no answer to {command} {late}")))?
            .map_err(trouble)?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(trouble)?;
        match answer.get("return") {
            Some(_) => Ok(answer["return"].take()),
            None => Err(trouble(format!("{command}: {answer}"))),
        }
    }

    /// `guest-ping`, in milliseconds.
    pub(super) async fn ping(&self) -> Result<f64, Failure> {
        let begin = Instant::now();
        self.execute("guest-ping", json!({})).await?;
        Ok(milliseconds(begin))
    }

    /// Runs a program; it has no other way to hear of the end than asking again and again.
    async fn run(&self, path: &str, args: &[&str]) -> Result<Value, Failure> {
        let arguments = json!({"path": path, "arg": args, "capture-output": true});
        let started = self.execute("guest-exec", arguments).await?;
        let begin = tokio::time::Instant::now();
        loop {
            let pid = json!({"pid": started["pid"]});
            let status = self.execute("guest-exec-status", pid).await?;
            if status["exited"] == true {
                return Ok(status);
            }
            if self.1.left(begin, PATIENCE).is_zero() {
                return Err(trouble(format!("{path} never ends")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// `true`, in milliseconds.
    pub(super) async fn spawn(&self) -> Result<f64, Failure> {
        let begin = Instant::now();
        self.run("/bin/true", &[]).await?;
        Ok(milliseconds(begin))
    }

    /// Output of a program, in MB/s.
    pub(super) async fn output(&self, bytes: usize) -> Result<f64, Failure> {
        let begin = Instant::now();
        let status = self
            .run("/usr/bin/head", &["-c", &bytes.to_string(), "/dev/zero"])
            .await?;
        rate(decoded(&status["out-data"]), bytes, begin)
    }

    /// A file to the guest, in MB/s.
    pub(super) async fn put(&self, bytes: usize) -> Result<f64, Failure> {
        // 48 KiB of zeros in base64.
        let chunk = "A".repeat(CHUNK / 3 * 4);
        let begin = Instant::now();
        let handle = self.open("/run/vexfs-perf.put", "w").await?;
        let mut sent = 0;
        while sent < bytes {
            let count = CHUNK.min(bytes - sent);
            let arguments = json!({"handle": handle, "buf-b64": chunk, "count": count});
            let written = self.execute("guest-file-write", arguments).await?;
            sent += usize::try_from(written["count"].as_u64().unwrap_or(0)).unwrap_or(0);
        }
        self.execute("guest-file-close", json!({"handle": handle}))
            .await?;
        rate(sent, bytes, begin)
    }

    /// A file from the guest, in MB/s.
    pub(super) async fn get(&self, bytes: usize) -> Result<f64, Failure> {
        let begin = Instant::now();
        let handle = self.open(ssh::SERVED, "r").await?;
        let mut got = 0;
        while got < bytes {
            let arguments = json!({"handle": handle, "count": CHUNK.min(bytes - got)});
            let read = self.execute("guest-file-read", arguments).await?;
            match decoded(&read["buf-b64"]) {
                0 => break,
                count => got += count,
            }
        }
        self.execute("guest-file-close", json!({"handle": handle}))
            .await?;
        rate(got, bytes, begin)
    }

    async fn open(&self, path: &str, mode: &str) -> Result<Value, Failure> {
        let arguments = json!({"path": path, "mode": mode});
        self.execute("guest-file-open", arguments).await
    }
}

/// How many bytes a base64 text stands for.
fn decoded(text: &Value) -> usize {
    let text = text.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    text.len() / 4 * 3 - padding.min(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_base64_is_known() {
        for (text, bytes) in [
            ("", 0),
            ("AA==", 1),
            ("AAA=", 2),
            ("AAAA", 3),
            ("AAAAAA==", 4),
        ] {
            assert_eq!(decoded(&json!(text)), bytes, "{text}");
        }
        assert_eq!(decoded(&Value::Null), 0);
    }
}
