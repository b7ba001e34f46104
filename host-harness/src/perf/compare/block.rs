//! One block: a module is loaded, makes a fresh file system, does all the work there is, and goes.
//! What each piece of work cost comes out, by the guest's clock.

use std::collections::BTreeMap;

use image_builder::SourceConfig;

use crate::lab::{Failure, Guest};
use crate::perf::fio::{self, Job};
use crate::perf::vectors;

/// Where what we bring is put in the guest.
const FOLDER: &str = "/run/vexfs-perf";

/// Size of the disk in memory, in KiB. On it, no time passes that the guest did not spend itself.
const RAM_DISK_KIB: u32 = 192 << 10;

/// Which module a block loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Module {
    /// The image's own.
    OfTheImage,
    /// A file in the guest.
    File(String),
}

/// What one piece of work cost, by its name: nanoseconds of the guest's clock for one operation.
pub(super) type Costs = BTreeMap<String, f64>;

/// A guest made ready for blocks.
pub(super) struct Bench {
    guest: Guest,
    source: SourceConfig,
    fio: String,
    disk: String,
    /// The size of the work, as a factor.
    scale: u32,
}

impl Bench {
    /// Makes a guest ready: the disk in memory, the tools, the vectors.
    pub(super) async fn new(
        guest: Guest,
        source: &SourceConfig,
        scale: u32,
    ) -> Result<Bench, Failure> {
        let module = &source.module;
        let tools = guest.mount_tools().await?;
        guest
            .sh(&format!(
                "mkdir -p {FOLDER}/mnt
                 if systemctl -q is-active vexfs.service; then systemctl stop vexfs.service; fi
                 if [ -e /sys/module/{module} ]; then rmmod {module}; fi
                 modprobe brd rd_nr=1 rd_size={RAM_DISK_KIB}
                 # Its pages are there before anybody is measured.
                 dd if=/dev/zero of=/dev/ram0 bs=1M count={} 2> /dev/null",
                RAM_DISK_KIB >> 10
            ))
            .await?;
        for (name, rows, seed) in [("rows", vectors::COUNT, 1), ("query", 1, 2)] {
            let file = vectors::npy(rows, seed);
            guest
                .put_bytes(&file, &format!("{FOLDER}/{name}.npy"))
                .await?;
        }
        Ok(Bench {
            guest,
            source: source.clone(),
            fio: format!("{tools}/fio"),
            disk: "/dev/ram0".into(),
            scale,
        })
    }

    /// Brings a module's file into the guest.
    pub(super) async fn bring(&self, bytes: &[u8], name: &str) -> Result<Module, Failure> {
        let path = format!("{FOLDER}/{name}.ko");
        self.guest.put_bytes(bytes, &path).await?;
        Ok(Module::File(path))
    }

    /// One block.
    pub(super) async fn block(&self, module: &Module) -> Result<Costs, Failure> {
        let source = &self.source;
        let name = &source.module;
        let load = match module {
            Module::OfTheImage => format!("modprobe {name}"),
            Module::File(path) => format!("insmod {path}"),
        };
        let mkfs = source.mkfs.join(" ");
        let mnt = format!("{FOLDER}/mnt");
        let mount = source.mount_command(&self.disk, &mnt);
        self.guest
            .sh(&format!(
                "sync; echo 3 > /proc/sys/vm/drop_caches
                 {load}; {mkfs} {} > /dev/null; {mount}",
                self.disk
            ))
            .await?;
        let mut costs = self.fio(&mnt).await?;
        if source.control == "vexctl" {
            costs.extend(self.vectors(&mnt).await?);
        }
        self.guest
            .sh(&format!("umount {mnt}; rmmod {name}"))
            .await?;
        Ok(costs)
    }

    async fn fio(&self, mnt: &str) -> Result<Costs, Failure> {
        let jobs: Vec<Job> = fio::JOBS.to_vec();
        let file = format!("{FOLDER}/work.fio");
        let text = fio::job_file(mnt, &jobs, self.scale);
        self.guest.put_bytes(text.as_bytes(), &file).await?;
        let said = self
            .guest
            .sh(&format!("{} --output-format=json {file}", self.fio))
            .await?;
        let results = fio::parse(&said, &jobs).map_err(|why| Failure::check("fio", why, said))?;
        Ok(results
            .iter()
            .map(|result| (format!("fio/{}", result.job.name), result.nanoseconds))
            .collect())
    }

    async fn vectors(&self, mnt: &str) -> Result<Costs, Failure> {
        let said = self
            .guest
            .sh(&format!(
                "cd {mnt}
                 date +%s%N
                 vexctl vector import {FOLDER}/rows.npy v > /dev/null
                 date +%s%N
                 for n in $(seq {}); do
                   vexctl vector search v @{FOLDER}/query.npy > /dev/null
                 done
                 date +%s%N",
                vectors::SEARCHES
            ))
            .await?;
        let times: Vec<f64> = said.lines().filter_map(|line| line.parse().ok()).collect();
        let [begin, put, end] = times[..] else {
            return Err(Failure::check(
                "vectors",
                "the guest's clock is not understood",
                said,
            ));
        };
        Ok(BTreeMap::from([
            (
                "vector/put".to_owned(),
                (put - begin) / vectors::COUNT as f64,
            ),
            (
                "vector/search".to_owned(),
                (end - put) / f64::from(vectors::SEARCHES),
            ),
        ]))
    }
}
