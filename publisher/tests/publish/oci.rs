//! An OCI layout, read by skopeo(1), and a registry (docker-registry) on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use publisher::{Index, Latest};

use super::Row;
use super::world::{World, must, unpacked};

pub const TESTS: &[Row] = &[
    ("skopeo_reads_the_layout", skopeo_reads_the_layout),
    (
        "old_releases_leave_the_layout",
        old_releases_leave_the_layout,
    ),
    ("registry", registry),
];

/// The image's download out of an artifact that skopeo has copied to a plain folder.
fn download(artifact: &Path) -> Result<(String, Vec<u8>), Failed> {
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(artifact.join("manifest.json"))?)?;
    let config = manifest["config"]["digest"].as_str().ok_or("no config")?;
    let blob = |digest: &str| artifact.join(digest.trim_start_matches("sha256:"));
    let index: Index = serde_json::from_slice(&fs::read(blob(config))?)?;
    let image = &index.images[0];
    let layers = manifest["layers"].as_array().ok_or("no layers")?;
    let title = "org.opencontainers.image.title";
    let layer = layers
        .iter()
        .find(|l| l["annotations"][title] == image.compressed.name);
    let digest = layer
        .and_then(|l| l["digest"].as_str())
        .ok_or("no download among the layers")?;
    Ok((image.compressed.sha256.clone(), fs::read(blob(digest))?))
}

fn same(artifact: &Path) -> Result<(), Failed> {
    use sha2::{Digest, Sha256};
    let (wanted, bytes) = download(artifact)?;
    assert_eq!(hex::encode(Sha256::digest(bytes)), wanted);
    Ok(())
}

fn skopeo_reads_the_layout() -> Result<(), Failed> {
    let world = World::new()?;
    let layout = world.path("layout");
    let to = format!("oci:{}", layout.display());
    let old = world.bundle("1.0.0", 1, true)?;
    assert_eq!(old.publish(&to, &world.options())?.latest, Latest::Moved);
    let copied = world.path("copied");
    let from = format!("oci:{}:minimal-latest", layout.display());
    must(
        Command::new("skopeo")
            .args(["copy", "-q", &from])
            .arg(format!("dir:{}", copied.display())),
    )?;
    same(&copied)?;
    let bad = world.bundle("1.1.0", 2, false)?;
    let published = bad.publish(&to, &world.options())?;
    assert!(matches!(
        published.latest,
        Latest::Withheld { remains: Some(_) }
    ));
    let delta = published.delta.expect("a delta");
    assert!(delta.file.bytes * 20 < published.download);
    let tag = format!("oci:{}:minimal-{}", layout.display(), bad.release());
    must(Command::new("skopeo").args(["inspect", "--raw", &tag]))?;
    // A second time everything is there.
    let old = world.bundle("1.0.0", 1, true)?;
    let again = old.publish(&to, &world.options())?;
    assert_eq!((again.sent, again.latest), (0, Latest::Stays));
    Ok(())
}

fn old_releases_leave_the_layout() -> Result<(), Failed> {
    let world = World::new()?;
    let layout = world.path("layout");
    let to = format!("oci:{}", layout.display());
    let mut options = world.options();
    options.keep_last = Some(1);
    let good = world.bundle("1.0.0", 1, true)?;
    good.publish(&to, &options)?;
    let blobs = || fs::read_dir(layout.join("blobs/sha256")).map(Iterator::count);
    let before = blobs()?;
    for salt in 2..5 {
        options.now += 60;
        let bundle = world.bundle(&format!("1.{salt}.0"), salt, false)?;
        bundle.publish(&to, &options)?;
    }
    let index = fs::read_to_string(layout.join("index.json"))?;
    for (tag, there) in [
        (format!("minimal-{}", good.release()), true),
        ("minimal-latest".into(), true),
        ("minimal-1.2.0_".into(), false),
        ("minimal-1.3.0_".into(), false),
        ("minimal-1.4.0_".into(), true),
    ] {
        assert_eq!(index.contains(&tag), there, "{tag}: {index}");
    }
    assert!(
        blobs()? < before * 2 + 3,
        "blobs of removed releases are left"
    );
    let from = format!("oci:{}:minimal-latest", layout.display());
    let copied = world.path("copied");
    must(
        Command::new("skopeo")
            .args(["copy", "-q", &from])
            .arg(format!("dir:{}", copied.display())),
    )?;
    same(&copied)
}

/// A running docker-registry; gone when dropped.
struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        // Its process is ours and ends on a kill; there is nothing to do about a failure here.
        let _killed = self.0.kill().and_then(|()| self.0.wait().map(drop));
    }
}

fn registry() -> Result<(), Failed> {
    let world = World::new()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = world.path("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n  \
         delete: {{ enabled: true }}\nhttp: {{ addr: \"127.0.0.1:{port}\" }}\n",
        world.path("registry").display()
    );
    fs::write(&config, text)?;
    let log = Stdio::from(fs::File::create(world.path("registry.log"))?);
    let mut server = unpacked("usr/bin/docker-registry");
    server
        .arg("serve")
        .arg(&config)
        .stderr(log)
        .stdout(Stdio::null());
    let _registry = Registry(
        server
            .spawn()
            .map_err(|e| format!("docker-registry: {e}: run ci/setup"))?,
    );
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if since.elapsed() > Duration::from_secs(20) {
            return Err(fs::read_to_string(world.path("registry.log"))?.into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // It speaks plain HTTP: skopeo is told where it looks for such things.
    let registries = world.path("registries.conf");
    fs::write(
        &registries,
        format!("[[registry]]\nlocation = \"127.0.0.1:{port}\"\ninsecure = true\n"),
    )?;
    let to = format!("oci:127.0.0.1:{port}/vexfs/images");
    let mut options = world.options();
    options.keep_last = Some(1);
    options.registries_conf = Some(registries);
    let old = world.bundle("1.0.0", 1, true)?;
    assert_eq!(old.publish(&to, &options)?.latest, Latest::Moved);
    options.now += 60;
    let new = world.bundle("1.1.0", 2, true)?;
    let published = new.publish(&to, &options)?;
    assert_eq!(published.latest, Latest::Moved);
    let delta = published.delta.expect("a delta");
    assert!(delta.file.bytes * 20 < published.download);
    assert_eq!(published.removed, [format!("minimal-{}", old.release())]);
    options.now += 60;
    let bad = world.bundle("1.2.0", 3, false)?;
    let published = bad.publish(&to, &options)?;
    assert!(
        matches!(published.latest, Latest::Withheld { remains: Some(_) }),
        "{published:?}"
    );
    let copied = world.path("copied");
    let from = format!("docker://127.0.0.1:{port}/vexfs/images:minimal-latest");
    must(
        Command::new("skopeo")
            .args(["copy", "-q", "--src-tls-verify=false", &from])
            .arg(format!("dir:{}", copied.display())),
    )?;
    same(&copied)
}
