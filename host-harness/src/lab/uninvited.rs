//! A machine whose agent was not invited: all there is to see of it is its console and its silence.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::AGENT_PORT;
use machine::{Death, Machine, MachineError};

use super::Failure;

/// A machine that was not invited to talk.
pub struct Uninvited {
    machine: Arc<Machine>,
}

impl Uninvited {
    pub(super) fn new(machine: Arc<Machine>) -> Uninvited {
        Uninvited { machine }
    }

    /// Waits until the console shows a text.
    ///
    /// # Errors
    /// When it does not in time, with the console's end, or when the machine dies.
    pub async fn wait_for_console(&self, text: &str, within: Duration) -> Result<(), Failure> {
        let seen = async {
            loop {
                // The prompt is the last, unfinished line; everything else scrolls by.
                if self.machine.console().tail(2).contains(text) {
                    return ControlFlow::<Death>::Continue(());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let died = async { ControlFlow::Break(self.machine.died().await) };
        let raced = async {
            tokio::select! { end = seen => end, end = died => end }
        };
        match self.machine.clock().timeout(within, raced).await {
            Ok(ControlFlow::Continue(())) => Ok(()),
            Ok(ControlFlow::Break(death)) => Err(Failure::Died(death)),
            Err(late) => Err(Failure::check(
                "boot",
                format!("no `{}` on the console {late}", text.trim()),
                self.console_tail(30),
            )),
        }
    }

    /// Whether anybody accepts a connection on the agent's port.
    ///
    /// # Errors
    /// When the machine is dead.
    pub async fn somebody_answers(&self) -> Result<bool, Failure> {
        match self.machine.connect(AGENT_PORT).await {
            Ok(_) => Ok(true),
            Err(MachineError::NoAnswer { .. }) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    /// The console's last lines.
    pub fn console_tail(&self, lines: usize) -> String {
        self.machine.console().tail(lines)
    }
}
