//! Who hears of events, and how they are told to all.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Event;

/// Somebody who wants to know what happens: the terminal, a JUnit file, a JSON stream.
pub trait Reporter: Send {
    /// Called for each event, in order.
    ///
    /// # Errors
    /// When the report cannot be written; the run goes on, and its exit code tells.
    fn on(&mut self, event: &Event) -> std::io::Result<()>;
}

/// Hands each event to all reporters and remembers what they could not do.
#[derive(Default)]
pub struct Reporters {
    subscribers: Vec<Box<dyn Reporter>>,
    failed: Vec<String>,
}

impl Reporters {
    /// Reporters that will all see every event.
    pub fn new(subscribers: Vec<Box<dyn Reporter>>) -> Reporters {
        Reporters {
            subscribers,
            failed: Vec::new(),
        }
    }

    /// Tells everybody.
    pub fn emit(&mut self, event: &Event) {
        for subscriber in &mut self.subscribers {
            if let Err(error) = subscriber.on(event) {
                let text = error.to_string();
                if !self.failed.contains(&text) {
                    self.failed.push(text);
                }
            }
        }
    }

    /// One more from now on.
    pub fn subscribe(&mut self, reporter: Box<dyn Reporter>) {
        self.subscribers.push(reporter);
    }

    /// Tells only the last subscriber, what the others have heard already.
    pub fn catch_up(&mut self, event: &Event) {
        let others = self.subscribers.len().saturating_sub(1);
        let mut last = Reporters::new(self.subscribers.split_off(others));
        last.emit(event);
        self.subscribers.append(&mut last.subscribers);
        self.failed.append(&mut last.failed);
    }

    /// What could not be reported, each thing once.
    pub fn failures(&self) -> &[String] {
        &self.failed
    }
}

/// Reporters that several checks talk to at the same time.
#[derive(Clone, Default)]
pub struct SharedReporters(Arc<Mutex<Reporters>>);

impl SharedReporters {
    /// Reporters that will all see every event.
    pub fn new(subscribers: Vec<Box<dyn Reporter>>) -> SharedReporters {
        SharedReporters(Arc::new(Mutex::new(Reporters::new(subscribers))))
    }

    /// Tells everybody.
    pub fn emit(&self, event: &Event) {
        self.lock().emit(event);
    }

    /// One more from now on.
    pub fn subscribe(&self, reporter: Box<dyn Reporter>) {
        self.lock().subscribe(reporter);
    }

    /// Tells only the last subscriber, what the others have heard already.
    pub fn catch_up(&self, event: &Event) {
        self.lock().catch_up(event);
    }

    /// What could not be reported, each thing once.
    pub fn failures(&self) -> Vec<String> {
        self.lock().failures().to_vec()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reporters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
