//! fio(1): the jobs a file system is measured with, and what fio says of them. Pure.

use serde::Deserialize;

use results::figures::{Direction, Metric, Percentiles};

/// One job: a name, how it is to be asked, and what is made of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Its name; the metric is `fio/NAME`.
    pub name: &'static str,
    /// Its lines of the job file.
    lines: &'static str,
    /// What counts.
    figure: Figure,
}

/// What of a job's results is the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    /// Bytes a second, in MB/s.
    Throughput,
    /// Operations a second.
    Rate,
    /// How long one fsync(2) takes, in milliseconds.
    SyncLatency,
}

/// For all jobs. One operation after the other (`psync`), so that the times of the operations add up to
/// the time of the job; in a thread, which needs no shared memory; the same random places each time.
const GLOBAL: &str = "[global]\ndirectory=DIR\nioengine=psync\nthread=1\nstonewall\nrandrepeat=1\n\
                      random_generator=tausworthe64\nunlink=1\n";

/// The jobs, in the order they run. `SCALE` stands for a factor of their size.
pub const JOBS: &[Job] = &[
    Job {
        name: "seq_write",
        lines: "rw=write\nbs=64k\nsize=SCALE*4m",
        figure: Figure::Throughput,
    },
    Job {
        name: "seq_read",
        lines: "rw=read\nbs=64k\nsize=SCALE*4m",
        figure: Figure::Throughput,
    },
    Job {
        name: "rand_write",
        lines: "rw=randwrite\nbs=4k\nsize=SCALE*2m",
        figure: Figure::Throughput,
    },
    Job {
        name: "rand_read",
        lines: "rw=randread\nbs=4k\nsize=SCALE*2m",
        figure: Figure::Throughput,
    },
    Job {
        name: "fsync",
        lines: "rw=write\nbs=4k\nsize=SCALE*64k\nfsync=1",
        figure: Figure::SyncLatency,
    },
    Job {
        name: "create",
        lines: "ioengine=filecreate\nnrfiles=SCALE*100\nfilesize=4k\nopenfiles=1",
        figure: Figure::Rate,
    },
    Job {
        name: "stat",
        lines: "ioengine=filestat\nnrfiles=SCALE*100\nfilesize=4k\nopenfiles=1",
        figure: Figure::Rate,
    },
    Job {
        name: "unlink",
        lines: "ioengine=filedelete\nnrfiles=SCALE*100\nfilesize=4k\nopenfiles=1\nunlink=0",
        figure: Figure::Rate,
    },
];

/// A job file for a directory.
pub fn job_file(dir: &str, jobs: &[Job], scale: u32) -> String {
    let mut text = GLOBAL.replace("DIR", dir);
    for job in jobs {
        text.push_str(&format!("\n[{}]\n", job.name));
        for line in job.lines.lines() {
            text.push_str(&scaled(line, scale));
            text.push('\n');
        }
    }
    text
}

/// `size=SCALE*4m` with the product written out.
fn scaled(line: &str, scale: u32) -> String {
    let Some((before, product)) = line.split_once("SCALE*") else {
        return line.to_owned();
    };
    let unit = product.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u32 = product[..product.len() - unit.len()].parse().unwrap_or(1);
    format!("{before}{}{unit}", number * scale)
}

/// What one job did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Result {
    /// The job.
    pub job: Job,
    /// How long one operation took, in nanoseconds of the guest's clock.
    pub nanoseconds: f64,
    /// The figure, in its unit.
    pub value: f64,
    /// Of its operations.
    pub percentiles: Option<Percentiles>,
}

impl PartialEq for Job {
    fn eq(&self, other: &Job) -> bool {
        self.name == other.name
    }
}

impl Job {
    /// Its unit.
    pub fn unit(&self) -> &'static str {
        match self.figure {
            Figure::Throughput => "MB/s",
            Figure::Rate => "/s",
            Figure::SyncLatency => "ms",
        }
    }

    /// Which way is better.
    pub fn direction(&self) -> Direction {
        match self.figure {
            Figure::Throughput | Figure::Rate => Direction::Higher,
            Figure::SyncLatency => Direction::Lower,
        }
    }

    /// The metric it is a sample of.
    pub fn metric(&self, subject: &str) -> Metric {
        Metric::new(
            &format!("fio/{}", self.name),
            subject,
            self.unit(),
            self.direction(),
        )
    }
}

#[derive(Deserialize)]
struct Report {
    jobs: Vec<JobReport>,
}

#[derive(Deserialize)]
struct JobReport {
    jobname: String,
    error: i32,
    read: Side,
    write: Side,
    sync: Sync,
}

#[derive(Deserialize)]
struct Side {
    io_bytes: f64,
    clat_ns: Latency,
}

#[derive(Deserialize)]
struct Sync {
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    mean: f64,
    #[serde(rename = "N")]
    count: f64,
    #[serde(default)]
    percentile: std::collections::BTreeMap<String, f64>,
}

impl Latency {
    fn percentiles(&self, per: f64) -> Option<Percentiles> {
        let at = |name: &str| self.percentile.get(name).map(|ns| ns / per);
        Some(Percentiles {
            p50: at("50.000000")?,
            p99: at("99.000000")?,
        })
    }
}

/// Reads fio's `--output-format=json` for these jobs.
///
/// # Errors
/// A sentence, when a job failed, is missing, or did nothing.
pub fn parse(text: &str, jobs: &[Job]) -> std::result::Result<Vec<Result>, String> {
    // fio prints notes before the report.
    let begin = text.find('{').unwrap_or_default();
    let report: Report = serde_json::from_str(&text[begin..])
        .map_err(|e| format!("fio's report is not understood: {e}"))?;
    let find = |job: &Job| report.jobs.iter().find(|r| r.jobname == job.name);
    jobs.iter()
        .map(|job| {
            let said = find(job).ok_or_else(|| format!("fio did not run its job {}", job.name))?;
            if said.error != 0 {
                let why = std::io::Error::from_raw_os_error(said.error);
                return Err(format!("fio's job {} failed: {why}", job.name));
            }
            result(job, said).ok_or_else(|| format!("fio's job {} did nothing", job.name))
        })
        .collect()
}

fn result(job: &Job, said: &JobReport) -> Option<Result> {
    let side = match said.read.clat_ns.count > 0.0 {
        true => &said.read,
        false => &said.write,
    };
    let latency = match job.figure {
        Figure::SyncLatency => &said.sync.lat_ns,
        _ => &side.clat_ns,
    };
    let nanoseconds = latency.mean;
    if latency.count < 1.0 || nanoseconds <= 0.0 {
        return None;
    }
    let value = match job.figure {
        // fio's own bandwidth rests on a runtime in whole milliseconds.
        Figure::Throughput => side.io_bytes / (nanoseconds * latency.count) * 1e3,
        Figure::Rate => 1e9 / nanoseconds,
        Figure::SyncLatency => nanoseconds / 1e6,
    };
    Some(Result {
        job: *job,
        nanoseconds,
        value,
        percentiles: latency.percentiles(1e6),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fio 3.33's report of [`JOBS`].
    fn golden() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/perf/fio.json");
        std::fs::read_to_string(path).expect("the golden file")
    }

    #[test]
    fn every_job_has_its_figure() {
        let text = format!(
            "note: both iodepth >= 1 and synchronous I/O engine are selected\n{}",
            golden()
        );
        let results = parse(&text, JOBS).expect("understood");
        let value = |name: &str| {
            let found = results.iter().find(|result| result.job.name == name);
            found.map(|result| result.value).expect("it ran")
        };
        // 64 KiB in 655.36 microseconds.
        assert!((value("seq_write") - 100.0).abs() < 1e-6);
        assert!((value("seq_read") - 200.0).abs() < 1e-6);
        assert!((value("fsync") - 2.5).abs() < 1e-9);
        assert!((value("create") - 5000.0).abs() < 1e-6);
        let fsync = results.iter().find(|result| result.job.name == "fsync");
        let percentiles = fsync
            .and_then(|result| result.percentiles)
            .expect("fio tells them");
        assert_eq!((percentiles.p50, percentiles.p99), (2.5, 10.0));
    }

    #[test]
    fn a_job_that_failed_is_missing_or_did_nothing_is_an_error() {
        let said = |text: &str| parse(text, JOBS).expect_err("refused");
        assert!(said("fio: command not found").contains("not understood"));
        let failed = golden().replacen("\"error\": 0", "\"error\": 28", 1);
        assert!(
            said(&failed).contains("seq_write failed: No space left"),
            "{}",
            said(&failed)
        );
        let missing = golden().replace("\"jobname\": \"stat\"", "\"jobname\": \"other\"");
        assert!(said(&missing).contains("did not run its job stat"));
        let idle = golden().replace("\"N\": 16", "\"N\": 0");
        assert!(said(&idle).contains("fsync did nothing"));
    }

    #[test]
    fn sizes_are_scaled_and_the_job_file_is_fios() {
        assert_eq!(scaled("size=SCALE*4m", 3), "size=12m");
        assert_eq!(scaled("bs=4k", 3), "bs=4k");
        let file = job_file("/mnt", JOBS, 2);
        assert!(
            file.contains("directory=/mnt") && file.contains("\n[fsync]\n"),
            "{file}"
        );
        assert!(
            !file.contains("SCALE") && file.contains("nrfiles=200"),
            "{file}"
        );
    }
}
