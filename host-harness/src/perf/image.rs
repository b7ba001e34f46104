//! How long does an image take to build: cold, warm, after an edit of the module, with nothing to do? And
//! how large is it?

use std::path::{Path, PathBuf};
use std::time::Instant;

use image::Image;
use image_builder::{BuildError, BuildRequest};

use results::Layout;
use results::figures::{Direction, Metric};

/// What is measured of builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Empty caches, packages in reach of the mirror.
    Cold,
    /// Full caches, no image in place.
    Warm,
    /// Full caches, and a C file of the module that nobody has compiled yet.
    Module,
    /// The image is there and nothing has changed.
    UpToDate,
}

impl Build {
    /// Its metric.
    pub fn name(self) -> &'static str {
        match self {
            Build::Cold => "image/cold_build",
            Build::Warm => "image/warm_build",
            Build::Module => "image/module_build",
            Build::UpToDate => "image/up_to_date",
        }
    }
}

/// Builds into folders of its own, which go with it.
pub struct Site {
    request: BuildRequest,
    dir: tempfile::TempDir,
    edits: u32,
}

impl Site {
    /// For images of a variant. `cold` is what the cache begins as: empty, or the user's own.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn new(
        layout: &Layout,
        variant: &str,
        accelerator: &str,
        cold: bool,
    ) -> Result<Site, String> {
        let trouble = |e: std::io::Error| format!("no folder to build in: {e}");
        std::fs::create_dir_all(&layout.out).map_err(trouble)?;
        let dir = tempfile::Builder::new()
            .prefix("perf-build-")
            .tempdir_in(&layout.out)
            .map_err(trouble)?;
        let request = BuildRequest {
            variant: variant.to_owned(),
            accelerator: accelerator.to_owned(),
            out_dir: dir.path().join("out"),
            cache_dir: match cold {
                true => dir.path().join("cache"),
                false => layout.cache.clone(),
            },
            enable_validation: false,
            ..BuildRequest::new(&layout.workspace)
        };
        Ok(Site {
            request,
            dir,
            edits: 0,
        })
    }

    /// Builds once, and says how long it took, in seconds.
    ///
    /// # Errors
    /// Those of the build.
    pub async fn build(&mut self, what: Build) -> Result<(f64, Image), BuildError> {
        let remove = |dir: &Path| match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(trouble("remove", dir, e)),
            _ => Ok(()),
        };
        match what {
            Build::Cold => {
                remove(&self.request.cache_dir)?;
                remove(&self.request.out_dir)?;
            }
            Build::Warm => remove(&self.request.out_dir)?,
            Build::Module => self.request.source = self.edited()?,
            Build::UpToDate => {}
        }
        let begin = Instant::now();
        let image = image_builder::build(&self.request, &()).await?;
        Ok((begin.elapsed().as_secs_f64(), image))
    }

    /// A copy of the source tree in which a C file ends differently from all before it.
    fn edited(&mut self) -> Result<PathBuf, BuildError> {
        self.edits += 1;
        let from = BuildRequest::new(&self.request.workspace).source;
        let to = self.dir.path().join(format!("source-{}", self.edits));
        copy_tree(&from, &to).map_err(|e| trouble("copy", &from, e))?;
        let file = to.join("search.c");
        let mut text = std::fs::read_to_string(&file).map_err(|e| trouble("read", &file, e))?;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        text.push_str(&format!("/* measured at {} */\n", now.as_nanos()));
        std::fs::write(&file, text).map_err(|e| trouble("write", &file, e))?;
        Ok(to)
    }
}

fn trouble(doing: &'static str, path: &Path, source: std::io::Error) -> BuildError {
    BuildError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}

/// Measures: the cold build once, if it is wanted, the others `rounds` times.
///
/// # Errors
/// A sentence, when a build fails.
pub async fn measure(
    layout: &Layout,
    variant: &str,
    accelerator: &str,
    cold: bool,
    rounds: usize,
) -> Result<Vec<Metric>, String> {
    let mut site = Site::new(layout, variant, accelerator, cold)?;
    let metric = |name: &str, unit: &str| Metric::new(name, variant, unit, Direction::Lower);
    let mut metrics = Vec::new();
    let builds = [Build::Warm, Build::UpToDate, Build::Module];
    if cold {
        let (seconds, _) = site.build(Build::Cold).await.map_err(|e| e.to_string())?;
        let mut once = metric(Build::Cold.name(), "s");
        once.samples.push(seconds);
        metrics.push(once);
    }
    let first = metrics.len();
    metrics.extend(builds.map(|build| metric(build.name(), "s")));
    let (mut disk, mut download) = (metric("image/disk", "MB"), metric("image/download", "MB"));
    for _ in 0..rounds {
        for (at, build) in builds.into_iter().enumerate() {
            let (seconds, image) = site.build(build).await.map_err(|e| e.to_string())?;
            metrics[first + at].samples.push(seconds);
            if build == Build::Warm {
                disk.samples.push(image.manifest.disk.bytes as f64 / 1e6);
                let compressed = &image.manifest.compressed;
                download.samples.push(compressed.bytes as f64 / 1e6);
            }
        }
    }
    metrics.extend([disk, download]);
    Ok(metrics)
}
