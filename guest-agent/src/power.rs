//! The end of a running system, and the keys that make it talk.

use std::process::Stdio;
use std::time::Duration;

use agent_protocol::message::{PowerAction, PowerHow};
use agent_protocol::{Fault, FaultKind, Reply};
use nix::sys::reboot::{RebootMode, reboot};
use tokio::process::Command;
use tokio::time::sleep;

use crate::{log, off_thread};

/// Time for a reply that the connection has taken to leave through the virtual device.
const LEAVING: Duration = Duration::from_millis(50);

/// What is done after its reply has been sent, because nothing can be said any more then.
pub enum Afterwards {
    /// reboot(2).
    Reboot(RebootMode),
    /// A key of `/proc/sysrq-trigger`.
    SysRq(u8),
}

impl Afterwards {
    /// Does it.
    pub async fn carry_out(self) {
        sleep(LEAVING).await;
        let result = off_thread(move || match self {
            Self::Reboot(mode) => match reboot(mode) {
                Err(errno) => Err(Fault::from_io("reboot", &errno.into())),
            },
            Self::SysRq(key) => trigger(key),
        })
        .await;
        if let Err(fault) = result {
            log::warn(fault);
        }
    }
}

/// Writes all that is dirty to the disks.
///
/// # Errors
/// None but the worker's own.
pub async fn sync() -> Result<Reply, Fault> {
    off_thread(|| {
        nix::unistd::sync();
        Ok(Reply::Done)
    })
    .await
}

/// Begins the end.
///
/// # Errors
/// When systemd does not take the order.
pub async fn end(
    action: PowerAction,
    how: PowerHow,
    afterwards: &mut Option<Afterwards>,
) -> Result<Reply, Fault> {
    match how {
        PowerHow::Forced => {
            *afterwards = Some(Afterwards::Reboot(match action {
                PowerAction::Reboot => RebootMode::RB_AUTOBOOT,
                PowerAction::PowerOff => RebootMode::RB_POWER_OFF,
            }));
            Ok(Reply::Done)
        }
        PowerHow::Orderly => {
            let verb = match action {
                PowerAction::Reboot => "reboot",
                PowerAction::PowerOff => "poweroff",
            };
            // --no-block: the order is placed, and the reply leaves before it is carried out.
            let output = Command::new("systemctl")
                .args(["--no-block", verb])
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await
                .map_err(|error| Fault::from_io(format_args!("systemctl {verb}"), &error))?;
            if output.status.success() {
                return Ok(Reply::Done);
            }
            let words = String::from_utf8_lossy(&output.stderr);
            Err(Fault::new(
                FaultKind::System,
                format!("systemctl {verb}: {}: {}", output.status, words.trim()),
            ))
        }
    }
}

/// Presses a sysrq key (kernel: admin-guide/sysrq.rst).
///
/// # Errors
/// When it is no letter or digit, or the kernel has no sysrq.
pub async fn sysrq(key: u8, afterwards: &mut Option<Afterwards>) -> Result<Reply, Fault> {
    if !key.is_ascii_alphanumeric() {
        return Err(Fault::new(
            FaultKind::Invalid,
            format!("no sysrq key: {key:#04x}"),
        ));
    }
    if ends_the_system(key) {
        *afterwards = Some(Afterwards::SysRq(key));
        return Ok(Reply::Done);
    }
    off_thread(move || trigger(key)).await?;
    Ok(Reply::Done)
}

/// Boot, crash, off; and the two that kill every process, the agent among them.
fn ends_the_system(key: u8) -> bool {
    matches!(key, b'b' | b'c' | b'o' | b'e' | b'i')
}

fn trigger(key: u8) -> Result<(), Fault> {
    std::fs::write("/proc/sysrq-trigger", [key])
        .map_err(|error| Fault::from_io("/proc/sysrq-trigger", &error))
}
