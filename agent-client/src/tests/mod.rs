//! Client and agent against each other in one process, over a pipe in memory; and the client
//! against guests that lie.

mod clock;
mod files;
mod hostile;
mod programs;
mod system;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::clock::Clock;
use guest_agent::connection::{self, Ending};
use tokio::task::JoinHandle;

use super::{Client, ExecSpec, Secret};

/// Time that any of these may take on a busy machine; those that test a deadline set their own.
const AMPLE: Duration = Duration::from_secs(30);

/// An agent that serves one connection, and a client of it.
struct Pair {
    client: Client,
    agent: JoinHandle<Result<(), Ending>>,
}

async fn pair() -> Pair {
    pair_by(Clock::wall()).await
}

/// With deadlines by this clock.
async fn pair_by(clock: Clock) -> Pair {
    let secret = Secret::generate().unwrap();
    let (host, guest) = tokio::io::duplex(64 * 1024);
    let agent = Arc::new(guest_agent::Agent::new(secret.clone()));
    let agent = tokio::spawn(connection::serve(guest, agent));
    let client = Client::connect_by(clock, host, &secret, AMPLE);
    let client = client.await.unwrap();
    Pair { client, agent }
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec::new(["/bin/sh", "-c", script])
}

/// Whether a process is there and no zombie.
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}

async fn gone(pid: &str) {
    let begun = Instant::now();
    while alive(pid) {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "process {pid} is still alive"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
