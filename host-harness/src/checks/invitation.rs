//! The agent serves only who invited it.

use std::time::Duration;

use crate::lab::{Boot, Failure, Lab};

/// A machine without the credential: it boots to its login prompt, and nothing answers on the
/// agent's port. The silence is asked for after the boot is over, so that a late listener counts.
pub async fn uninvited_silence(lab: &mut Lab) -> Result<(), Failure> {
    let machine = lab.boot_uninvited(Boot::uninvited()).await?;
    machine
        .wait_for_console(" login:", Duration::from_secs(120))
        .await?;
    for _ in 0..5 {
        if machine.somebody_answers().await? {
            return Err(Failure::check(
                "invitation",
                "somebody answers on the agent's port without an invitation",
                machine.console_tail(30),
            ));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// `nobody`, inside the guest, over vsock loopback (vsock(7), `VMADDR_CID_LOCAL`): the agent must
/// hang up on a peer that is not the host, before a byte of the handshake, and say so.
pub async fn stranger_refused(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let tools = guest.tools(lab).await?;
    guest.sh("modprobe vsock_loopback").await?;
    lab.point("ready", &guest).await?;
    let mark = guest.kernel_log_mark().await?;
    // It only listens: an agent that took it for the host would wait for its hello, and the
    // attempt would end by timeout(1) with 124.
    let attempt = guest
        .exec_as(
            "nobody",
            [
                "timeout",
                "10",
                &format!("{tools}/socat"),
                "-u",
                "VSOCK-CONNECT:1:5000",
                "-",
            ],
        )
        .await?;
    let log = guest.whole_log_since(mark).await?;
    let told = log
        .iter()
        .any(|record| record.text.contains("refused a peer with CID 1"));
    if attempt.code() == Some(124) || !attempt.stdout.is_empty() || !told {
        return Err(Failure::check(
            "invitation",
            "a stranger inside the guest was not refused",
            format!(
                "{}\n{}{}",
                attempt.ending(),
                attempt.stdout_text(),
                attempt.stderr_text()
            ),
        ));
    }
    // The refusal must not have cost the host its access.
    guest.sh("true").await.map(drop)
}

/// The host with a wrong secret gets a refusal, not a service and not a hang.
pub async fn wrong_secret_refused(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    match guest.connect_with_wrong_secret(lab).await? {
        None => Ok(()),
        Some(said) => Err(Failure::check(
            "invitation",
            "a wrong secret was not refused",
            said,
        )),
    }
}
