//! The same work on a fresh file system, again and again: of the module under test, of another build of
//! it, or of a peer. What each piece of work cost comes out, by the guest's clock.

use image::SourceConfig;
use results::figures::statistics;

use super::fio::{self, Job};
use super::vectors;
use crate::lab::{Failure, Guest};

/// Where what we bring is put in the guest.
const FOLDER: &str = "/run/vexfs-perf";

/// Size of the disk in memory, in KiB.
const RAM_DISK_KIB: u32 = 320 << 10;

/// What lies below the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// The scratch disk: what a user has.
    Scratch,
    /// Memory of the guest: no time passes there that the guest did not spend itself.
    Memory,
}

/// Whose file system it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The image's own module.
    UnderTest,
    /// A module's file in the guest.
    Module(String),
    /// One of the kernel's.
    Peer(Peer),
}

/// A file system to stand beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// ext4(5), all of it made by mkfs: nothing goes on in the background.
    Ext4,
    /// xfs(5); its mkfs is on the tools disk.
    Xfs,
}

impl Peer {
    /// Its type, as mount(8) knows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Ext4 => "ext4",
            Peer::Xfs => "xfs",
        }
    }

    fn mkfs(self, tools: &str) -> String {
        match self {
            Peer::Ext4 => {
                "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard".into()
            }
            Peer::Xfs => format!("{tools}/mkfs.xfs -q -f -K"),
        }
    }
}

/// What a block did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// fio's jobs.
    pub(crate) fio: Vec<fio::Result>,
    /// Vectors, where the file system has them.
    pub(crate) vectors: Option<VectorTimes>,
}

/// How long work on vectors took, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VectorTimes {
    /// One put of many, file and all.
    pub(crate) put: f64,
    /// One search by the kernel, program and all.
    pub(crate) search: f64,
    /// The same search by the same program in user space, when it was asked for.
    pub(crate) in_user_space: Option<f64>,
}

/// A guest made ready.
pub(crate) struct Workbench {
    guest: Guest,
    source: SourceConfig,
    tools: String,
    disk: Disk,
    /// The size of the work, as a factor.
    scale: u32,
    /// Whether searches are done in user space too.
    in_user_space: bool,
}

impl Workbench {
    /// Makes a guest ready: the disk, the tools, the vectors. The module under test is unloaded.
    pub(crate) async fn new(
        guest: Guest,
        source: &SourceConfig,
        disk: Disk,
        scale: u32,
    ) -> Result<Workbench, Failure> {
        let module = &source.module;
        let tools = guest.mount_tools().await?;
        guest
            .sh(&format!(
                "mkdir -p {FOLDER}/mnt
                 if systemctl -q is-active vexfs.service; then systemctl stop vexfs.service; fi
                 if [ -e /sys/module/{module} ]; then rmmod {module}; fi"
            ))
            .await?;
        if disk == Disk::Memory {
            // Its pages are there before anybody is measured.
            guest
                .sh(&format!(
                    "modprobe brd rd_nr=1 rd_size={RAM_DISK_KIB}
                     dd if=/dev/zero of=/dev/ram0 bs=1M count={} 2> /dev/null",
                    RAM_DISK_KIB >> 10
                ))
                .await?;
        }
        for (name, rows, seed) in [("rows", vectors::COUNT, 1), ("query", 1, 2)] {
            let file = vectors::npy(rows, seed);
            let path = format!("{FOLDER}/{name}.npy");
            guest.put_bytes(&file, &path).await?;
        }
        Ok(Workbench {
            guest,
            source: source.clone(),
            tools,
            disk,
            scale,
            in_user_space: false,
        })
    }

    /// Does each search in user space too, to compare.
    pub(crate) fn with_search_in_user_space(mut self) -> Workbench {
        self.in_user_space = true;
        self
    }

    /// Takes the disk in memory away again.
    pub(crate) async fn clear(&self) -> Result<(), Failure> {
        match self.disk {
            Disk::Memory => self.guest.sh("rmmod brd").await.map(drop),
            Disk::Scratch => Ok(()),
        }
    }

    /// Brings a module's file into the guest.
    pub(crate) async fn bring(&self, bytes: &[u8], name: &str) -> Result<Subject, Failure> {
        let path = format!("{FOLDER}/{name}.ko");
        self.guest.put_bytes(bytes, &path).await?;
        Ok(Subject::Module(path))
    }

    /// A fresh file system, all the work on it, and nothing of it left.
    pub(crate) async fn block(&self, subject: &Subject) -> Result<Done, Failure> {
        let (begin, end) = self.around(subject);
        self.guest
            .sh(&format!("sync; echo 3 > /proc/sys/vm/drop_caches\n{begin}"))
            .await?;
        let mnt = format!("{FOLDER}/mnt");
        let fio = self.fio(&mnt).await?;
        let has_vectors = self.source.control == "vexctl" && !matches!(subject, Subject::Peer(_));
        let vectors = match has_vectors {
            true => Some(self.vectors(&mnt).await?),
            false => None,
        };
        self.guest.sh(&end).await?;
        Ok(Done { fio, vectors })
    }

    /// What is run before and after the work.
    fn around(&self, subject: &Subject) -> (String, String) {
        let source = &self.source;
        let module = &source.module;
        let disk = match self.disk {
            Disk::Scratch => crate::lab::SCRATCH,
            Disk::Memory => "/dev/ram0",
        };
        let mnt = format!("{FOLDER}/mnt");
        let load = match subject {
            Subject::UnderTest => format!("modprobe {module}"),
            Subject::Module(path) => format!("insmod {path}"),
            Subject::Peer(peer) => {
                let (name, mkfs) = (peer.name(), peer.mkfs(&self.tools));
                return (
                    format!("{mkfs} {disk} > /dev/null; mount -t {name} {disk} {mnt}"),
                    format!("umount {mnt}"),
                );
            }
        };
        let mkfs = source.mkfs.join(" ");
        let mount = source.mount_command(disk, &mnt);
        (
            format!("{load}; {mkfs} {disk} > /dev/null; {mount}"),
            format!("umount {mnt}; rmmod {module}"),
        )
    }

    async fn fio(&self, mnt: &str) -> Result<Vec<fio::Result>, Failure> {
        let jobs: Vec<Job> = fio::JOBS.to_vec();
        let file = format!("{FOLDER}/work.fio");
        let text = fio::job_file(mnt, &jobs, self.scale);
        self.guest.put_bytes(text.as_bytes(), &file).await?;
        let said = self
            .guest
            .sh(&format!("{}/fio --output-format=json {file}", self.tools))
            .await?;
        fio::parse(&said, &jobs).map_err(|why| Failure::check("fio", why, said))
    }

    async fn vectors(&self, mnt: &str) -> Result<VectorTimes, Failure> {
        let there = match self.in_user_space {
            true => "vexctl vector search v @$query --reference > /dev/null",
            false => ":",
        };
        let said = self
            .guest
            .sh(&format!(
                "cd {mnt}
                 query={FOLDER}/query.npy
                 date +%s%N
                 vexctl vector import {FOLDER}/rows.npy v > /dev/null
                 date +%s%N
                 for n in $(seq {}); do vexctl vector search v @$query > /dev/null; date +%s%N; done
                 {there}
                 date +%s%N",
                vectors::SEARCHES
            ))
            .await?;
        let Some((put, search, there)) = vector_times(&said) else {
            let why = "the guest's clock is not understood";
            return Err(Failure::check("vectors", why, said));
        };
        Ok(VectorTimes {
            put: put / vectors::COUNT as f64,
            search,
            in_user_space: self.in_user_space.then_some(there),
        })
    }
}

/// What the import, a search and the search in user space took, by the clock read between them. Now and
/// then a search is held up by something else in the guest that wakes up: the median counts.
fn vector_times(said: &str) -> Option<(f64, f64, f64)> {
    let clock: Vec<f64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    let took: Vec<f64> = clock.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let [put, ref searches @ .., there] = took[..] else {
        return None;
    };
    if searches.len() != vectors::SEARCHES {
        return None;
    }
    Some((put, statistics::median(searches)?, there))
}

impl Done {
    /// What one operation of each piece of work cost, by its name, in nanoseconds.
    pub(crate) fn costs(&self) -> std::collections::BTreeMap<String, f64> {
        let fio = self.fio.iter();
        let fio = fio.map(|result| (format!("fio/{}", result.job.name), result.nanoseconds));
        let vectors = self.vectors.iter().flat_map(|times| {
            [
                ("vector/put".to_owned(), times.put),
                ("vector/search".to_owned(), times.search),
            ]
        });
        fio.chain(vectors).collect()
    }
}
