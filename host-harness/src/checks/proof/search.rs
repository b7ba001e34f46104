//! Search: what the kernel answers is exactly what a brute force in Rust, on the host, answers.

use std::fmt::Write as _;

use serde_json::Value;

use crate::lab::{Failure, Guest, Lab};

/// Name, dimensions, and whether the vectors come in clusters with many equal ones among them.
const SETS: &[(&str, usize, bool)] = &[
    ("random", 24, false),
    ("clusters", 24, true),
    ("odd-length", 7, true),
    ("single", 1, true),
    ("wide", 384, false),
];
/// How many hits are asked for, in turn.
const HITS: &[usize] = &[1, 10, 64];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Cosine,
    Euclidean,
    Inner,
}

const METRICS: &[(&str, Metric)] = &[
    ("cosine", Metric::Cosine),
    ("euclidean", Metric::Euclidean),
    ("inner", Metric::Inner),
];

type Vector = Vec<f32>;

/// Vectors of a set. In clusters, every fourth is the same as an earlier one, one is all zero, and one
/// has a negative zero in it.
fn vectors(rng: &mut fastrand::Rng, count: usize, dims: usize, clusters: bool) -> Vec<Vector> {
    let mut random =
        |scale: f32| -> Vector { (0..dims).map(|_| (rng.f32() - 0.5) * scale).collect() };
    let centres: Vec<Vector> = (0..4).map(|_| random(8.0)).collect();
    let noise: Vec<Vector> = (0..count).map(|_| random(0.01)).collect();
    let plain: Vec<Vector> = (0..count).map(|_| random(2.0)).collect();
    let mut all: Vec<Vector> = Vec::new();
    for n in 0..count {
        all.push(match (clusters, n) {
            (false, _) => plain[n].clone(),
            (true, 1) => vec![0.0; dims],
            (true, 2) => vec![-0.0; dims],
            (true, _) if n % 4 == 3 => all[rng.usize(..n)].clone(),
            (true, _) => {
                let centre = &centres[n % centres.len()];
                centre.iter().zip(&noise[n]).map(|(a, b)| a + b).collect()
            }
        });
    }
    all
}

/// The score as `vexfs/uapi/vexfs.h` defines it: binary64, four lanes, in order.
fn score(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let sum = |term: &dyn Fn(f64, f64) -> f64| {
        let mut lanes = [0f64; 4];
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            lanes[i % 4] += term(f64::from(*x), f64::from(*y));
        }
        (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    };
    let score = match metric {
        Metric::Euclidean => sum(&|x, y| (x - y) * (x - y)).sqrt(),
        Metric::Inner => -sum(&|x, y| x * y),
        Metric::Cosine => {
            let norm = sum(&|x, _| x * x).sqrt() * sum(&|_, y| y * y).sqrt();
            match norm > 0.0 {
                true => 1.0 - sum(&|x, y| x * y) / norm,
                false => 1.0,
            }
        }
    };
    // No negative zero.
    score + 0.0
}

/// The nearest by brute force: inode numbers and the bits of the scores.
fn nearest(all: &[(u64, &Vector)], query: &[f32], metric: Metric, k: usize) -> Vec<(u64, u64)> {
    let mut hits: Vec<(f64, u64)> = all
        .iter()
        .map(|(ino, vector)| (score(metric, query, vector), *ino))
        .collect();
    hits.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    hits.truncate(k);
    hits.iter()
        .map(|(score, ino)| (*ino, score.to_bits()))
        .collect()
}

/// The `.fvecs` form of vectors: for each its length and its numbers, little-endian.
fn fvecs(vectors: &[Vector]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for vector in vectors {
        bytes.extend(
            u32::try_from(vector.len())
                .unwrap_or_default()
                .to_le_bytes(),
        );
        vector.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
    }
    bytes
}

async fn put(guest: &Guest, path: &str, content: &[u8]) -> Result<(), Failure> {
    let patience = std::time::Duration::from_secs(60);
    let put = guest.client().put_file(path, 0o600, content, patience);
    put.await.map_err(|source| Failure::Agent {
        doing: format!("put {path}"),
        source,
    })
}

/// Imports sets of vectors, searches, and compares every hit and every bit of its score.
pub async fn search_exact(lab: &mut Lab) -> Result<(), Failure> {
    let guest = lab.guest().await?;
    let count = usize::try_from(lab.count("search_vectors")?).unwrap_or(usize::MAX);
    let queries = usize::try_from(lab.count("search_queries")?).unwrap_or(usize::MAX);
    let mut rng = fastrand::Rng::with_seed(lab.seed());
    let control = lab.source().control.clone();
    let mount = guest.fresh_mount(lab).await?;
    let mut compared = 0;
    for (set, dims, clusters) in SETS {
        let dir = format!("{}/{set}", mount.path());
        let all = vectors(&mut rng, count, *dims, *clusters);
        put(&guest, "/run/all.fvecs", &fvecs(&all)).await?;
        // Not in the order of their numbers: a tie must be broken by them all the same.
        let inodes = guest
            .sh(&format!(
                "{control} vector import /run/all.fvecs {dir} --quiet
                 mkdir {dir}/below; mv {dir}/v*7 {dir}/below
                 find {dir} -type f -printf '%f %i\\n' | sort"
            ))
            .await?;
        let inodes: Vec<u64> = inodes
            .lines()
            .filter_map(|line| line.split_once(' ')?.1.parse().ok())
            .collect();
        if inodes.len() != count {
            let title = format!("{} of {count} vectors were imported", inodes.len());
            return Err(Failure::check("search", title, String::new()));
        }
        lab.point("imported", &guest).await?;
        let known: Vec<(u64, &Vector)> = inodes.iter().copied().zip(&all).collect();
        // Some of them are among the vectors, so that there is something at distance zero.
        let asked: Vec<Vector> = (0..queries)
            .map(|n| match n % 2 {
                0 => all[rng.usize(..count)].clone(),
                _ => vectors(&mut rng, 1, *dims, false).remove(0),
            })
            .collect();
        let answers = ask(&guest, &control, &dir, &asked).await?;
        for (n, query) in asked.iter().enumerate() {
            for (name, metric) in METRICS {
                let k = HITS[n % HITS.len()];
                let expected = nearest(&known, query, *metric, k);
                let found = answers.get(compared % (queries * METRICS.len()));
                if found != Some(&expected) {
                    let title =
                        format!("{set}: query {n} by {name} finds other files than brute force");
                    let detail = format!("expected {expected:x?}\nfound    {found:x?}");
                    return Err(Failure::check("search", title, detail));
                }
                compared += 1;
            }
        }
    }
    lab.fact("searches-compared", compared);
    mount.unmount(&guest).await
}

/// The answers to all queries by all metrics, in that order.
async fn ask(
    guest: &Guest,
    control: &str,
    dir: &str,
    asked: &[Vector],
) -> Result<Vec<Vec<(u64, u64)>>, Failure> {
    let mut script = String::new();
    for (n, query) in asked.iter().enumerate() {
        let file = format!("/run/query-{n}.fvecs");
        put(guest, &file, &fvecs(std::slice::from_ref(query))).await?;
        for (metric, _) in METRICS {
            let k = HITS[n % HITS.len()];
            let _ = writeln!(
                script,
                "{control} vector search {dir} @{file} -k {k} -m {metric} --format json"
            );
        }
    }
    let said = guest.sh(&script).await?;
    let answers = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    answers
        .map(|answer| {
            let answer = answer.map_err(|error| {
                Failure::check(
                    "search",
                    format!("an answer is not JSON: {error}"),
                    said.clone(),
                )
            })?;
            let hits = answer["hits"].as_array().cloned().unwrap_or_default();
            Ok(hits.iter().filter_map(hit).collect())
        })
        .collect()
}

fn hit(hit: &Value) -> Option<(u64, u64)> {
    let bits = u64::from_str_radix(hit["score_bits"].as_str()?, 16).ok()?;
    Some((hit["inode"].as_u64()?, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_broken_by_number() {
        let (a, b) = (vec![1.0, 0.0], vec![0.0, 2.0]);
        let all = [(9, &a), (3, &a), (5, &b)];
        let found = nearest(&all, &[1.0, 0.0], Metric::Euclidean, 2);
        assert_eq!(found, [(3, 0), (9, 0)]);
        let found = nearest(&all, &[0.0, 0.0], Metric::Cosine, 3);
        assert_eq!(found.iter().map(|hit| hit.0).collect::<Vec<_>>(), [3, 5, 9]);
        assert_eq!(score(Metric::Inner, &a, &b).to_bits(), 0);
        assert_eq!(score(Metric::Cosine, &a, &a), 0.0);
    }

    #[test]
    fn clusters_have_ties() {
        let all = vectors(&mut fastrand::Rng::with_seed(1), 40, 5, true);
        assert_eq!((all.len(), all[7].len()), (40, 5));
        assert!(all[..7].contains(&all[7]));
        assert_eq!(fvecs(&all[..1]).len(), 4 + 5 * 4);
    }
}
