//! A folder of this host; what is shown of it holds behind SSH, where the same scripts run.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use libtest_mimic::Failed;
use publisher::{Latest, PublishError};

use super::Row;
use super::world::{Bundle, World, block_on, must, names, whole};

pub const TESTS: &[Row] = &[
    (
        "a_release_is_whole_and_latest",
        a_release_is_whole_and_latest,
    ),
    (
        "a_second_time_nothing_is_sent",
        a_second_time_nothing_is_sent,
    ),
    (
        "latest_moves_only_to_what_passed",
        latest_moves_only_to_what_passed,
    ),
    (
        "a_delta_leads_to_the_new_disk",
        a_delta_leads_to_the_new_disk,
    ),
    (
        "a_broken_transfer_is_gone_on_with",
        a_broken_transfer_is_gone_on_with,
    ),
    (
        "a_part_of_something_else_is_not",
        a_part_of_something_else_is_not,
    ),
    (
        "a_damaged_source_changes_nothing",
        a_damaged_source_changes_nothing,
    ),
    (
        "a_damaged_file_there_is_replaced",
        a_damaged_file_there_is_replaced,
    ),
    (
        "old_releases_go_and_latest_stays",
        old_releases_go_and_latest_stays,
    ),
    ("two_at_once_are_one", two_at_once_are_one),
    (
        "a_bundle_is_replaced_as_a_whole",
        a_bundle_is_replaced_as_a_whole,
    ),
];

fn first(world: &World) -> Result<(Bundle, std::path::PathBuf), Failed> {
    let bundle = world.bundle("1.0.0", 1, true)?;
    bundle.publish(&world.path("files").display().to_string(), &world.options())?;
    Ok((bundle, world.path("files/vexfs-minimal")))
}

fn to(world: &World) -> String {
    world.path("files").display().to_string()
}

fn a_release_is_whole_and_latest() -> Result<(), Failed> {
    let world = World::new()?;
    let (bundle, home) = first(&world)?;
    assert_eq!(names(&home)?, [bundle.release(), "latest".into()]);
    assert_eq!(
        fs::read_link(home.join("latest"))?.to_string_lossy(),
        bundle.release()
    );
    whole(&home.join("latest"))?;
    let page = fs::read_to_string(home.join("latest/index.html"))?;
    assert!(
        page.contains("vexfs-minimal-1.0.0.qcow2.zst") && page.contains("14 passed"),
        "{page}"
    );
    assert!(
        !home
            .join("latest/vexfs-minimal-1.0.0/.verified.json")
            .exists()
    );
    assert!(home.join("latest/reports/junit.xml").is_file());
    Ok(())
}

fn a_second_time_nothing_is_sent() -> Result<(), Failed> {
    let world = World::new()?;
    let (bundle, _) = first(&world)?;
    let again = bundle.publish(&to(&world), &world.options())?;
    assert_eq!((again.sent, again.bytes), (0, 0), "{again:?}");
    assert_eq!(again.latest, Latest::Stays);
    assert!(
        again
            .delta
            .is_err_and(|why| why.contains("published before"))
    );
    Ok(())
}

fn latest_moves_only_to_what_passed() -> Result<(), Failed> {
    let world = World::new()?;
    let (good, home) = first(&world)?;
    let bad = world.bundle("1.1.0", 2, false)?;
    let published = bad.publish(&to(&world), &world.options())?;
    assert_eq!(
        published.latest,
        Latest::Withheld {
            remains: Some(good.release())
        }
    );
    // It is there for whoever wants to know why, and nobody is led to it.
    whole(&home.join(bad.release()))?;
    assert_eq!(
        fs::read_link(home.join("latest"))?.to_string_lossy(),
        good.release()
    );
    // The same image, once its checks have passed.
    let mended = world.bundle("1.1.0", 2, true)?;
    let published = mended.publish(&to(&world), &world.options())?;
    assert_eq!(published.latest, Latest::Moved);
    assert_eq!(
        fs::read_link(home.join("latest"))?.to_string_lossy(),
        bad.release()
    );
    whole(&home.join("latest"))
}

fn a_delta_leads_to_the_new_disk() -> Result<(), Failed> {
    let world = World::new()?;
    let (old, home) = first(&world)?;
    let new = world.bundle("1.1.0", 2, true)?;
    let published = new.publish(&to(&world), &world.options())?;
    let delta = published.delta.expect("a delta");
    assert_eq!(delta.from_release, old.release());
    assert!(
        delta.file.bytes * 20 < published.download,
        "{} of {}",
        delta.file.bytes,
        published.download
    );
    // What somebody does who has the old one.
    let patch = home.join("latest").join(&delta.file.name);
    let rebuilt = world.path("rebuilt");
    must(
        Command::new("zstd")
            .args(["-q", "-d", "--long=31"])
            .arg(format!("--patch-from={}", old.disk.display()))
            .arg(&patch)
            .arg("-o")
            .arg(&rebuilt),
    )?;
    assert!(
        fs::read(rebuilt)? == fs::read(&new.disk)?,
        "another disk came of it"
    );
    whole(&home.join("latest"))?;
    // An earlier image that has suffered is no base for anything, and no obstacle.
    let zst = home.join("latest/vexfs-minimal-1.1.0/vexfs-minimal-1.1.0.qcow2.zst");
    fs::write(zst, "gone")?;
    let next = world.bundle("1.2.0", 3, true)?;
    let published = next.publish(&to(&world), &world.options())?;
    assert!(published.delta.is_err_and(|why| why.contains("of no use")));
    assert_eq!(published.latest, Latest::Moved);
    Ok(())
}

/// A try that ended in the middle of the disk: the rest is sent, and nobody has seen it meanwhile.
fn a_broken_transfer_is_gone_on_with() -> Result<(), Failed> {
    let world = World::new()?;
    let bundle = world.bundle("1.0.0", 1, true)?;
    let home = world.path("files/vexfs-minimal");
    let incoming = home.join(format!(".incoming-{}", bundle.release()));
    let part = incoming.join("vexfs-minimal-1.0.0/vexfs-minimal-1.0.0.qcow2.part");
    fs::create_dir_all(part.parent().ok_or("no folder")?)?;
    fs::write(&part, &fs::read(&bundle.disk)?[..2_000_000])?;
    let published = bundle.publish(&to(&world), &world.options())?;
    assert_eq!(published.resumed, 2_000_000);
    assert_eq!(names(&home)?, [bundle.release(), "latest".into()]);
    whole(&home.join("latest"))
}

/// Bytes of another image under the same name are no beginning of this one.
fn a_part_of_something_else_is_not() -> Result<(), Failed> {
    let world = World::new()?;
    let bundle = world.bundle("1.0.0", 1, true)?;
    let home = world.path("files/vexfs-minimal");
    let incoming = home.join(format!(".incoming-{}", bundle.release()));
    let part = incoming.join("vexfs-minimal-1.0.0/vexfs-minimal-1.0.0.qcow2.part");
    fs::create_dir_all(part.parent().ok_or("no folder")?)?;
    fs::write(&part, vec![7; 2_000_000])?;
    let stale = home.join(".incoming-0.9.0_000000000000");
    fs::create_dir_all(&stale)?;
    let published = bundle.publish(&to(&world), &world.options())?;
    assert_eq!(published.resumed, 0);
    assert!(!stale.exists(), "the beginning of another release is left");
    whole(&home.join("latest"))
}

/// A file that is not what its digest says: it never gets its name there, and latest stays.
fn a_damaged_source_changes_nothing() -> Result<(), Failed> {
    let world = World::new()?;
    let (good, home) = first(&world)?;
    let mut bad = world.bundle("1.1.0", 2, true)?;
    let disk = bad.index.images[0].disk.name.clone();
    let entry = bad.index.files.iter_mut().find(|file| file.name == disk);
    entry.ok_or("no disk")?.sha256 = "0".repeat(64);
    let error = bad
        .publish(&to(&world), &world.options())
        .expect_err("it is damaged");
    assert!(matches!(error, PublishError::Digest { .. }), "{error}");
    assert!(
        error.to_string().contains("vexfs-minimal-1.1.0.qcow2"),
        "{error}"
    );
    assert_eq!(
        fs::read_link(home.join("latest"))?.to_string_lossy(),
        good.release()
    );
    assert!(!home.join(bad.release()).exists());
    whole(&home.join("latest"))
}

/// Whatever happened to a release since: publishing it again looks at each file.
fn a_damaged_file_there_is_replaced() -> Result<(), Failed> {
    let world = World::new()?;
    let (bundle, home) = first(&world)?;
    let file = home.join("latest/vexfs-minimal-1.0.0/manifest.json");
    fs::write(&file, "{}")?;
    assert!(whole(&home.join("latest")).is_err());
    let again = bundle.publish(&to(&world), &world.options())?;
    assert_eq!(again.sent, 1, "{again:?}");
    whole(&home.join("latest"))
}

fn old_releases_go_and_latest_stays() -> Result<(), Failed> {
    let world = World::new()?;
    let (good, home) = first(&world)?;
    let mut options = world.options();
    options.keep_last = Some(2);
    let mut removed = Vec::new();
    let touch = |release: String, day: u8| {
        let index = home.join(release).join("index.json");
        must(
            Command::new("touch")
                .args(["-d", &format!("2020-01-0{day}")])
                .arg(index),
        )
    };
    touch(good.release(), 1)?;
    for salt in 2..6 {
        let bundle = world.bundle(&format!("1.{salt}.0"), salt, false)?;
        removed.extend(bundle.publish(&to(&world), &options)?.removed);
        // Newest first is decided by time, of which some file systems know whole seconds only.
        touch(bundle.release(), salt)?;
    }
    let left = names(&home)?;
    // The two newest, and the good one.
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.contains(&good.release()) && left.iter().any(|it| it.starts_with("1.5.0_")));
    assert_eq!(removed.len(), 2, "{removed:?}");
    whole(&home.join("latest"))
}

fn two_at_once_are_one() -> Result<(), Failed> {
    let world = World::new()?;
    let (bundle, home) = first(&world)?;
    // One process, so that nothing outlives it.
    let mut holder = Command::new("flock")
        .arg("--no-fork")
        .arg(home.join(".lock"))
        .args(["sh", "-c", "echo held; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut said = [0; 4];
    std::io::Read::read_exact(holder.stdout.as_mut().ok_or("no output")?, &mut said)?;
    let refused = bundle.publish(&to(&world), &world.options());
    holder.kill()?;
    holder.wait()?;
    match refused {
        Err(error @ PublishError::Busy { .. }) => {
            assert!(
                error
                    .to_string()
                    .contains("another run is publishing minimal"),
                "{error}"
            );
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn a_bundle_is_replaced_as_a_whole() -> Result<(), Failed> {
    let world = World::new()?;
    let old = world.bundle("1.0.0", 1, true)?;
    whole(&old.dir)?;
    // Half-way through the next one a file is missing: the earlier bundle stays.
    let mut broken = old.content.clone();
    broken.reports.push(world.path("no-such-report"));
    let error = block_on(publisher::bundle(&broken, &old.dir, &world.log())).expect_err("no file");
    assert!(error.to_string().contains("no-such-report"), "{error}");
    whole(&old.dir)?;
    assert!(
        !names(world.dir.path())?
            .iter()
            .any(|name| name.starts_with(".bundling"))
    );
    // A dossier comes as one archive.
    let dossier = world.path("minimal-stress-1234");
    fs::create_dir(&dossier)?;
    fs::write(dossier.join("README.md"), "what happened")?;
    symlink("README.md", dossier.join("link"))?;
    let mut content = old.content.clone();
    content.dossiers.push(("minimal".into(), dossier));
    content
        .not_built
        .insert("testing".into(), "no <room>".into());
    let index = block_on(publisher::bundle(&content, &old.dir, &world.log()))?;
    let archive = old.dir.join("dossiers/minimal-stress-1234.tar.zst");
    let listed = must(Command::new("tar").args(["--zstd", "-tf"]).arg(archive))?;
    assert!(String::from_utf8_lossy(&listed).contains("minimal-stress-1234/README.md"));
    assert!(fs::read_to_string(old.dir.join("index.html"))?.contains("not built: no &lt;room&gt;"));
    assert_eq!(index.not_built.len(), 1);
    whole(&old.dir)
}
