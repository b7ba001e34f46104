//! A place where one source tree's module is built again and again, each time only what changed.
//!
//! The tree is mirrored into a folder below the cache that stays, so that kbuild finds its objects
//! there. Everything else is as in the module stage: the root with the image's own compiler and headers,
//! the tree's build command, the same script. So what comes out is what an image of the tree would have
//! in it, and nothing of kbuild is left out.
//!
//! An object that a killed compiler left could look finished. So a folder is marked while a build is
//! under way, and one that is still marked is made anew; as it is when the tree lost a file (make would
//! go on using the object of it) or a makefile changed.

mod products;
mod substance;

pub use products::{Installed, Product};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use image::{Image, SourceConfig};
use serde::{Deserialize, Serialize};

use crate::request::kernel_config;
use crate::run::Site;
use crate::source::tree;
use crate::stages::{builder, linux, module, programs};
use crate::store::Entry;
use crate::store::key;
use crate::{BuildError, Progress, host, run};

/// Folder of all workshops below the cache.
const HOME: &str = "workshops";
/// How many are kept; the least recently used go first.
const KEPT: usize = 4;
/// There while a build is under way.
const UNFINISHED: &str = "unfinished";
/// What is known of the last build.
const STATE: &str = "state.json";

/// Whose module to build, and for which image.
#[derive(Debug, Clone)]
pub struct WorkshopRequest {
    /// The repository's root.
    pub workspace: PathBuf,
    /// The tree: a folder. It is read, never written to.
    pub source: PathBuf,
    /// What the workshop is for, a word: `try`, `bisect`.
    pub purpose: String,
    /// What tells it from others of the same purpose, for example where the user has the tree.
    pub name: String,
    /// Where `logs/` is made.
    pub out_dir: PathBuf,
    /// Where workshops, builder roots and downloaded packages are kept.
    pub cache_dir: PathBuf,
    /// As [`crate::BuildRequest::mirror`]; only asked when the image's builder root is gone.
    pub mirror: Option<String>,
}

/// A workshop that is ready to build.
#[derive(Debug)]
pub struct Workshop {
    request: WorkshopRequest,
    image: Image,
    home: PathBuf,
    builder: Option<(Vec<String>, Entry)>,
}

/// What is remembered from one build to the next.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// What decides, besides the tree, what comes out.
    made_from: String,
    /// All files mirrored.
    files: Vec<PathBuf>,
    /// The product, when the last build made one.
    product: Option<String>,
}

impl Workshop {
    /// Opens the workshop of a tree for modules of `image`.
    ///
    /// # Errors
    /// When there is no such folder, or programs are missing on this host.
    pub fn open(request: WorkshopRequest, image: &Image) -> Result<Workshop, BuildError> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(BuildError::io("find", path));
        let request = WorkshopRequest {
            workspace: absolute(&request.workspace)?,
            source: absolute(&request.source)?,
            out_dir: absolute(&request.out_dir)?,
            cache_dir: absolute(&request.cache_dir)?,
            ..request
        };
        if !request.source.is_dir() {
            return Err(BuildError::MissingSource {
                path: request.source,
                said: "there is no such folder. Give the one in which `make vm-build` makes the module \
                       by --vexfs-source"
                    .into(),
            });
        }
        host::require_tools()?;
        let name = key::digest(format!(
            "{} {} {}",
            request.purpose, request.name, image.manifest.kernel.release
        ));
        let home = request.cache_dir.join(HOME).join(&name[..16]);
        fs::create_dir_all(&home).map_err(BuildError::io("make", &home))?;
        Ok(Workshop {
            request,
            image: image.clone(),
            home,
            builder: None,
        })
    }

    /// What the tree says about itself now.
    ///
    /// # Errors
    /// Those of [`SourceConfig::of_tree`].
    pub fn config(&self) -> Result<SourceConfig, BuildError> {
        Ok(SourceConfig::of_tree(&self.request.source)?)
    }

    /// The tree.
    pub fn source(&self) -> &Path {
        &self.request.source
    }

    /// The image its modules are for.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// A file of this workshop's own, for those who remember what became of its products.
    pub fn note_file(&self) -> PathBuf {
        self.home.join("tried.json")
    }

    /// Digest of what the kernel makes of the image's own module; see [`Product::substance`]. `None`
    /// when the image was built without keeping it.
    pub fn substance_of_image(&self) -> Option<String> {
        substance::digest(&self.debug_of_image()?).ok()
    }

    /// The image's own module, which lies beside the image with its debug information.
    fn debug_of_image(&self) -> Option<Vec<u8>> {
        let debug = self.image.manifest.module.debug.as_ref()?;
        fs::read(self.image.dir.join(&debug.name)).ok()
    }

    /// A value of the `.modinfo` of the image's own module, such as `vermagic`.
    fn modinfo_of_image(&self, name: &str) -> Option<String> {
        module::modinfo(&self.debug_of_image()?, name)
    }

    /// Builds what has changed since the last time.
    ///
    /// # Errors
    /// [`BuildError::SourceBuild`] when the tree does not compile, whose log has all the compiler said
    /// (see [`Workshop::said`]); and whatever else can go wrong in a module stage.
    pub async fn make(&mut self, progress: &dyn Progress) -> Result<Product, BuildError> {
        let begin = Instant::now();
        let site = self.site(progress);
        for dir in [&site.logs, &site.cache] {
            fs::create_dir_all(dir).map_err(BuildError::io("make", dir))?;
        }
        let _lock = site.lock(&self.home.with_extension("lock")).await?;
        let config = self.config()?;
        let root = self.builder(&site, &config).await?;
        let release = &self.image.manifest.kernel.release;
        let tree = linux::tree_of_image(&site, &self.image.manifest)?;
        let entry = Entry::borrowed(builder::STAGE, root.clone());
        let room = builder::Room {
            root: &entry,
            release,
            tree: tree.as_deref(),
        };
        let config_of_kernel = room.headers().join(".config");
        kernel_config::check(&self.request.source, &config_of_kernel, release)?;
        let made_from = format!(
            "{} {} {} {}",
            root.display(),
            config.build.join(" "),
            config.produced,
            crate::stages::tree_files::words(&config)
        );
        let (update, anew, before) = self.mirror(&made_from)?;
        if update.changed.is_empty()
            && let Some(name) = &before.product
            && let Ok(product) = self.product(name, &config)
        {
            self.finish(&made_from, update.all, Some(name.clone()))?;
            return Ok(Product {
                took: begin.elapsed(),
                ..product
            });
        }
        let build = self.home.join("build");
        let log = site.log(module::STAGE);
        run::fresh_log(&log)?;
        let command = room
            .enter(&site, &build)?
            .arg(format!("PRODUCED={}", config.produced))
            .arg(format!(
                "INSTALL={}",
                crate::stages::tree_files::words(&config)
            ))
            .args(["sh", "-euc", module::BUILD, "sh"])
            .args(&config.build);
        if let Err(error) = site.step(module::STAGE, command).await {
            // The compiler came to its end: what it made is whole.
            self.finish(&made_from, update.all, None)?;
            let source = &self.request.source;
            return Err(module::source_error(error, source, &config, &log));
        }
        let name = self.keep(&build, &config, release, &log)?;
        self.finish(&made_from, update.all, Some(name.clone()))?;
        Ok(Product {
            changed: update.changed,
            anew,
            said: self.said(&log),
            took: begin.elapsed(),
            ..self.product(&name, &config)?
        })
    }

    /// Whether the tree is as it was when it was last built here.
    pub fn is_current(&self) -> bool {
        let state = self.state();
        let (source, copy) = (&self.request.source, self.home.join("build/src"));
        tree::is_current(source, &copy, &state.files).unwrap_or(false)
    }

    fn state(&self) -> State {
        fs::read(self.home.join(STATE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// What the compiler said in a log, without what make says of its own doings, and with the paths of
    /// the user's tree.
    pub fn said(&self, log: &Path) -> Vec<String> {
        let text = fs::read(log).unwrap_or_default();
        said(&String::from_utf8_lossy(&text), &self.request.source)
    }

    /// Whether a line of that is an error, and not only what is said around it.
    pub fn is_error(line: &str) -> bool {
        module::is_error(line)
    }

    /// Whether the programs that go into images beside the module (vexctl, which is mkfs and fsck too, and
    /// the agent) have changed since the image was built; they are no part of a workshop.
    pub async fn programs_changed(&self) -> bool {
        let site = self.site(&());
        let made = &self.image.manifest.stages;
        let Some(made) = made.iter().find(|stage| stage.name == programs::STAGE) else {
            return false;
        };
        let rustc = Site::program("rustc").arg("-vV");
        let rustc = rustc.current_dir(&self.request.workspace);
        let Ok(rustc) = site.output("programs", rustc).await else {
            return false;
        };
        programs::inputs(&programs::IMAGE, &self.request.workspace, &rustc)
            .is_ok_and(|now| now.key() != made.key)
    }

    fn site<'a>(&self, progress: &'a dyn Progress) -> Site<'a> {
        let home = self.home.file_name().unwrap_or_default();
        let name = format!("{}-{}", self.request.purpose, home.to_string_lossy());
        let cache = self.request.cache_dir.clone();
        Site::new(cache, &self.request.out_dir, name, progress)
    }

    /// The builder root, asked for once.
    async fn builder(
        &mut self,
        site: &Site<'_>,
        config: &SourceConfig,
    ) -> Result<PathBuf, BuildError> {
        if let Some((packages, entry)) = &self.builder
            && *packages == config.build_packages
            && entry.dir.join("root").is_dir()
        {
            return Ok(entry.dir.clone());
        }
        let place = (&*self.request.workspace, self.request.mirror.as_deref());
        let entry = builder::of_image(site, place, &self.image.manifest, config).await?;
        let dir = entry.dir.clone();
        self.builder = Some((config.build_packages.clone(), entry));
        Ok(dir)
    }

    /// Brings the mirror up to date; says why it was made anew, if it was, and what was known before. The
    /// folder is marked as unfinished afterwards.
    fn mirror(&self, made_from: &str) -> Result<(tree::Update, Option<String>, State), BuildError> {
        let source = &self.request.source;
        let copy = self.home.join("build/src");
        let mark = self.home.join(UNFINISHED);
        let mut before = self.state();
        let mut anew = match (copy.is_dir(), mark.exists()) {
            (false, _) => Some("for the first time".to_owned()),
            (true, true) => Some("the last build was interrupted".to_owned()),
            (true, false) if before.made_from != made_from => {
                Some("the build command or the compiler is another".to_owned())
            }
            (true, false) => None,
        };
        fs::write(&mark, "").map_err(BuildError::io("write", &mark))?;
        let update = || tree::update(source, &copy).map_err(BuildError::io("copy", source));
        let clear = || match fs::remove_dir_all(self.home.join("build")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(BuildError::io("empty", self.home.join("build"))(error))
            }
            _ => Ok(()),
        };
        let mut updated = None;
        if anew.is_none() {
            let done = update()?;
            anew = reason(&before.files, &done);
            updated = Some(done);
        }
        let done = match (updated, &anew) {
            (Some(done), None) => done,
            (earlier, _) => {
                clear()?;
                before.product = None;
                let all = update()?;
                // What the user changed is what differed, not all that is copied anew.
                match earlier {
                    Some(earlier) => tree::Update {
                        changed: earlier.changed,
                        all: all.all,
                    },
                    None => all,
                }
            }
        };
        Ok((done, anew, before))
    }

    /// Remembers a build that came to its end.
    fn finish(
        &self,
        made_from: &str,
        files: Vec<PathBuf>,
        product: Option<String>,
    ) -> Result<(), BuildError> {
        let state = State {
            made_from: made_from.to_owned(),
            files,
            product,
        };
        let file = self.home.join(STATE);
        let text = serde_json::to_vec(&state)
            .map_err(|error| BuildError::io("write", &file)(std::io::Error::other(error)))?;
        keeper::draft::file(&file, text).map_err(BuildError::io("write", &file))?;
        let mark = self.home.join(UNFINISHED);
        fs::remove_file(&mark).map_err(BuildError::io("remove", mark))?;
        self.evict();
        Ok(())
    }

    /// Workshops nobody has used for long go. What cannot be removed costs only space.
    fn evict(&self) {
        let home = self.request.cache_dir.join(HOME);
        let used = fs::FileTimes::new().set_modified(SystemTime::now());
        let _best_effort = fs::File::open(&self.home).and_then(|dir| dir.set_times(used));
        products::keep_newest(&home, KEPT, &self.home);
    }
}

/// Why objects of before cannot be trusted with these changes.
fn reason(before: &[PathBuf], update: &tree::Update) -> Option<String> {
    if let Some(gone) = before.iter().find(|file| !update.all.contains(file)) {
        return Some(format!("{} is gone", gone.display()));
    }
    let makes = |file: &&PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        ["Makefile", "GNUmakefile", "makefile", "Kbuild", "Kconfig"].contains(&&*name)
            || name.starts_with("Makefile.")
            || name.ends_with(".mk")
            || name == image::SOURCE_CONFIG
    };
    let changed = update.changed.iter().find(makes)?;
    Some(format!("{} has changed", changed.display()))
}

/// The compiler's part of a build's output.
fn said(text: &str, source: &Path) -> Vec<String> {
    let own = |line: &&str| {
        let line = line.trim_start();
        let progress = line
            .split(' ')
            .next()
            .is_some_and(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase()))
            && line.contains(' ')
            && !line.contains(": ");
        !(line.is_empty()
            || progress
            || line.starts_with("make")
            || line.starts_with("Skipping BTF generation")
            || line.contains("Entering directory")
            || line.contains("Leaving directory"))
    };
    let here = format!("{}/", source.display());
    text.lines()
        .filter(own)
        .map(|line| line.trim_end().replace("/build/src/", &here))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_make_says_of_itself_is_left_out() {
        let log = "\
make -C /lib/modules/6.1/build M=/build/src W=1 modules
make[1]: Entering directory '/usr/src/linux-headers-6.1'
  CC [M]  /build/src/super.o
/build/src/super.c: In function 'f':
/build/src/super.c:14:5: error: implicit declaration of function 'foo'
   14 |     foo();
      |     ^~~
  MODPOST /build/src/Module.symvers
ERROR: modpost: \"bar\" [/build/src/vexfs.ko] undefined!
Skipping BTF generation for /build/src/vexfs.ko due to unavailability of vmlinux
make[2]: *** [scripts/Makefile.build:250: /build/src/super.o] Error 1
";
        assert_eq!(
            said(log, Path::new("/home/me/vexfs")),
            [
                "/home/me/vexfs/super.c: In function 'f':",
                "/home/me/vexfs/super.c:14:5: error: implicit declaration of function 'foo'",
                "   14 |     foo();",
                "      |     ^~~",
                "ERROR: modpost: \"bar\" [/home/me/vexfs/vexfs.ko] undefined!",
            ]
        );
    }

    #[test]
    fn what_makes_objects_untrustworthy_is_named() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let update = |changed: &[&str], all: &[&str]| tree::Update {
            changed: paths(changed),
            all: paths(all),
        };
        let before = paths(&["Kbuild", "a.c", "b.c"]);
        let all = ["Kbuild", "a.c", "b.c"];
        assert_eq!(reason(&before, &update(&["a.c"], &all)), None);
        let new = update(&["c.c"], &["Kbuild", "a.c", "b.c", "c.c"]);
        assert_eq!(reason(&before, &new), None);
        let gone = reason(&before, &update(&[], &["Kbuild", "a.c"]));
        assert_eq!(gone.as_deref(), Some("b.c is gone"));
        let made = reason(&before, &update(&["a.c", "Kbuild"], &all));
        assert_eq!(made.as_deref(), Some("Kbuild has changed"));
    }
}
