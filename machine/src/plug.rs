//! Plugging the vsock device out and in while the machine runs: a snapshot is taken without it,
//! and each fork gets one of its own.

use std::time::Duration;

use clock::waited;
use serde_json::json;

use super::arguments::{self, VsockWire, files, ids};
use super::coroner::take;
use super::{Death, Machine, MachineError, MachineEvent};

impl Machine {
    /// Takes the vsock device out, which the guest must let go of within `patience`, and ends its
    /// daemon. Connections break.
    ///
    /// # Errors
    /// [`MachineError::Slow`] when the guest does not let go of it, and QMP's own.
    pub(crate) async fn unplug_vsock(&mut self, patience: Duration) -> Result<(), MachineError> {
        let mut events = self.events();
        self.qmp()
            .execute("device_del", json!({"id": ids::VSOCK}))
            .await?;
        let gone = async {
            loop {
                match events.recv().await {
                    Ok(MachineEvent::Other { name, data })
                        if name == "DEVICE_DELETED" && data["device"] == ids::VSOCK =>
                    {
                        return Ok(());
                    }
                    Ok(MachineEvent::Died(death)) => return Err(MachineError::Died(death)),
                    Ok(_) => {}
                    Err(_) => {
                        let (status, reason) = (None, None);
                        return Err(MachineError::Died(Death::Exited { status, reason }));
                    }
                }
            }
        };
        let clock = self.clock().clone();
        clock
            .timeout(patience, gone)
            .await
            .map_err(|late| MachineError::Slow {
                what: format!(
                    "the guest's letting go of its vsock device{}",
                    waited(late.lost)
                ),
                whose: late.whose(),
                within: patience,
                log: self.console().path().to_owned(),
            })??;
        if let Some(VsockWire::User) = self.link.take().map(|link| link.wire) {
            self.qmp()
                .execute("chardev-remove", json!({"id": ids::VSOCK_CHARDEV}))
                .await?;
        }
        if let Some(mut daemon) = take(&self.daemon) {
            daemon
                .kill()
                .await
                .map_err(MachineError::io("cannot end the vsock daemon"))?;
        }
        Ok(())
    }

    /// Leaves guest memory out of the stream that saves or restores the machine's state: it is in a
    /// file of its own (QEMU's `docs/devel/migration`, capability `x-ignore-shared`).
    ///
    /// # Errors
    /// Those of [`super::Qmp::execute`].
    pub(crate) async fn leave_memory_out(&self) -> Result<(), MachineError> {
        let capability = json!({"capability": "x-ignore-shared", "state": true});
        let arguments = json!({"capabilities": [capability]});
        self.qmp()
            .execute("migrate-set-capabilities", arguments)
            .await?;
        Ok(())
    }

    /// Has QEMU restore the state that comes through its standard input. Returns at once; the
    /// machine runs when the event `RESUME` comes.
    ///
    /// # Errors
    /// Those of [`super::Qmp::execute`].
    pub(crate) async fn begin_restoring(&self) -> Result<(), MachineError> {
        self.leave_memory_out().await?;
        self.qmp()
            .execute("migrate-incoming", json!({"uri": "fd:0"}))
            .await?;
        Ok(())
    }

    /// Puts the vsock device in that was left out at the start.
    ///
    /// # Errors
    /// Those of [`super::Qmp::execute`].
    pub(crate) async fn plug_vsock(&self) -> Result<(), MachineError> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        if link.wire == VsockWire::User {
            let path = self.run_dir().path().join(files::VHOST);
            let address = json!({"type": "unix", "data": {"path": path}});
            let socket = json!({"type": "socket", "data": {"addr": address, "server": false}});
            let wire = json!({"id": ids::VSOCK_CHARDEV, "backend": socket});
            self.qmp().execute("chardev-add", wire).await?;
        }
        self.qmp()
            .execute("device_add", arguments::vsock_device(&link.wire))
            .await?;
        Ok(())
    }
}
