//! Who may load modules into a kernel that trusts a key, asked of the running system.

use kernel_log::{Expected, Matcher};

use crate::lab::{Failure, Lab};

/// Tries to load the module without its signature (28 bytes at the end say that there is one), with one
/// that does not fit (a byte of it changed), and as it is. Prints how each went.
const LOAD_EACH: &str = "systemctl stop vexfs.service; rmmod MODULE 2>/dev/null
cd /run; whole=$(modinfo --field=filename MODULE)
head -c -28 $whole >unsigned.ko
cp $whole changed.ko; printf x | dd of=changed.ko bs=1 seek=$(($(stat -c %s $whole) - 100)) conv=notrunc status=none
for file in unsigned.ko changed.ko $whole; do
    if insmod $file 2>said; then echo taken; rmmod MODULE; else echo refused: $(cat said); fi
done
rm -f unsigned.ko changed.ko said";

/// What the kernel says when it is asked to take them.
pub const UNSIGNED: &[Expected] = &[Expected {
    what: Matcher::rule("module_signature"),
    must: true,
    why: "modules without a signature that fits are offered, and refused with a word",
}];

/// The kernel is locked down; a module without signature is refused, so is one whose signature does not fit,
/// and ours is taken.
pub async fn module_signing(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let module = lab.source().module.clone();
    let kernel = guest
        .exec([
            "/bin/sh",
            "-c",
            "cat /sys/kernel/security/lockdown /sys/module/module/parameters/sig_enforce",
        ])
        .await?;
    let kernel = kernel.stdout_text();
    lab.fact(
        "kernel-lockdown",
        kernel.lines().next().unwrap_or("not built in"),
    );
    lab.point("start-signing", &guest).await?;
    let tried = guest.sh(&LOAD_EACH.replace("MODULE", &module)).await?;
    let tried: Vec<_> = tried.lines().collect();
    let fail = |what: &str| {
        Err(Failure::check(
            "signing",
            what,
            format!("{kernel}\n{}", tried.join("\n")),
        ))
    };
    match tried[..] {
        [unsigned, changed, whole] => {
            if unsigned == "taken" {
                return fail("the kernel took a module without signature");
            }
            if changed == "taken" {
                return fail("the kernel took a module whose signature does not fit");
            }
            if whole != "taken" {
                return fail("the kernel refused the image's own module");
            }
        }
        _ => return fail("not every module was tried"),
    }
    if kernel != "none [integrity] confidentiality\nY\n" {
        return fail("the kernel is not locked down");
    }
    guest.sh(&format!("modprobe {module}")).await.map(drop)
}
