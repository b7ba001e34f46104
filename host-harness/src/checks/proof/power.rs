//! Power cuts in the middle of fsync-heavy work: a fork is killed, its disk loses what nobody had it
//! flush, and the next fork must find every promise kept.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_client::{Chunk, ExecSpec, Session};
use machine::Cut;

use crate::lab::{Failure, Guest, Lab, Mount, SCRATCH};

/// After so many cuts the disk gets a new file system: an old one is full of traces, a new one is full
/// of first times.
const LIVES: u64 = 25;
/// How fast the hands work, in microseconds of rest after a step, and promises until the plug is pulled,
/// at most. Quick hands have everything flushed all the time; slow ones leave more to lose.
const PACES: &[(u64, u32)] = &[(0, 120), (4_000, 60), (30_000, 24)];
/// And then a moment more, in microseconds, so that the cut falls anywhere in a step.
const MOMENT: u64 = 30_000;

/// What was promised before a cut.
struct Promised {
    /// Where the hands worked, below the mount.
    place: String,
    seed: u64,
    /// The last step of each hand whose promise has reached us.
    hands: BTreeMap<u32, u64>,
}

/// Cuts the power again and again, each time of a new fork that first checks what the last one promised.
pub async fn power_cut(lab: &mut Lab) -> Result<(), Failure> {
    let cuts = lab.count("power_cut")?;
    let mut rng = fastrand::Rng::with_seed(lab.seed());
    let disk = lab.cut_disk().await?;
    let mut promised: Option<Promised> = None;
    let (mut kept, mut last, mut total) = (0, Cut::default(), Cut::default());
    for number in 1..=cuts + 1 {
        let guest = lab.fork_on(&disk).await?;
        if let Some(promised) = &promised {
            kept_all(lab, &guest, promised)
                .await
                .map_err(|failure| after_cut(failure, number - 1, lab.seed(), last))?;
            kept += promised.hands.values().sum::<u64>();
        }
        if number > cuts {
            break;
        }
        let mount = match (number - 1) % LIVES {
            0 => guest.fresh_mount(lab).await?,
            _ => guest.mount_again(lab).await?,
        };
        guest.fetch_kernel_log().await?;
        let (now, at_work) = work(lab, &guest, &mount, number, &mut rng).await?;
        promised = Some(now);
        last = lab
            .pull_plug(guest, &disk, &mut rng, !lab.breaks("flushes"))
            .await?;
        drop(at_work);
        total.flushes += last.flushes;
        total.durable += last.durable;
        total.kept += last.kept;
        total.lost += last.lost;
    }
    lab.fact("promises-kept", kept);
    lab.fact("flushes", total.flushes);
    lab.fact("blocks-lost", total.lost);
    lab.fact("blocks-kept-unflushed", total.kept);
    // A run in which nothing was at stake proves nothing.
    if kept == 0 || total.lost == 0 {
        let title = format!(
            "{cuts} cuts tried nothing: {kept} promises, {} blocks lost",
            total.lost
        );
        return Err(Failure::check("power", title, format!("{total:?}")));
    }
    Ok(())
}

/// Says after which cut it was.
fn after_cut(failure: Failure, number: u64, seed: u64, cut: Cut) -> Failure {
    match failure {
        Failure::Check {
            kind,
            title,
            detail,
        } => Failure::check(
            kind,
            format!("after cut {number} (seed {seed}): {title}"),
            format!(
                "{detail}\nthe cut: {cut:?}\nThe disk as the cut left it is in the dossier: \
                 scratch-after-the-cut.raw"
            ),
        ),
        other => other,
    }
}

fn vectors(lab: &Lab) -> &'static str {
    match lab.source().lacks("vectors") {
        true => "",
        false => "--vectors",
    }
}

/// Works until enough has been promised, and goes on until the session is dropped.
async fn work(
    lab: &Lab,
    guest: &Guest,
    mount: &Mount,
    number: u64,
    rng: &mut fastrand::Rng,
) -> Result<(Promised, Session), Failure> {
    let program = guest.tool(lab, "vexfs-proof").await?;
    let mut promised = Promised {
        place: format!("life-{number}"),
        seed: u64::from(rng.u32(..)),
        hands: BTreeMap::new(),
    };
    let (pace, most) = PACES[rng.usize(..PACES.len())];
    let enough = rng.u32(1..=most);
    let lie = if lab.breaks("promise") { "--lie" } else { "" };
    // What is left of the life before last goes away meanwhile, and nobody waits for it.
    let script = format!(
        "rm -rf {0}/life-{1} & exec {program} work {0}/{2} {3} --pace {pace} {lie} {4}",
        mount.path(),
        number.saturating_sub(2),
        promised.place,
        promised.seed,
        vectors(lab)
    );
    let spec = ExecSpec::new(["/bin/sh", "-euc", &script]);
    let patience = Duration::from_secs(60);
    let failed = |source| Failure::Agent {
        doing: "work".into(),
        source,
    };
    let mut session = guest.client().start(spec, patience).await.map_err(failed)?;
    let (mut heard, mut line, mut said) = (0, Vec::new(), String::new());
    while heard < enough {
        match session.next().await.map_err(failed)? {
            Chunk::Stdout(bytes) => {
                for byte in bytes {
                    if byte != b'\n' {
                        line.push(byte);
                        continue;
                    }
                    let text = String::from_utf8_lossy(&line).into_owned();
                    line.clear();
                    let (hand, step) = promise(&text).ok_or_else(|| {
                        Failure::check("power", "the worker speaks nonsense", text)
                    })?;
                    promised.hands.insert(hand, step);
                    heard += 1;
                }
            }
            Chunk::Stderr(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
            Chunk::Ended(_) => {
                let title = "the work ended before the power did";
                return Err(Failure::check("power", title, said));
            }
        }
    }
    tokio::time::sleep(Duration::from_micros(rng.u64(..MOMENT))).await;
    Ok((promised, session))
}

/// `HAND STEP`
fn promise(line: &str) -> Option<(u32, u64)> {
    let (hand, step) = line.split_once(' ')?;
    Some((hand.parse().ok()?, step.parse().ok()?))
}

/// The file system mounts, what was promised is there, and the source's own checker finds nothing,
/// neither before the journal is replayed nor after.
async fn kept_all(lab: &Lab, guest: &Guest, promised: &Promised) -> Result<(), Failure> {
    let program = guest.tool(lab, "vexfs-proof").await?;
    let fsck = lab.source().fsck.join(" ");
    let sound = async |when: &str| {
        let script = format!("{fsck} {SCRATCH}");
        let output = guest.exec(["/bin/sh", "-euc", &script]).await?;
        match output.success() {
            true => Ok(()),
            false => Err(Failure::check(
                "fsck",
                format!("`{fsck}` {when} {}", output.ending()),
                format!("{}{}", output.stdout_text(), output.stderr_text()),
            )),
        }
    };
    sound("before the replay").await?;
    let mount = guest.mount_again(lab).await?;
    let hands: Vec<String> = promised
        .hands
        .iter()
        .map(|(h, n)| format!("{h}:{n}"))
        .collect();
    let script = format!(
        "{program} check {}/{} {} {} {}",
        mount.path(),
        promised.place,
        promised.seed,
        vectors(lab),
        hands.join(" ")
    );
    let output = guest.exec(["/bin/sh", "-euc", &script]).await?;
    let said = format!("{}{}", output.stdout_text(), output.stderr_text());
    if !output.success() {
        let first = said.lines().next().unwrap_or_default();
        let title = format!("a promise is broken: {first}");
        return Err(Failure::check("power", title, said));
    }
    mount.unmount(guest).await?;
    sound("after the replay").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_read() {
        assert_eq!(promise("2 17"), Some((2, 17)));
        assert_eq!(promise("2"), None);
        assert_eq!(promise("error: x"), None);
    }
}
