//! How fast is the file system, beside ext4 and xfs on the same disk in the same fork?

use results::figures::{Direction, Metric};

use super::machines::fork;
use super::workbench::{Disk, Done, Peer, Subject, Workbench};
use super::{fio, vectors};
use crate::lab::{Failure, Guest, Setup};

/// Size of the work; a round of three file systems takes about half a minute under emulation.
const SCALE: u32 = 2;

/// Vectors in user space: the search that `vexctl vector search --reference` does itself.
const IN_USER_SPACE: &str = "user space";

/// The file systems in the order of their turns.
const TURNS: &[Option<Peer>] = &[None, Some(Peer::Ext4), Some(Peer::Xfs)];

/// A guest in which the file systems take turns.
pub struct Filesystems {
    bench: Workbench,
    under_test: String,
}

impl Filesystems {
    /// In a fork of the image.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn fork(setup: &Setup) -> Result<Filesystems, Failure> {
        let guest: Guest = fork(setup, "filesystem").await?;
        let source = &setup.image.manifest.source.config;
        let bench = Workbench::new(guest, source, Disk::Scratch, SCALE).await?;
        Ok(Filesystems {
            bench: bench.with_search_in_user_space(),
            under_test: source.fstype.clone(),
        })
    }

    /// Each file system does the work once; a sample for each metric, in the order of
    /// [`questions`].
    ///
    /// # Errors
    /// When the work fails.
    pub async fn round(&self) -> Result<Vec<Metric>, Failure> {
        let mut metrics = Vec::new();
        for turn in TURNS {
            let (subject, name) = match turn {
                None => (Subject::UnderTest, self.under_test.as_str()),
                Some(peer) => (Subject::Peer(*peer), peer.name()),
            };
            let done = self.bench.block(&subject).await?;
            let beside = turn.map(|_| self.under_test.as_str());
            metrics.extend(figures(&done, name, beside));
        }
        Ok(metrics)
    }
}

/// The figures of one block, a sample each.
fn figures(done: &Done, subject: &str, beside: Option<&str>) -> Vec<Metric> {
    let place = |metric: Metric| match beside {
        Some(other) => metric.beside(other),
        None => metric,
    };
    let mut metrics: Vec<Metric> = done
        .fio
        .iter()
        .map(|result| {
            place(Metric {
                samples: vec![result.value],
                percentiles: result.percentiles,
                ..result.job.metric(subject)
            })
        })
        .collect();
    if let Some(times) = done.vectors {
        let sample = |name: &str, subject: &str, unit: &str, value: f64| Metric {
            samples: vec![value],
            ..Metric::new(name, subject, unit, direction(unit))
        };
        metrics.push(sample("vector/put", subject, "/s", 1e9 / times.put));
        metrics.push(sample("vector/search", subject, "ms", times.search / 1e6));
        if let Some(there) = times.in_user_space {
            let there = sample("vector/search", IN_USER_SPACE, "ms", there / 1e6);
            metrics.push(there.beside(subject));
        }
    }
    metrics
}

fn direction(unit: &str) -> Direction {
    match unit {
        "ms" => Direction::Lower,
        _ => Direction::Higher,
    }
}

/// Adds the samples of a round to those of earlier ones; the percentiles are those of the last.
pub(super) fn add(all: &mut Vec<Metric>, round: Vec<Metric>) {
    for metric in round {
        let same = |m: &&mut Metric| m.name == metric.name && m.subject == metric.subject;
        match all.iter_mut().find(same) {
            Some(known) => {
                known.samples.extend(&metric.samples);
                known.percentiles = metric.percentiles;
            }
            None => all.push(metric),
        }
    }
}

/// Measures `rounds` times.
///
/// # Errors
/// When a guest does not come up, or the work in it fails.
pub async fn measure(setup: &Setup, rounds: usize) -> Result<Vec<Metric>, Failure> {
    let filesystems = Filesystems::fork(setup).await?;
    // The first round of each pays for programs that are not in memory yet.
    filesystems.round().await?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        add(&mut all, filesystems.round().await?);
    }
    Ok(all)
}

/// What a round measures of the file system under test and of its peers: for one who asks one at a
/// time.
pub fn questions() -> Vec<String> {
    let mut names: Vec<String> = fio::JOBS
        .iter()
        .map(|job| format!("fio/{}", job.name))
        .collect();
    names.push(format!("vector/put ({} files)", vectors::COUNT));
    names.push(format!("vector/search ({} vectors)", vectors::COUNT));
    names
}
