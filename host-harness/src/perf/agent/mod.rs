//! How quick is the agent, beside OpenSSH and QEMU's own guest agent over the same machine?
//!
//! Each has its connection made beforehand: OpenSSH a control master, over QEMU's user-mode network, as
//! people use it; QEMU's agent a vsock port of its own. All are asked in turn.

mod qemu_ga;
mod ssh;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machines::{PATIENCE, logs};
use crate::lab::{Failure, Guest, Setup};

use agent_client::ExecSpec;
use machine::{Machine, MachineSpec, Network, admission};
use qemu_ga::QemuGa;
use results::figures::{Direction, Metric};
use ssh::Ssh;

/// What is streamed and transferred, in bytes. QEMU's agent gets less: it keeps all output in memory,
/// and everything goes through base64 in JSON.
const BYTES: usize = 4 << 20;
const BYTES_QEMU_GA: usize = 256 << 10;

/// The subject that is not a peer.
const AGENT: &str = "vexfs-agent";
const SSH: &str = "openssh";
const QEMU_GA: &str = "qemu-ga";

/// One question: its name, unit, and how each is asked.
type Ask =
    for<'a> fn(&'a Trio) -> std::pin::Pin<Box<dyn Future<Output = Result<f64, Failure>> + 'a>>;

/// All questions: metric, subject, unit, direction, how.
const QUESTIONS: &[(&str, &str, &str, Direction, Ask)] = &[
    ("agent/round_trip", AGENT, "ms", Direction::Lower, |t| {
        Box::pin(t.ping())
    }),
    ("agent/round_trip", QEMU_GA, "ms", Direction::Lower, |t| {
        Box::pin(t.ga.ping())
    }),
    ("agent/spawn_true", AGENT, "ms", Direction::Lower, |t| {
        Box::pin(t.spawn())
    }),
    ("agent/spawn_true", SSH, "ms", Direction::Lower, |t| {
        Box::pin(t.ssh.spawn())
    }),
    ("agent/spawn_true", QEMU_GA, "ms", Direction::Lower, |t| {
        Box::pin(t.ga.spawn())
    }),
    ("agent/output", AGENT, "MB/s", Direction::Higher, |t| {
        Box::pin(t.output())
    }),
    ("agent/output", SSH, "MB/s", Direction::Higher, |t| {
        Box::pin(t.ssh.output(BYTES))
    }),
    ("agent/output", QEMU_GA, "MB/s", Direction::Higher, |t| {
        Box::pin(t.ga.output(BYTES_QEMU_GA))
    }),
    ("agent/put", AGENT, "MB/s", Direction::Higher, |t| {
        Box::pin(t.put())
    }),
    ("agent/put", SSH, "MB/s", Direction::Higher, |t| {
        Box::pin(t.ssh.put())
    }),
    ("agent/put", QEMU_GA, "MB/s", Direction::Higher, |t| {
        Box::pin(t.ga.put(BYTES_QEMU_GA))
    }),
    ("agent/get", AGENT, "MB/s", Direction::Higher, |t| {
        Box::pin(t.get())
    }),
    ("agent/get", SSH, "MB/s", Direction::Higher, |t| {
        Box::pin(t.ssh.get())
    }),
    ("agent/get", QEMU_GA, "MB/s", Direction::Higher, |t| {
        Box::pin(t.ga.get(BYTES_QEMU_GA))
    }),
];

/// The three, on one machine.
pub struct Trio {
    guest: Guest,
    ssh: Ssh,
    ga: QemuGa,
}

impl Trio {
    /// Boots a machine with a network and makes all three connections.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn boot(setup: &Setup) -> Result<Trio, Failure> {
        let port = ssh::free_port()?;
        let spec = MachineSpec {
            accelerator: setup.host.accel.chosen,
            vsock: Some(setup.host.vsock.chosen),
            disks: vec![machine::ExtraDisk::tools(setup.tools.clone())],
            network: Network::User {
                forward: vec![(port, 22)],
            },
            ..MachineSpec::new("perf-agent", &setup.image.disk, logs(setup, "agent"))
        };
        let ticket = admission::enter(&spec)
            .await
            .map_err(|e| Failure::Host(format!("cannot wait for room on this host: {e}")))?;
        let mut machine = Machine::boot(spec).await?;
        machine.hold(ticket);
        let guest = Guest::meet(Arc::new(machine), setup.boot_deadline, PATIENCE).await?;
        guest.settle().await?;
        let ssh = Ssh::connect(&guest, port, BYTES).await?;
        let ga = QemuGa::connect(&guest).await?;
        Ok(Trio { guest, ssh, ga })
    }

    async fn ping(&self) -> Result<f64, Failure> {
        let begin = Instant::now();
        let ping = self.guest.client().ping(PATIENCE);
        self.guest.ask("ping", ping).await?;
        Ok(milliseconds(begin))
    }

    async fn spawn(&self) -> Result<f64, Failure> {
        let begin = Instant::now();
        self.guest.exec(["/bin/true"]).await?;
        Ok(milliseconds(begin))
    }

    async fn output(&self) -> Result<f64, Failure> {
        let spec = ExecSpec::new(["head", "-c", &BYTES.to_string(), "/dev/zero"]);
        let begin = Instant::now();
        let output = self.guest.client().exec(spec.output_limit(BYTES), PATIENCE);
        let output = self.guest.ask("stream output", output).await?;
        rate(output.stdout.len(), BYTES, begin)
    }

    async fn put(&self) -> Result<f64, Failure> {
        let content = vec![7; BYTES];
        let begin = Instant::now();
        self.guest
            .put_bytes(&content, "/run/vexfs-perf.put")
            .await?;
        rate(BYTES, BYTES, begin)
    }

    async fn get(&self) -> Result<f64, Failure> {
        let begin = Instant::now();
        let get = self
            .guest
            .client()
            .get_file(ssh::SERVED, BYTES as u64, PATIENCE);
        let content = self.guest.ask("get a file", get).await?;
        rate(content.bytes.len(), BYTES, begin)
    }
}

/// Asks every question `rounds` times, all in turn.
///
/// # Errors
/// When one of the three does not answer.
pub async fn measure(setup: &Setup, rounds: usize) -> Result<Vec<Metric>, Failure> {
    let trio = Trio::boot(setup).await?;
    let mut metrics: Vec<Metric> = QUESTIONS
        .iter()
        .map(|(name, subject, unit, direction, _)| {
            let metric = Metric::new(name, subject, unit, *direction);
            match *subject {
                AGENT => metric,
                _ => metric.beside(AGENT),
            }
        })
        .collect();
    // The first of each pays for what is not in memory yet.
    for round in 0..=rounds {
        for (metric, (_, _, _, _, ask)) in metrics.iter_mut().zip(QUESTIONS) {
            let sample = ask(&trio).await?;
            if round > 0 {
                metric.samples.push(sample);
            }
        }
    }
    Ok(metrics)
}

/// The questions by name and subject, for one who asks them one at a time.
pub fn questions() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    QUESTIONS
        .iter()
        .map(|(name, subject, unit, ..)| (*name, *subject, *unit))
}

impl Trio {
    /// Asks the question of that number once.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn ask(&self, number: usize) -> Result<f64, Failure> {
        (QUESTIONS[number].4)(self).await
    }
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

/// MB/s, when all of it came.
fn rate(got: usize, wanted: usize, begin: Instant) -> Result<f64, Failure> {
    per_second(got, wanted, begin.elapsed())
}

fn per_second(got: usize, wanted: usize, took: Duration) -> Result<f64, Failure> {
    if got != wanted {
        return Err(Failure::check(
            "performance",
            format!("{got} bytes came of {wanted}"),
            "",
        ));
    }
    Ok(wanted as f64 / 1e6 / took.as_secs_f64())
}
