//! `vexctl vector put|get|rm|import|search`.

use super::{Format, print_json, table};
use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use vexctl::formats::{self, Row};
use vexctl::vectors::{self, Hit};

/// What to do with vectors.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Give a file a vector.
    Put {
        /// The file.
        file: PathBuf,
        /// The numbers, with commas between; or @NAME: a .npy, .fvecs or .jsonl file of one row.
        vector: String,
    },
    /// Show a file's vector.
    Get {
        /// The file.
        file: PathBuf,
    },
    /// Take a file's vector away.
    Rm {
        /// The file.
        file: PathBuf,
    },
    /// Make a file with a vector for each row of a .npy, .fvecs or .jsonl file.
    Import {
        /// Where the rows come from.
        source: PathBuf,
        /// The directory to make the files in; made if need be.
        into: PathBuf,
        /// Beginning of the names of rows that have none.
        #[arg(long, default_value = "v")]
        prefix: String,
    },
    /// The files below a directory whose vectors are nearest.
    Search {
        /// The directory; or a .npy, .fvecs or .jsonl file, whose rows are then compared here.
        dir: PathBuf,
        /// As for put.
        vector: String,
        /// How many.
        #[arg(short, default_value_t = 10)]
        k: usize,
        /// How far apart two vectors are.
        #[arg(short, long, value_enum, default_value = "cosine")]
        metric: MetricName,
        /// Compute it here from the same files instead, to compare.
        #[arg(long)]
        reference: bool,
    },
}

/// Names of the metrics.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MetricName {
    /// 1 - cosine.
    Cosine,
    /// Distance.
    Euclidean,
    /// Inner product; the largest is nearest.
    Inner,
}

impl MetricName {
    fn metric(self) -> vectors::Metric {
        match self {
            Self::Cosine => vectors::Metric::Cosine,
            Self::Euclidean => vectors::Metric::Euclidean,
            Self::Inner => vectors::Metric::Inner,
        }
    }
}

fn read_rows(path: &Path) -> anyhow::Result<Vec<Row>> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows = match path.extension().and_then(|end| end.to_str()) {
        Some("npy") => formats::npy(&data),
        Some("fvecs") => formats::fvecs(&data),
        Some("jsonl" | "json" | "ndjson") => formats::json_lines(&String::from_utf8_lossy(&data)),
        _ => bail!(
            "{}: give it the ending .npy, .fvecs or .jsonl",
            path.display()
        ),
    };
    rows.map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

fn read_vector(text: &str) -> anyhow::Result<Vec<f32>> {
    if let Some(path) = text.strip_prefix('@') {
        let mut rows = read_rows(Path::new(path))?;
        return match rows.len() {
            1 => Ok(rows.remove(0).vector),
            n => bail!("{path} holds {n} vectors: one is needed"),
        };
    }
    let number = |part: &str| {
        let parsed = part.trim().parse::<f32>();
        parsed.with_context(|| format!("`{part}` is not a number: write 0.5,-1,2"))
    };
    text.split(',').map(number).collect()
}

fn remedy(error: std::io::Error, path: &Path) -> anyhow::Error {
    let why = match error.raw_os_error() {
        Some(nix::libc::ENOTTY) => "it is not on a VexFS: `vexctl status` shows what is",
        Some(nix::libc::EINVAL) => {
            "a vector has 1 to 4096 finite numbers and belongs to a regular file"
        }
        Some(nix::libc::ENOSPC) => "the file system is full: `df` shows it",
        _ => "check that the file is there and that you may use it",
    };
    anyhow::Error::new(error).context(format!("{}: {why}", path.display()))
}

fn open_rw(path: &Path, create: bool) -> anyhow::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path);
    opened.map_err(|error| remedy(error, path))
}

/// Names of all directories and files below `top`, by inode number.
fn walk(top: &Path, visit: &mut dyn FnMut(&Path, u64)) {
    let Ok(entries) = fs::read_dir(top) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            walk(&entry.path(), visit);
        } else if kind.is_file() {
            visit(&entry.path(), entry.ino());
        }
    }
}

/// Where the hits are, each by one of its names.
fn paths_of(top: &Path, hits: &[Hit]) -> HashMap<u64, PathBuf> {
    let mut paths: HashMap<u64, PathBuf> = HashMap::new();
    walk(top, &mut |path, ino| {
        if hits.iter().any(|hit| hit.ino == ino) {
            paths.entry(ino).or_insert_with(|| path.into());
        }
    });
    paths
}

/// The rows of a file by name, or by number where they have none.
fn names_of(rows: &[Row], hits: &[Hit]) -> HashMap<u64, PathBuf> {
    let name = |hit: &Hit| {
        let row = usize::try_from(hit.ino).ok().and_then(|n| rows.get(n))?;
        let name = row
            .name
            .clone()
            .unwrap_or_else(|| format!("row {}", hit.ino));
        Some((hit.ino, PathBuf::from(name)))
    };
    hits.iter().filter_map(name).collect()
}

/// The search done here: every file read, every vector compared.
fn search_here(top: &Path, query: &[f32], metric: vectors::Metric, k: usize) -> (Vec<Hit>, u64) {
    let (mut hits, mut scanned) = (Vec::new(), 0);
    let compared = vectors::Query::new(metric, query);
    walk(top, &mut |path, ino| {
        let vector = File::open(path)
            .and_then(|file| vectors::get(&file))
            .ok()
            .flatten();
        let Some(vector) = vector.filter(|vector| vector.len() == query.len()) else {
            return;
        };
        scanned += 1;
        let score = compared.score(&vector);
        hits.push(Hit {
            ino,
            score,
            ..Hit::default()
        });
    });
    (nearest(hits, k), scanned)
}

fn nearest(mut hits: Vec<Hit>, k: usize) -> Vec<Hit> {
    hits.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.ino.cmp(&b.ino)));
    hits.dedup_by_key(|hit| hit.ino);
    hits.truncate(k);
    hits
}

/// The search among the rows of a file: a hit's inode number is the row's, from 0.
fn search_rows(rows: &[Row], query: &[f32], metric: vectors::Metric, k: usize) -> (Vec<Hit>, u64) {
    let compared = vectors::Query::new(metric, query);
    let fits = (0..)
        .zip(rows)
        .filter(|(_, row)| row.vector.len() == query.len());
    let hits: Vec<Hit> = fits
        .map(|(ino, row)| Hit {
            ino,
            score: compared.score(&row.vector),
            ..Hit::default()
        })
        .collect();
    let scanned = hits.len() as u64;
    (nearest(hits, k), scanned)
}

fn show(vector: &[f32], path: &Path, format: Format) {
    let text: Vec<String> = vector.iter().map(f32::to_string).collect();
    match format {
        Format::Json => {
            print_json(&json!({ "file": path, "dims": vector.len(), "vector": vector }))
        }
        _ => println!("{}", text.join(",")),
    }
}

fn import(source: &Path, into: &Path, prefix: &str) -> anyhow::Result<usize> {
    let rows = read_rows(source)?;
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let width = rows.len().max(1).ilog10() as usize + 1;
    for (number, row) in rows.iter().enumerate() {
        let name = row
            .name
            .clone()
            .unwrap_or_else(|| format!("{prefix}{number:0width$}"));
        if name.contains('/') || matches!(name.as_str(), "" | "." | "..") {
            bail!(
                "{}: row {number}: `{name}` cannot be a file name: rename it",
                source.display()
            );
        }
        let path = into.join(name);
        vectors::set(&open_rw(&path, true)?, &row.vector).map_err(|error| remedy(error, &path))?;
    }
    Ok(rows.len())
}

/// Does it.
pub fn run(action: &Action, format: Format, quiet: bool) -> anyhow::Result<()> {
    match action {
        Action::Put { file, vector } => {
            let vector = read_vector(vector)?;
            vectors::set(&open_rw(file, false)?, &vector).map_err(|error| remedy(error, file))
        }
        Action::Get { file } => {
            let opened = File::open(file).map_err(|error| remedy(error, file))?;
            match vectors::get(&opened).map_err(|error| remedy(error, file))? {
                Some(vector) => show(&vector, file, format),
                None => bail!(
                    "{0} has no vector: `vexctl vector put {0} 1,2,3`",
                    file.display()
                ),
            }
            Ok(())
        }
        Action::Rm { file } => {
            if !vectors::remove(&open_rw(file, false)?).map_err(|error| remedy(error, file))? {
                bail!("{} has no vector to remove", file.display());
            }
            Ok(())
        }
        Action::Import {
            source,
            into,
            prefix,
        } => {
            let count = import(source, into, prefix)?;
            if !quiet {
                println!("{count} vectors imported into {}", into.display());
            }
            Ok(())
        }
        Action::Search {
            dir,
            vector,
            k,
            metric,
            reference,
        } => {
            let query = read_vector(vector)?;
            let opened = File::open(dir).map_err(|error| remedy(error, dir))?;
            let began = std::time::Instant::now();
            let rows = match dir.is_file() {
                true => read_rows(dir)?,
                false => Vec::new(),
            };
            let (hits, scanned) = if dir.is_file() {
                search_rows(&rows, &query, metric.metric(), *k)
            } else if *reference {
                search_here(dir, &query, metric.metric(), *k)
            } else {
                vectors::search(&opened, &query, metric.metric(), *k)
                    .map_err(|error| remedy(error, dir))?
            };
            let took = began.elapsed();
            let paths = match dir.is_file() {
                true => names_of(&rows, &hits),
                false => paths_of(dir, &hits),
            };
            let place = |hit: &Hit| paths.get(&hit.ino).cloned().unwrap_or_default();
            match format {
                Format::Json => print_json(&json!({
                    "scanned": scanned, "microseconds": u64::try_from(took.as_micros()).unwrap_or(0),
                    "hits": hits.iter().map(|hit| json!({
                        "path": place(hit), "inode": hit.ino, "score": hit.score,
                        "score_bits": format!("{:016x}", hit.score.to_bits()),
                    })).collect::<Vec<_>>(),
                })),
                Format::Table | Format::Compact => {
                    let row = |hit: &Hit| {
                        let place = place(hit).display().to_string();
                        vec![format!("{:.6}", hit.score), hit.ino.to_string(), place]
                    };
                    let rows: Vec<_> = hits.iter().map(row).collect();
                    table::print(format, &["score", "inode", "path"], &rows);
                }
                Format::Human => {
                    hits.iter()
                        .for_each(|hit| println!("{:<12.6} {}", hit.score, place(hit).display()));
                    if !quiet {
                        eprintln!("{scanned} vectors compared in {took:.1?}");
                    }
                }
            }
            Ok(())
        }
    }
}
