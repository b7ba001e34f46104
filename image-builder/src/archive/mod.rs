//! The mirror's state and its packages, by the host's own apt on directories of ours.
//!
//! The host's apt configuration (proxies, certificates, credentials) keeps working because it is the
//! host's apt that fetches; only where it keeps its state is set here. Everything after this module
//! works offline.

mod complaint;
pub(crate) mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use keeper::{Failure, Kept};
use serde::{Deserialize, Serialize};

use self::complaint::{mirror_error, no_snapshot};
use self::sources::Source;
use crate::BuildError;
use crate::run::{self, Site};
use crate::store::key;

/// How long a mirror's state is trusted before it is asked again. A build follows a build in
/// seconds, the archive changes every few hours.
const RECHECK: Duration = Duration::from_secs(15 * 60);
/// Name of the stage in events and logs.
pub(crate) const STAGE: &str = "packages";

/// A `.deb` of the mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deb {
    /// As apt names it in its archive: `libc6_2.36-9+deb12u14_amd64.deb`, `:` as `%3a`.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Deb {
    /// Package name and version.
    pub(crate) fn name_version(&self) -> (String, String) {
        let mut parts = self.file.trim_end_matches(".deb").split('_');
        let mut part = || parts.next().unwrap_or_default().replace("%3a", ":");
        (part(), part())
    }
}

/// A set of packages with all they depend on, as the mirror has them now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackageSet {
    pub(crate) debs: Vec<Deb>,
}

impl PackageSet {
    /// As inputs of a stage: a changed version is then named as the reason.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (String, String)> {
        self.debs.iter().map(|deb| {
            let (name, version) = deb.name_version();
            (
                format!("package {name}"),
                format!("{version} {}", &deb.sha256[..deb.sha256.len().min(12)]),
            )
        })
    }
}

/// One mirror's suites, checked and at hand.
#[derive(Debug)]
pub(crate) struct Archive {
    dir: PathBuf,
    debs: PathBuf,
    /// Digest of the suites' signed states (`InRelease` files).
    state: String,
}

impl Archive {
    /// The sources.list(5) the archive is made from, for mmdebstrap.
    pub(crate) fn sources_list(&self) -> PathBuf {
        self.dir.join("sources.list")
    }

    /// apt's package lists.
    pub(crate) fn lists(&self) -> PathBuf {
        self.dir.join("lists")
    }

    /// Opens the host's configured archive, or that at `mirror`, with lists not older than
    /// [`RECHECK`].
    pub(crate) async fn open(site: &Site<'_>, mirror: Option<&str>) -> Result<Archive, BuildError> {
        let sources = match mirror {
            Some(url) => sources::from_mirror(url, None)?,
            None => configured(site).await?,
        };
        Archive::open_at(site, &sources).await
    }

    /// Opens these suites. Those of a date are as they are: once is enough.
    pub(crate) async fn open_at(
        site: &Site<'_>,
        sources: &[Source],
    ) -> Result<Archive, BuildError> {
        let list = sources::list(sources);
        let home = site.cache.join("apt");
        let dir = home.join(&key::digest(&list)[..16]);
        let debs = home.join("archives");
        for dir in [
            &dir.join("lists/partial"),
            &dir.join("cache"),
            &dir.join("none/partial"),
            &debs.join("partial"),
        ] {
            fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
        }
        let _lock = site.lock(&home.join("lock")).await?;
        let mut archive = Archive {
            dir,
            debs,
            state: String::new(),
        };
        let file = archive.sources_list();
        fs::write(&file, &list).map_err(BuildError::io("write", &file))?;
        let status = archive.dir.join("status");
        fs::write(&status, "").map_err(BuildError::io("write", status))?;
        let dated = sources.iter().all(|source| source.dated);
        let is_known = archive.is_fresh() || dated && archive.checked().is_file();
        if !is_known {
            let updated = archive.update(site, sources).await;
            updated.map_err(|error| no_snapshot(error, sources))?;
        }
        archive.state = archive.digest()?;
        Ok(archive)
    }

    fn checked(&self) -> PathBuf {
        self.dir.join("checked")
    }

    fn is_fresh(&self) -> bool {
        let checked = fs::metadata(self.checked()).and_then(|meta| meta.modified());
        checked.is_ok_and(|at| {
            SystemTime::now()
                .duration_since(at)
                .is_ok_and(|age| age < RECHECK)
        })
    }

    async fn update(&self, site: &Site<'_>, sources: &[Source]) -> Result<(), BuildError> {
        let log = site.log(STAGE);
        run::fresh_log(&log)?;
        let command = self.apt("apt-get").args(["update", "--error-on=any", "-q"]);
        let update = async {
            let updated = site.step(STAGE, command).await;
            updated.map_err(|error| mirror_error(error, sources))
        };
        // A silent mirror would cost apt a time-out for each index, twice: the first to fail ends both.
        tokio::try_join!(update, self.probe(site, sources))?;
        fs::write(self.checked(), "").map_err(BuildError::io("write", self.checked()))
    }

    /// Asks each archive for one small file, and does not wait long.
    async fn probe(&self, site: &Site<'_>, sources: &[Source]) -> Result<(), BuildError> {
        let mut asked: Vec<&str> = Vec::new();
        for source in sources {
            if asked.contains(&source.uri.as_str()) || !source.uri.starts_with("http") {
                continue;
            }
            asked.push(&source.uri);
            let uri = source.uri.trim_end_matches('/');
            let url = format!("{uri}/dists/{}/InRelease", source.suite);
            let command = self
                .apt(HELPER)
                .args(PROBE_OPTIONS.iter().flat_map(|option| ["-o", option]))
                .args(["download-file", &url])
                .arg(self.dir.join("probe"));
            // Into a log of its own: the update writes at the same time.
            site.output("mirror", command)
                .await
                .map_err(|error| mirror_error(error, sources))?;
        }
        Ok(())
    }

    /// Digest of the suites' signed states.
    fn digest(&self) -> Result<String, BuildError> {
        let dir = self.lists();
        let mut states = Vec::new();
        for entry in fs::read_dir(&dir).map_err(BuildError::io("list", &dir))? {
            let path = entry.map_err(BuildError::io("list", &dir))?.path();
            if path.to_string_lossy().ends_with("Release") {
                let digest = key::file_digest(&path).map_err(BuildError::io("read", &path))?;
                states.push(format!("{} {digest}\n", path.display()));
            }
        }
        states.sort();
        Ok(key::digest(states.concat()))
    }

    /// apt with its state in our directories and the rest of its configuration from the host.
    fn apt(&self, program: &str) -> Kept {
        let option =
            |name: &str, value: &dyn std::fmt::Display| ["-o".into(), format!("{name}={value}")];
        let dir = |name: &str| self.dir.join(name).display().to_string();
        let mut command = Site::program(program)
            .args(option("Dir::State::lists", &dir("lists")))
            // Nothing is installed. Not /dev/null: apt wants to make a lock beside it.
            .args(option("Dir::State::status", &dir("status")))
            .args(option("Dir::Etc::sourcelist", &dir("sources.list")))
            .args(option("Dir::Etc::sourceparts", &"/dev/null"))
            // Pins of the host are about the host.
            .args(option("Dir::Etc::preferences", &"/dev/null"))
            .args(option("Dir::Etc::preferencesparts", &"/dev/null"))
            .args(option("Dir::Cache", &dir("cache")))
            .args(option("Dir::Cache::archives", &self.debs.display()))
            .args(option("Dir::Cache::pkgcache", &"pkgcache.bin"))
            .args(option("Dir::Cache::srcpkgcache", &"srcpkgcache.bin"));
        command = command.args(OPTIONS.iter().flat_map(|option| ["-o", option]));
        if nix::unistd::geteuid().is_root() {
            // `_apt` cannot reach into the cache directory.
            command = command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command
    }

    /// The exact package a meta package stands for (`linux-image-cloud-amd64` for
    /// `linux-image-6.1.0-56-cloud-amd64`), and its version.
    pub(crate) async fn newest(
        &self,
        site: &Site<'_>,
        meta: &str,
    ) -> Result<(String, String), BuildError> {
        let command = self
            .apt("apt-cache")
            .args(["show", "--no-all-versions", meta]);
        let text = self
            .remembered(site, &format!("newest {meta}"), command)
            .await?;
        exact_dependency(&text).ok_or_else(|| BuildError::Packages {
            said: format!("{meta} names no exact package"),
        })
    }

    /// Everything that has to be there for `packages` (apt-get patterns allowed) to be installed.
    pub(crate) async fn resolve(
        &self,
        site: &Site<'_>,
        packages: &[String],
    ) -> Result<PackageSet, BuildError> {
        let command = self
            .apt("apt-get")
            // What is in the archive already would not be printed: look into an empty one.
            .args([
                "-o",
                &format!("Dir::Cache::archives={}", self.dir.join("none").display()),
            ])
            .args(["install", "--print-uris", "-qq"])
            .args(packages);
        let what = format!("install {}", packages.join(" "));
        let text = self.remembered(site, &what, command).await?;
        let debs = from_print_uris(&text);
        if debs.is_empty() {
            return Err(BuildError::Packages {
                said: format!("apt names no files for {}", packages.join(" ")),
            });
        }
        Ok(PackageSet { debs })
    }

    /// apt's answer to a question, remembered for this state of the mirror.
    async fn remembered(
        &self,
        site: &Site<'_>,
        what: &str,
        command: Kept,
    ) -> Result<String, BuildError> {
        let asked = key::digest(format!("{}\n{what}", self.state));
        let file = self.dir.join(format!("answer-{}", &asked[..16]));
        if let Ok(text) = fs::read_to_string(&file) {
            return Ok(text);
        }
        let text = site
            .output(STAGE, command)
            .await
            .map_err(|error| match error {
                BuildError::Step {
                    source: Failure::Ended { tail, .. },
                    ..
                } => BuildError::Packages { said: tail },
                other => other,
            })?;
        keeper::draft::file(&file, &text).map_err(BuildError::io("write", &file))?;
        Ok(text)
    }

    /// Downloads what is not in the cache, and hard-links the set's files into `to`.
    pub(crate) async fn fetch(
        &self,
        site: &Site<'_>,
        stage: &str,
        packages: &[String],
        set: &PackageSet,
        to: &Path,
    ) -> Result<(), BuildError> {
        let _lock = site.lock(&self.debs.with_file_name("lock")).await?;
        let mut all_there = true;
        for deb in &set.debs {
            let file = self.debs.join(&deb.file);
            match fs::metadata(&file) {
                Ok(meta) if meta.len() == deb.bytes && is_deb(&file, deb)? => {}
                Ok(_) => {
                    site.note(format!("{} is damaged: fetched again", file.display()));
                    fs::remove_file(&file).map_err(BuildError::io("remove", &file))?;
                    all_there = false;
                }
                Err(_) => all_there = false,
            }
        }
        if !all_there {
            let command = self
                .apt("apt-get")
                .args(["install", "--download-only", "--yes", "-q"])
                .args(packages);
            site.step(stage, command)
                .await
                .map_err(|error| mirror_error(error, &[]))?;
        }
        fs::create_dir_all(to).map_err(BuildError::io("make", to))?;
        for deb in &set.debs {
            let from = self.debs.join(&deb.file);
            if !is_deb(&from, deb)? {
                return Err(BuildError::Packages {
                    said: format!("{} is not what the signed index says", deb.file),
                });
            }
            touch(&from);
            let target = to.join(&deb.file);
            fs::hard_link(&from, &target)
                .or_else(|_| fs::copy(&from, &target).map(drop))
                .map_err(BuildError::io("copy", &from))?;
        }
        Ok(())
    }
}

/// Whether a file has the digest the signed index says.
fn is_deb(file: &Path, deb: &Deb) -> Result<bool, BuildError> {
    key::file_digest(file)
        .map(|digest| digest == deb.sha256)
        .map_err(BuildError::io("read", file))
}

/// Marks a package as used just now; only the order in which old ones go depends on it.
fn touch(path: &Path) {
    let now = fs::FileTimes::new().set_modified(SystemTime::now());
    let _best_effort = fs::File::open(path).and_then(|file| file.set_times(now));
}

/// apt.conf(5) settings that do not depend on where we are.
const OPTIONS: &[&str] = &[
    "APT::Install-Recommends=false",
    "APT::Architecture=amd64",
    "Acquire::Languages=none",
    "Acquire::Retries=1",
    // Seconds; apt's own 30 are too long to find out that a mirror is silent.
    "Acquire::http::Timeout=10",
    "Acquire::https::Timeout=10",
    "Acquire::ForceHash=sha256",
    // Indexes some desktops add.
    "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false",
    "Dpkg::Use-Pty=0",
];

/// apt's own downloader, so that a probe goes the way the packages will go.
const HELPER: &str = "/usr/lib/apt/apt-helper";
/// apt tries a silent address twice.
const PROBE_OPTIONS: &[&str] = &[
    "Acquire::Retries=0",
    "Acquire::http::Timeout=5",
    "Acquire::https::Timeout=5",
];

/// The suites the host's own apt is set to use.
async fn configured(site: &Site<'_>) -> Result<Vec<Source>, BuildError> {
    // Not `apt-get indextargets`: it knows nothing before the host's first update, and reads every
    // package list after it.
    let command = Site::program("apt-config").args(["shell", "LIST", "Dir::Etc::sourcelist/f"]);
    let command = command.args(["PARTS", "Dir::Etc::sourceparts/d"]);
    let text = site.output(STAGE, command).await?;
    let (list, parts) = (shell_value(&text, "LIST"), shell_value(&text, "PARTS"));
    let mut files: Vec<PathBuf> = fs::read_dir(&parts)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "list" || e == "sources")
        })
        .collect();
    files.push(list.clone().into());
    files.sort();
    let mut texts = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).map_err(BuildError::io("read", file))?;
        texts.push((file.to_string_lossy(), text));
    }
    let sources = sources::from_files(texts.iter().map(|(name, text)| (&**name, text.as_str())));
    if sources.is_empty() {
        return Err(BuildError::NoMirror {
            looked_at: format!("{list} and {parts}"),
        });
    }
    let missing: Vec<_> = sources::SUITES
        .into_iter()
        .filter(|suite| sources.iter().all(|source| source.suite != *suite))
        .collect();
    if !missing.is_empty() {
        site.note(format!(
            "this host's apt has no {}: the image is made without its fixes",
            missing.join(" and no ")
        ));
    }
    Ok(sources)
}

/// `NAME='value'` as apt-config(8) prints it.
fn shell_value(text: &str, name: &str) -> String {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let mut values = lines.filter(|(key, _)| *key == name);
    let value = values.next().map(|(_, value)| value.trim_matches('\''));
    value.unwrap_or_default().to_owned()
}

/// `Depends: name (= version)` of a meta package.
fn exact_dependency(stanza: &str) -> Option<(String, String)> {
    let depends = stanza
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split(", ").find_map(|one| {
        let (name, version) = one.split_once(" (= ")?;
        Some((name.to_owned(), version.trim_end_matches(')').to_owned()))
    })
}

/// `'URI' file bytes SHA256:hash`, one line each.
fn from_print_uris(text: &str) -> Vec<Deb> {
    let mut debs: Vec<Deb> = text
        .lines()
        .filter_map(|line| {
            let [_uri, file, bytes, hash] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            Some(Deb {
                file: file.to_owned(),
                bytes: bytes.parse().ok()?,
                sha256: hash.strip_prefix("SHA256:")?.to_owned(),
            })
        })
        .collect();
    debs.sort_by(|a, b| a.file.cmp(&b.file));
    debs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_files_are_read_from_apts_list() {
        let set = PackageSet {
            debs: from_print_uris(
                "'http://m/pool/z/zlib1g_1.2.13_amd64.deb' zlib1g_1%3a1.2.13_amd64.deb 86684 SHA256:00ff\n\
                 'http://m/pool/a/apt_2.6.1_amd64.deb' apt_2.6.1_amd64.deb 1360000 SHA256:1234567890abcdef\n\
                 WARNING: nothing of this line\n",
            ),
        };
        let inputs: Vec<_> = set.inputs().collect();
        assert_eq!(
            inputs,
            [
                ("package apt".into(), "2.6.1 1234567890ab".into()),
                ("package zlib1g".into(), "1:1.2.13 00ff".into()),
            ]
        );
    }

    #[test]
    fn a_meta_package_names_its_kernel() {
        let stanza = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
                      Depends: linux-base, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(
            exact_dependency(stanza),
            Some((
                "linux-image-6.1.0-56-cloud-amd64".into(),
                "6.1.192-2".into()
            ))
        );
        assert_eq!(exact_dependency("Package: x\n"), None);
    }
}
