//! The agent program: read the invitation, listen, leave when told to. See the library.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use guest_agent::{Agent, credential, invited, listener, log};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    let secret = credential::read(std::env::var_os("CREDENTIALS_DIRECTORY").as_deref())?;
    invited::talk();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Threads are where calls into the kernel hang alone; give them back soon, and let many hang
        // before the agent does.
        .max_blocking_threads(256)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_stack_size(256 * 1024)
        .build()
        .context("start the runtime")?;
    let agent = Arc::new(Agent::new(secret));
    if agent.cgroups.is_none() {
        log::warn("no cgroup to divide: a program that leaves its session escapes its deadline");
    }
    let done = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        tokio::select! {
            never = listener::listen(agent) => match never {},
            _ = terminate.recv() => Ok(()),
        }
    });
    // Not waiting for threads: one may hang in the kernel, and shutdown must not.
    runtime.shutdown_background();
    done
}
