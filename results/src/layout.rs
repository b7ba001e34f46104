//! Where things are: the one place that knows the names of the folders under the workspace and
//! under `out/`.

use std::path::{Path, PathBuf};

/// The folders of one workspace.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The checkout: holds `packer/`, `provision/`, `vexfs/`.
    pub workspace: PathBuf,
    /// Everything the tool writes, except caches.
    pub out: PathBuf,
    /// Stage caches and snapshots: `$VEXFS_CACHE`, else `out/cache` in the checkout, wherever `out` is.
    pub cache: PathBuf,
}

impl Layout {
    /// The workspace around the current directory, or the one this program was built in.
    ///
    /// # Errors
    /// A sentence, when neither holds `packer/vexfs.pkr.hcl`.
    pub fn find(out: Option<&Path>) -> Result<Layout, String> {
        let here = std::env::current_dir().map_err(|e| format!("no current directory: {e}"))?;
        let built = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = here
            .ancestors()
            .chain(built.ancestors())
            .find(|dir| dir.join("packer/vexfs.pkr.hcl").is_file())
            .ok_or_else(|| {
                format!(
                    "{} is in no VexFS images checkout (no packer/vexfs.pkr.hcl here or above): \
                     change to the checkout and try again",
                    here.display()
                )
            })?;
        Ok(Layout::at(workspace, out))
    }

    /// The layout of a given checkout. `out` defaults to `out/` in it.
    pub fn at(workspace: &Path, out: Option<&Path>) -> Layout {
        let out = out.map_or_else(|| workspace.join("out"), Path::to_path_buf);
        let out = std::path::absolute(&out).unwrap_or(out);
        // Another output folder is no reason to build everything anew.
        let cache = std::env::var_os("VEXFS_CACHE")
            .map_or_else(|| workspace.join("out/cache"), PathBuf::from);
        Layout {
            workspace: workspace.to_path_buf(),
            out,
            cache,
        }
    }

    /// `out/images`: one folder an image.
    pub fn images(&self) -> PathBuf {
        self.out.join("images")
    }

    /// `out/reports`: JUnit and its kin.
    pub fn reports(&self) -> PathBuf {
        self.out.join("reports")
    }

    /// `out/bundle`: everything of a run, laid out for download.
    pub fn bundle(&self) -> PathBuf {
        self.out.join("bundle")
    }

    /// `out/reports/dossiers`: a folder for each failure.
    pub fn dossiers(&self) -> PathBuf {
        self.reports().join("dossiers")
    }

    /// `out/history.redb`: what earlier runs found.
    pub fn history(&self) -> PathBuf {
        self.out.join("history.redb")
    }

    /// `out/logs`: consoles and build logs.
    pub fn logs(&self) -> PathBuf {
        self.out.join("logs")
    }

    /// `out/cache/snapshots`: booted machines, frozen.
    pub fn snapshots(&self) -> PathBuf {
        self.cache.join("snapshots")
    }

    /// `out/logs/machines`: a console log per machine.
    pub fn machine_logs(&self) -> PathBuf {
        self.logs().join("machines")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_output_folder_has_the_same_cache() {
        let named = std::env::var_os("VEXFS_CACHE").map(PathBuf::from);
        let cache = named.unwrap_or_else(|| "/checkout/out/cache".into());
        for out in [None, Some(Path::new("/elsewhere"))] {
            let layout = Layout::at(Path::new("/checkout"), out);
            assert_eq!(layout.cache, cache, "{out:?}");
            assert_eq!(layout.snapshots(), cache.join("snapshots"));
        }
    }
}
