//! mount(2) and umount2(2), without mount(8): no helper, no `/etc/fstab`, the kernel's errno.

use agent_protocol::message::{GuestPath, MountRequest, UnmountFlags};
use agent_protocol::{Fault, FaultKind, Reply};
use nix::libc::c_ulong;
use nix::mount::{MntFlags, MsFlags};

use crate::files::local_path;
use crate::off_thread;

/// Mounts.
///
/// # Errors
/// With the kernel's errno.
pub async fn mount(request: MountRequest) -> Result<Reply, Fault> {
    off_thread(move || {
        let MountRequest {
            source,
            target,
            fstype,
            flags,
            data,
        } = request;
        let what = format!("mount {source} on {target} as {fstype:?} with {data:?}");
        let flags = c_ulong::try_from(flags.0)
            .ok()
            .and_then(MsFlags::from_bits)
            .ok_or_else(|| Fault::new(FaultKind::Invalid, format!("{what}: unknown flags")))?;
        let optional = |text: &String| (!text.is_empty()).then(|| text.clone());
        nix::mount::mount(
            Some(local_path(&source)),
            local_path(&target),
            optional(&fstype).as_deref(),
            flags,
            optional(&data).as_deref(),
        )
        .map_err(|errno| Fault::from_io(what, &errno.into()))?;
        Ok(Reply::Done)
    })
    .await
}

/// Unmounts.
///
/// # Errors
/// With the kernel's errno; [`FaultKind::Busy`] while files are open.
pub async fn unmount(target: GuestPath, flags: UnmountFlags) -> Result<Reply, Fault> {
    off_thread(move || {
        let mut bits = MntFlags::empty();
        bits.set(MntFlags::MNT_FORCE, flags.force);
        bits.set(MntFlags::MNT_DETACH, flags.detach);
        nix::mount::umount2(local_path(&target), bits)
            .map_err(|errno| Fault::from_io(format_args!("unmount {target}"), &errno.into()))?;
        Ok(Reply::Done)
    })
    .await
}
