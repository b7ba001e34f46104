//! The agent program: read the invitation, listen, leave when told to. See the library.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::Secret;
use anyhow::Context;
use guest_agent::{Agent, credential, invited, listener, log};
use tokio::signal::unix::{SignalKind, signal};

/// EX_CONFIG of sysexits.h, for which the unit does not start the agent again.
const NOT_INVITED: u8 = 78;

fn main() -> anyhow::Result<ExitCode> {
    match credential::read(std::env::var_os("CREDENTIALS_DIRECTORY").as_deref()) {
        Ok(secret) => serve(secret).map(|()| ExitCode::SUCCESS),
        Err(not_invited) => {
            log::warn(format_args!("no listener: {not_invited}"));
            Ok(ExitCode::from(NOT_INVITED))
        }
    }
}

fn serve(secret: Secret) -> anyhow::Result<()> {
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
