//! Who looks on while a machine makes its way: a person who waits for it, or a test that interferes.

use std::sync::Arc;

use crate::Machine;

/// How far a machine has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'a> {
    /// It has been switched on, to be frozen.
    Boot,
    /// Its agent answers; it is coming to rest.
    Settle,
    /// It is at rest and about to be frozen.
    Freeze,
    /// It is being restored from a snapshot; its guest does not run yet.
    Fork,
    /// Its story has come to this point.
    Point(&'a str),
}

impl std::fmt::Display for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stage::Boot => f.write_str("booting a machine to freeze it"),
            Stage::Settle => f.write_str("its agent answers; waiting for it to come to rest"),
            Stage::Freeze => f.write_str("freezing it"),
            Stage::Fork => f.write_str("restoring it"),
            Stage::Point(name) => write!(f, "at `{name}`"),
        }
    }
}

type Looks = dyn Fn(Stage<'_>, &Machine) + Send + Sync;

/// Told of each stage as it is reached. Nobody is, by default.
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<Looks>>);

impl Watch {
    /// Calls this at every stage.
    pub fn new(looks: impl Fn(Stage<'_>, &Machine) + Send + Sync + 'static) -> Watch {
        Watch(Some(Arc::new(looks)))
    }

    /// Shows the machine to whoever looks on.
    pub fn tell(&self, stage: Stage<'_>, machine: &Machine) {
        if let Some(looks) = &self.0 {
            looks(stage, machine);
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.0.is_some()).finish()
    }
}
