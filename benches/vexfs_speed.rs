//! Speed beside ext4 in the same fork, as ratios: is VexFS itself as quick as what people know? And is
//! its search quicker than a program that compares the same vectors itself?
//!
//! Rounds on VexFS and on ext4 take turns on the same disk of one fork, so what the host does besides
//! strikes both. A ratio is of two neighbouring rounds; its median is told, with the least and the
//! greatest. Above one VexFS is the quicker.

use std::sync::Arc;
use std::time::Duration;

use host_harness::lab::Guest;
use vexfs_benches::minimal;

/// Pairs of rounds; odd, so that the median is one of them.
const ROUNDS: usize = 5;
/// Vectors, and numbers in each.
const VECTORS: usize = 10_000;
const DIMS: usize = 384;
/// Longest time of one command: ten thousand files are made by one.
const PATIENCE: Duration = Duration::from_secs(300);

const DISK: &str = "/dev/disk/by-id/virtio-vexfs-scratch";

/// Mounts a fresh file system of kind `$1` on /mnt/speed, and does `fio` there, without what the
/// program needs to start.
const PREPARE: &str = "\
    mkdir -p /mnt/speed /run/vexfs-tools
    mountpoint -q /run/vexfs-tools || mount -o ro /dev/disk/by-id/virtio-vexfs-tools /run/vexfs-tools
    ! mountpoint -q /mnt/speed || umount /mnt/speed
    case $KIND in ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 DISK ;; *) mkfs.vexfs -q DISK ;; esac
    mount -t $KIND DISK /mnt/speed
    cd /mnt/speed";

/// What is done, in this order on one file system: a name, fio's options, and which of fio's figures
/// tells. The first lays out what later ones use.
const WORK: &[(&str, &str, &str)] = &[
    (
        "sequential write",
        "--rw=write --bs=128k --size=32m --end_fsync=1 --filename=large",
        "write",
    ),
    (
        "sequential read",
        "--rw=read --bs=128k --size=32m --filename=large",
        "read",
    ),
    (
        "random write",
        "--rw=randwrite --bs=4k --size=32m --io_size=8m --end_fsync=1 --filename=large",
        "write",
    ),
    (
        "random read",
        "--rw=randread --bs=4k --size=32m --io_size=8m --filename=large",
        "read",
    ),
    (
        "direct random read",
        "--rw=randread --bs=4k --size=32m --io_size=4m --direct=1 --filename=large",
        "read",
    ),
    (
        "direct random write",
        "--rw=randwrite --bs=4k --size=32m --io_size=4m --direct=1 --filename=large",
        "write",
    ),
    (
        "write and fsync",
        "--rw=write --bs=4k --size=512k --fsync=1 --filename=synced",
        "write",
    ),
    (
        "create",
        "--ioengine=filecreate --directory=/mnt/speed/made --nrfiles=500 --filesize=4k --create_on_open=1 --openfiles=1 --fallocate=none",
        "read",
    ),
    (
        "unlink",
        "--ioengine=filedelete --directory=/mnt/speed/gone --nrfiles=500 --filesize=4k --openfiles=1 --fallocate=none",
        "read",
    ),
];

/// A directory walk, cold: names and inodes of a tree as deep as a source tree, on a mount of its own,
/// for what a mount has in its inode tables' buffers outlives `drop_caches`. Prints nanoseconds.
const WALK: &str = "\
    cd /mnt/speed
    for a in 1 2 3 4 5 6 7 8 9 10; do mkdir -p tree/$a/x tree/$a/y; done
    for dir in tree/*/x tree/*/y; do ( cd $dir; touch $(seq 150) ); done
    cd /; umount /mnt/speed; echo 3 > /proc/sys/vm/drop_caches; mount -t $KIND DISK /mnt/speed
    find /usr/sbin -maxdepth 0 -size +9 > /dev/null; cd /mnt/speed
    begin=$(date +%s%N); find tree -size +1 -printf 'x\\n'; echo $(( $(date +%s%N) - begin ))";

fn main() {
    machine::hook();
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            let setup = minimal().await;
            let snapshot = setup.snapshot().await.expect("a snapshot");
            let logs = tempfile::tempdir().expect("a folder for logs");
            let fork = snapshot.fork("bench", logs.path()).await.expect("a fork");
            let guest = Guest::adopt(Arc::new(fork.machine), fork.agent, PATIENCE)
                .await
                .expect("it answers");
            beside_ext4(&guest).await;
            search(&guest).await;
        });
}

async fn beside_ext4(guest: &Guest) {
    let mut ratios: Vec<(&str, Vec<f64>)> = Vec::new();
    for round in 0..ROUNDS {
        // Who goes first changes, for the second finds a warmer host.
        let (first, second) = if round % 2 == 0 {
            ("vexfs", "ext4")
        } else {
            ("ext4", "vexfs")
        };
        let figures = [work(guest, first).await, work(guest, second).await];
        let (ours, theirs) = if first == "vexfs" { (0, 1) } else { (1, 0) };
        for ((name, our), (_, their)) in figures[ours].iter().zip(&figures[theirs]) {
            match ratios.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(our / their),
                None => ratios.push((name, vec![our / their])),
            }
        }
    }
    println!("VexFS beside ext4 (1.00: the same, more: VexFS is quicker; {ROUNDS} pairs)");
    for (name, all) in &mut ratios {
        println!("  {name:<22} {}", spread(all));
    }
}

/// Does all work once on a fresh file system; how much a second, for each.
async fn work(guest: &Guest, kind: &str) -> Vec<(&'static str, f64)> {
    let prepare = PREPARE.replace("DISK", DISK).replace("$KIND", kind);
    sh(guest, &format!("{prepare}; mkdir made gone")).await;
    let mut figures = Vec::new();
    for (name, options, figure) in WORK {
        let said = sh(
            guest,
            &format!(
                "cd /mnt/speed; sync; echo 3 > /proc/sys/vm/drop_caches
                 /run/vexfs-tools/bin/fio --name=speed --output-format=json --group_reporting {options}"
            ),
        )
        .await;
        let report: serde_json::Value = serde_json::from_str(&said).expect("fio writes JSON");
        let figure = report["jobs"][0][figure]["iops"].as_f64().unwrap_or(0.0);
        assert!(
            figure > 0.0,
            "fio measured nothing for {name} on {kind}: {said}"
        );
        eprintln!("{kind:<6} {name:<22} {figure:10.1}/s");
        figures.push((*name, figure));
    }
    let walked = sh(guest, &WALK.replace("DISK", DISK).replace("$KIND", kind)).await;
    let nanoseconds: f64 = walked
        .lines()
        .last()
        .and_then(|n| n.parse().ok())
        .expect("a time");
    figures.push(("directory walk", 1e9 / nanoseconds));
    sh(guest, "umount /mnt/speed").await;
    figures
}

/// The search of the kernel beside the same comparison by a program: of the same files, one after the
/// other, and of one packed file. Answers must agree to the last bit.
async fn search(guest: &Guest) {
    let prepare = PREPARE.replace("DISK", DISK).replace("$KIND", "vexfs");
    sh(guest, &prepare).await;
    put(guest, "/mnt/speed/packed.fvecs", &fvecs(VECTORS, 1)).await;
    put(guest, "/run/query.fvecs", &fvecs(1, 2)).await;
    sh(
        guest,
        "vexctl vector import /mnt/speed/packed.fvecs /mnt/speed/files; sync",
    )
    .await;
    println!(
        "search among {VECTORS} vectors of {DIMS}: the kernel beside a program (more: the kernel is quicker)"
    );
    for metric in ["cosine", "euclidean", "inner"] {
        let (mut files, mut packed) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let kernel = ask(guest, "files", metric, "").await;
            let by_file = ask(guest, "files", metric, "--reference").await;
            let scan = ask(guest, "packed.fvecs", metric, "--reference").await;
            assert_eq!(kernel.1, by_file.1, "the answers differ");
            assert_eq!(kernel.2, scan.2, "the scores differ");
            eprintln!(
                "{metric}: kernel {} us, same files {} us, packed {} us",
                kernel.0, by_file.0, scan.0
            );
            files.push(by_file.0 / kernel.0);
            packed.push(scan.0 / kernel.0);
        }
        println!(
            "  {metric:<10} reading the same files  {}",
            spread(&mut files)
        );
        println!(
            "  {metric:<10} scanning a packed file  {}",
            spread(&mut packed)
        );
    }
    sh(guest, "umount /mnt/speed").await;
}

/// Microseconds, the inodes found and the bits of their scores.
async fn ask(guest: &Guest, place: &str, metric: &str, how: &str) -> (f64, String, String) {
    let said = sh(
        guest,
        &format!(
            "vexctl --format json vector search /mnt/speed/{place} @/run/query.fvecs -k 10 --metric {metric} {how}"
        ),
    )
    .await;
    let answer: serde_json::Value = serde_json::from_str(&said).expect("vexctl writes JSON");
    assert_eq!(answer["scanned"], VECTORS, "{said}");
    let all = |key: &str| {
        let hits = answer["hits"].as_array().into_iter().flatten();
        hits.map(|hit| hit[key].to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let time = answer["microseconds"].as_f64().expect("a time");
    (time, all("inode"), all("score_bits"))
}

/// Rows of numbers between -1 and 1, always the same for a seed (an LCG of Knuth's).
fn fvecs(rows: usize, mut seed: u64) -> Vec<u8> {
    let mut file = Vec::with_capacity(rows * (DIMS + 1) * 4);
    for _ in 0..rows {
        file.extend((DIMS as u32).to_le_bytes());
        for _ in 0..DIMS {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = (seed >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            file.extend(number.to_le_bytes());
        }
    }
    file
}

async fn sh(guest: &Guest, script: &str) -> String {
    guest
        .sh(script)
        .await
        .expect("the guest does what it is told")
}

async fn put(guest: &Guest, path: &str, content: &[u8]) {
    let put = guest.client().put_file(path, 0o600, content, PATIENCE);
    put.await.expect("the guest takes a file");
}

/// Median, least and greatest.
fn spread(all: &mut [f64]) -> String {
    all.sort_unstable_by(f64::total_cmp);
    let (least, most) = (all[0], all[all.len() - 1]);
    format!("{:5.2}  ({least:.2} to {most:.2})", all[all.len() / 2])
}
