//! The loop from an edit to a verdict: build what changed, put the module into a fork that is waiting,
//! tell the smoke story, say at once what is wrong.
//!
//! A [`Tryout`] holds what stays from one round to the next: the workshop with its objects, and a fork
//! of the image's snapshot from which the image's module has been taken out, so that neither is waited
//! for when a file is saved. [`Tryout::round`] is one edit; [`Tryout::quick`] asks more of a module that
//! passed. [`Saves`] says when files are saved, [`bisect`] walks through history with the same rounds.
//!
//! What happens is told to a [`Voice`] while it happens. Nothing here prints.

pub mod bisect;
pub mod history;
mod places;
mod saves;
mod selection;
mod words;

pub use saves::Saves;
pub use selection::{Selection, select};
pub use words::{Asked, Round, Said, Took, TryoutError, Voice};

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clock::Tries;
use image::{SigningState, SourceConfig};
use image_builder::{BuildError, Product, Workshop};
use results::{BuildEvent, CaseResult, Outcome, SharedReporters, Subject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::task::AbortOnDropHandle;

use crate::checks::{Check, SMOKE};
use crate::lab::{Lab, Listener, Setup, place};
use crate::runner::{self, Judged, Manner};

/// How many log folders of waiting forks there are, at most: a day of edits needs no more.
const LOG_FOLDERS: usize = 8;

/// What is remembered of the module that was tried last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    identity: String,
    image: String,
    verdict: String,
    at: u64,
}

/// What stays from one round to the next.
pub struct Tryout {
    setup: Arc<Setup>,
    workshop: Workshop,
    voice: Voice,
    warm: Option<Warm>,
    /// The module whose findings the listener explains.
    present: Present,
    rounds: usize,
}

type Present = Arc<Mutex<Option<Arc<Subject>>>>;

/// A fork without a module that waits, or is on its way.
struct Warm {
    config: SourceConfig,
    lab: AbortOnDropHandle<Option<Lab>>,
}

impl Tryout {
    /// A loop over the tree of `workshop`, with forks of `setup`'s image.
    pub fn new(setup: Setup, workshop: Workshop, voice: Voice) -> Tryout {
        Tryout {
            setup: Arc::new(setup),
            workshop,
            voice,
            warm: None,
            present: Present::default(),
            rounds: 0,
        }
    }

    /// The tree.
    pub fn source(&self) -> &Path {
        self.workshop.source()
    }

    /// Whether the tree is as it was in the last round.
    pub fn is_current(&self) -> bool {
        self.workshop.is_current()
    }

    /// Begins to make a fork for the next round, if there is none and the host has room for one
    /// that waits beside others that work.
    pub fn warm_up(&mut self) {
        let Ok(config) = self.workshop.config() else {
            return;
        };
        if self.setup.room() > 1 {
            self.warm_up_for(&config);
        }
    }

    /// Gives the waiting fork up.
    pub fn cool_down(&mut self) {
        self.warm = None;
    }

    /// One edit, from the tree as it is now to the verdict of the smoke story. `saved` is when it was
    /// saved; with `again`, a module that was tried before is tried once more.
    ///
    /// # Errors
    /// See [`TryoutError`]. That the tree does not compile is a [`Round`].
    pub async fn round(&mut self, saved: Instant, again: bool) -> Result<Round, TryoutError> {
        let config = self.workshop.config()?;
        self.fits(&config)?;
        self.warm_up_for(&config);
        let product = match self.build().await? {
            Some(product) => product,
            None => return Ok(Round::Broken),
        };
        let identity = identity(&product);
        if !again && let Some(why) = self.known(&product, &identity) {
            self.say(Said::Unchanged(why));
            return Ok(Round::Unchanged);
        }
        self.say(Said::Built(Box::new(product.clone())));
        let subject = Arc::new(self.subject(&product));
        let built = Instant::now();
        let mut tries = Tries::default();
        let (ready, judged) = loop {
            let mut lab = self.fork(&product.config, &subject).await;
            let ready = Instant::now();
            lab.give(subject.clone());
            let judged = runner::judge(lab).await;
            if !judged.begin_again(&mut tries) {
                break (ready, judged);
            }
            self.disturbed(judged).await;
        };
        let took = Took {
            build: product.took,
            fork: ready - built,
            smoke: ready.elapsed(),
            all: saved.elapsed(),
        };
        let first = judged.findings().iter().find(|f| f.counts());
        let places = first.map(|finding| places::of(finding, &subject, self.source()));
        let outcome = judged.outcome.clone();
        self.say(Said::Smoke {
            outcome: outcome.clone(),
            steps: judged.steps.clone(),
            places: places.clone().unwrap_or_default(),
            took,
        });
        let steps = judged.steps.clone();
        let result = judged.close().await;
        if result.outcome != outcome {
            // The console had something to add.
            self.say(Said::Smoke {
                outcome: result.outcome.clone(),
                steps,
                places: places.unwrap_or_default(),
                took,
            });
        }
        if let Some(dossier) = &result.dossier {
            self.say(Said::Dossier(dossier.clone()));
        }
        self.remember(identity, &result.outcome);
        Ok(Round::Judged {
            subject,
            result: Box::new(result),
            took,
        })
    }

    /// One check of a tree as it is now, with no regard to what was tried before; for those who look
    /// for a change rather than making one. `Ok(None)`: it does not compile. `known` may answer for a
    /// module, by its identity, without it being tried.
    ///
    /// # Errors
    /// See [`TryoutError`].
    pub async fn ask(
        &mut self,
        check: &'static Check,
        known: impl Fn(&str) -> bool,
    ) -> Result<Option<(String, Option<Asked>)>, TryoutError> {
        let config = self.workshop.config()?;
        self.fits(&config)?;
        let Some(product) = self.build().await? else {
            return Ok(None);
        };
        let identity = identity(&product);
        if known(&identity) {
            return Ok(Some((identity, None)));
        }
        self.say(Said::Built(Box::new(product.clone())));
        let subject = Arc::new(self.subject(&product));
        let setup = self.setup_of(&product.config);
        let mut tries = Tries::default();
        let judged = loop {
            // With somebody who listens, a story in a broken kernel is not waited for.
            let lab = runner::lab_of(&setup, check, &subject).listen(Arc::new(|_| ()));
            let judged = runner::judge(lab).await;
            if !judged.begin_again(&mut tries) {
                break judged;
            }
            self.disturbed(judged).await;
        };
        let first = judged.findings().iter().find(|f| f.counts());
        let places = first.map(|finding| places::of(finding, &subject, Path::new("")));
        Ok(Some((
            identity,
            Some(Asked {
                places: places.unwrap_or_default(),
                result: judged.close().await,
            }),
        )))
    }

    /// Says that the host has ended a try, and clears it away for the next.
    async fn disturbed(&self, judged: Judged) {
        let result = judged.close().await;
        let (_, title, _) = result.outcome.failure();
        self.say(Said::Note(format!(
            "{title}; trying again on a new machine"
        )));
    }

    /// Further checks of a module, in forks of their own.
    pub async fn quick(
        &self,
        subject: &Arc<Subject>,
        checks: &[&'static Check],
        manner: Manner,
        reporters: &SharedReporters,
    ) -> Vec<CaseResult> {
        let config = self.workshop.config();
        let setup = match config {
            Ok(config) => self.setup_of(&config),
            // The tree was spoilt meanwhile; the module is still of the one before.
            Err(_) => self.setup.clone(),
        };
        runner::run_of(&setup, checks, manner, reporters, Some(subject)).await
    }

    /// Whether programs of the image beside the module have changed since it was built.
    pub async fn programs_changed(&self) -> bool {
        self.workshop.programs_changed().await
    }

    fn say(&self, said: Said) {
        (self.voice)(&said);
    }

    /// Builds; `None` when the tree does not compile, which has been said then.
    async fn build(&mut self) -> Result<Option<Product>, TryoutError> {
        let voice = self.voice.clone();
        let progress = move |event: &BuildEvent| match event {
            BuildEvent::Note { text } => voice(&Said::Note(text.clone())),
            BuildEvent::StageStarted { stage, .. } => {
                voice(&Said::Note(format!("{stage}: making it first")));
            }
            _ => {}
        };
        match self.workshop.make(&progress).await {
            Ok(product) => Ok(Some(product)),
            Err(BuildError::SourceBuild {
                command,
                errors,
                log,
                ..
            }) => {
                let mut said = self.workshop.said(&log);
                if said.is_empty() {
                    said.extend(errors);
                }
                self.say(Said::DoesNotBuild { said, command, log });
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether modules of this tree can stand in for the image's.
    fn fits(&self, config: &SourceConfig) -> Result<(), TryoutError> {
        let manifest = &self.workshop.image().manifest;
        if manifest.signing.state == SigningState::Enforced {
            return Err(TryoutError::Signed {
                variant: manifest.variant.clone(),
            });
        }
        let its = &manifest.source.config;
        let words = |words: &[String]| words.join(" ");
        let rows = [
            ("module", its.module.clone(), config.module.clone()),
            ("control", its.control.clone(), config.control.clone()),
            (
                "runtime_packages",
                words(&its.runtime_packages),
                words(&config.runtime_packages),
            ),
        ];
        match rows.iter().find(|(_, its, ours)| its != ours) {
            None => Ok(()),
            Some((key, its, ours)) => Err(TryoutError::Unfit {
                variant: manifest.variant.clone(),
                differs: format!("{key}: the image has `{its}`, the tree `{ours}`"),
                source_tree: self.source().to_owned(),
            }),
        }
    }

    /// The setup for checks of this tree: what it says of itself counts, not what the image's said.
    fn setup_of(&self, config: &SourceConfig) -> Arc<Setup> {
        let mut setup = Setup::clone(&self.setup);
        setup.image.manifest.source.config = config.clone();
        Arc::new(setup)
    }

    fn subject(&self, product: &Product) -> Subject {
        let image = &self.workshop.image().manifest;
        let manifest_says_debug = image
            .module
            .debug
            .as_ref()
            .is_some_and(|debug| debug.sha256 == image.module.sha256);
        let files = product.installed.iter();
        Subject {
            name: product.config.module.clone(),
            file: match manifest_says_debug {
                true => product.debug.clone(),
                false => product.module.clone(),
            },
            debug: product.debug.clone(),
            sha256: product.sha256.clone(),
            place: place(image),
            depends: product.modinfo("depends").is_some_and(|on| !on.is_empty()),
            depmod: product.depmod,
            files: files
                .map(|file| (file.from.clone(), file.to.clone(), file.mode))
                .collect(),
        }
    }

    /// Why this module needs no test, if it is known.
    fn known(&self, product: &Product, identity: &str) -> Option<String> {
        let files: Vec<String> = product
            .changed
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let changed = match files.as_slice() {
            [] => "no file has changed".to_owned(),
            [one] => format!("{one} has changed, the module has not"),
            more => format!("{} files have changed, the module has not", more.len()),
        };
        let image = &self.workshop.image().manifest;
        let tried: Option<Tried> = std::fs::read(self.workshop.note_file())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|tried: &Tried| tried.image == image.disk.sha256);
        match tried {
            Some(tried) if tried.identity == identity => Some(format!(
                "{changed} since the last try ({}), whose verdict was: {}",
                results::clock::utc(tried.at),
                tried.verdict
            )),
            Some(_) => None,
            None => {
                let same = product.config == image.source.config
                    && self.workshop.substance_of_image().as_ref() == Some(&product.substance);
                same.then(|| "the module is the image's own".to_owned())
            }
        }
    }

    fn remember(&self, identity: String, outcome: &Outcome) {
        if matches!(outcome, Outcome::Infrastructure { .. }) {
            return;
        }
        let verdict = match outcome {
            Outcome::Pass => "smoke passed".to_owned(),
            other => format!("smoke failed, {}", other.failure().1),
        };
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let tried = Tried {
            identity,
            image: self.workshop.image().manifest.disk.sha256.clone(),
            verdict,
            at: at.map_or(0, |at| at.as_secs()),
        };
        let file = self.workshop.note_file();
        let write = || keeper::draft::file(&file, serde_json::to_vec(&tried)?);
        if let Err(error) = write() {
            let file = file.display();
            self.say(Said::Note(format!("cannot write {file}: {error}")));
        }
    }

    fn warm_up_for(&mut self, config: &SourceConfig) {
        if self
            .warm
            .as_ref()
            .is_some_and(|warm| warm.config == *config)
        {
            return;
        }
        self.rounds += 1;
        let mut lab = self.lab(config);
        self.warm = Some(Warm {
            config: config.clone(),
            lab: AbortOnDropHandle::new(tokio::spawn(async move {
                // What goes wrong is said by the round, which then tries for itself.
                lab.prepare().await.is_ok().then_some(lab)
            })),
        });
    }

    fn lab(&self, config: &SourceConfig) -> Lab {
        let setup = self.setup_of(config);
        let id = format!(
            "try-{}-{}-{}",
            setup.image.manifest.variant,
            std::process::id(),
            self.rounds % LOG_FOLDERS
        );
        Lab::new(setup, SMOKE, id)
            .without_module()
            .listen(self.listener())
    }

    /// The waiting fork, or a new lab if there is none that lives.
    async fn fork(&mut self, config: &SourceConfig, subject: &Arc<Subject>) -> Lab {
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Some(subject.clone());
        if let Some(warm) = self.warm.take()
            && warm.config == *config
            && let Ok(Some(lab)) = warm.lab.await
            && lab
                .machines()
                .all()
                .iter()
                .all(|machine| machine.death().is_none())
        {
            return lab;
        }
        self.rounds += 1;
        self.lab(config)
    }

    fn listener(&self) -> Listener {
        let (voice, present) = (self.voice.clone(), self.present.clone());
        let source = self.source().to_owned();
        Arc::new(move |finding| {
            let subject = present
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let places = subject.map(|subject| places::of(finding, &subject, &source));
            voice(&Said::Finding {
                title: finding.title.clone(),
                places: places.unwrap_or_default(),
            });
        })
    }
}

/// Digest of all that decides what checks find: the module, what its tree says, its files.
fn identity(product: &Product) -> String {
    let mut hasher = Sha256::new();
    hasher.update(&product.substance);
    hasher.update(serde_json::to_vec(&product.config).unwrap_or_default());
    for file in &product.installed {
        hasher.update(Sha256::digest(
            std::fs::read(&file.from).unwrap_or_default(),
        ));
    }
    hex::encode(hasher.finalize())
}
