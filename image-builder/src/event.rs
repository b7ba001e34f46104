//! Who hears what a build tells.

use results::BuildEvent;

/// Receives events. Called from the build's own task; it should return quickly.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &BuildEvent);
}

/// Shows nothing.
impl Progress for () {
    fn event(&self, _event: &BuildEvent) {}
}

impl<F: Fn(&BuildEvent) + Send + Sync> Progress for F {
    fn event(&self, event: &BuildEvent) {
        self(event);
    }
}
