//! `vexfs-seed DEVICE`: reads the NoCloud seed on a device and does once what it says.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use guest_seed::{Action, Root, Seed, plan};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where the seed is read.
const MOUNT: &str = "/run/vexfs-seed";
/// What has been done; `instance-id` in it names for whom.
const STATE: &str = "/var/lib/vexfs-seed";
/// Nobody's seed is larger; whatever is on the disk, not more of it is read.
const LIMIT: u64 = 1 << 20;

fn main() -> ExitCode {
    let Some(device) = std::env::args().nth(1) else {
        eprintln!("usage: vexfs-seed DEVICE (a disk labelled cidata)");
        return ExitCode::from(2);
    };
    match run(&device) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the seed on {device} is not carried out: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many things of the seed were not done; each has been named by then.
fn run(device: &str) -> anyhow::Result<usize> {
    let [meta, user, network] = read(device)?;
    let seed = Seed::parse(&meta, &user)?;
    let id = format!("{}\n", seed.meta.instance_id);
    let done = Path::new(STATE).join("instance-id");
    if !seed.meta.instance_id.is_empty() && fs::read_to_string(&done).is_ok_and(|text| text == id) {
        println!("the seed of {} is carried out already", id.trim());
        return Ok(0);
    }
    let plan = plan(&seed);
    let mut refused = plan.refused;
    if !network.trim().is_empty() {
        refused.push("network-config is not understood here: every network card asks DHCP".into());
    }
    let root = Root::new("/");
    for action in &plan.actions {
        if let Err(error) = root.carry_out(action) {
            refused.push(format!("{error:#}"));
        }
    }
    // Noted before the script: one that reboots the machine must not run for ever.
    fs::create_dir_all(STATE)?;
    fs::write(&done, &id).with_context(|| format!("cannot write {}", done.display()))?;
    if let Some(script) = seed.script {
        let path = format!("{STATE}/user-script");
        let steps = [
            Action::Write {
                path: path.clone(),
                content: script,
                mode: 0o700,
                owner: None,
                append: false,
            },
            Action::Run(vec![path]),
        ];
        for step in &steps {
            if let Err(error) = root.carry_out(step) {
                refused.push(format!("{error:#}"));
            }
        }
    }
    for what in &refused {
        eprintln!("seed: {what}");
    }
    println!(
        "the seed of {} is carried out, {} of it not",
        id.trim(),
        refused.len()
    );
    Ok(refused.len())
}

/// meta-data, user-data and network-config; what is not there is empty.
fn read(device: &str) -> anyhow::Result<[String; 3]> {
    fs::create_dir_all(MOUNT)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mounted = ["iso9660", "vfat"]
        .iter()
        .any(|fstype| mount(Some(device), MOUNT, Some(*fstype), flags, None::<&str>).is_ok());
    if !mounted {
        bail!("it holds neither iso9660 nor vfat");
    }
    let texts = ["meta-data", "user-data", "network-config"].map(text);
    umount2(MOUNT, MntFlags::empty()).context("umount")?;
    let [meta, user, network] = texts;
    Ok([meta?, user?, network?])
}

fn text(name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    match fs::File::open(Path::new(MOUNT).join(name)) {
        Ok(file) => file
            .take(LIMIT)
            .read_to_string(&mut text)
            .with_context(|| name.to_owned())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).with_context(|| name.to_owned()),
    };
    Ok(text)
}
