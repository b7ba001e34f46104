//! What the judge found.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How bad a finding is. Each of them fails a check that did not declare it; the degree decides which
/// finding gives the failure its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something was refused or ran out: disk, memory, a module. The surroundings may be at fault.
    Trouble,
    /// The kernel, or a service manager, broke a rule of its own.
    Bug,
    /// The kernel, or a task in it, is gone, stuck or corrupted: nothing later can be trusted.
    Fatal,
}

/// What sort of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The kernel stopped.
    Panic,
    /// An exception in kernel mode.
    Oops,
    /// A BUG assertion, or a `BUG:` line of no better kind.
    Bug,
    /// A WARN assertion.
    Warning,
    /// A CPU or worker does not come back.
    Lockup,
    /// An RCU grace period does not end.
    RcuStall,
    /// A task sleeps uninterruptibly for too long.
    HungTask,
    /// Locks in an order, state or context that can deadlock.
    Lockdep,
    /// Sleeping or scheduling where that is forbidden.
    Atomic,
    /// Kernel address sanitizer.
    Kasan,
    /// Sampling memory checker.
    Kfence,
    /// Concurrency sanitizer.
    Kcsan,
    /// Uninitialised memory.
    Kmsan,
    /// Undefined behaviour.
    Ubsan,
    /// Memory nothing points to.
    Kmemleak,
    /// A reference count went wrong.
    Refcount,
    /// Lists, pages or slab objects were overwritten.
    Corruption,
    /// Something was not given back: slab objects, inodes, dentries, network devices.
    Leak,
    /// Out of memory.
    Oom,
    /// A block device failed.
    Io,
    /// A file system reports damage.
    Filesystem,
    /// A module was refused.
    Module,
    /// systemd could not honour its units.
    Systemd,
    /// The machine did not come up: firmware, boot loader, initramfs, emergency shell.
    Boot,
    /// QEMU or the virtual machine as a whole.
    Machine,
    /// A declared finding did not appear.
    Missing,
}

/// A thing found in the log, with everything that only followed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule that found it; its name in `rules/*.toml`, or `machine` and `missing`.
    pub rule: &'static str,
    /// One line, the same for the same fault: no addresses, process ids or offsets.
    pub title: String,
    /// What sort of thing it is.
    pub kind: Kind,
    /// How bad; the worst of this and what followed.
    pub severity: Severity,
    /// The report's lines as the kernel wrote them, capped in number and length.
    pub excerpt: Vec<String>,
    /// Where it was seen: `kmsg`, `console`, `machine` or, for a missing one, `expected`.
    pub source: &'static str,
    /// The guest's time of it, counted from the guest's boot.
    pub at: Option<Duration>,
    /// How often this title was seen.
    pub times: u32,
    /// What was seen later and is taken for a consequence; capped in number.
    pub followed_by: Vec<Follower>,
    /// The reason for which the check allows it, when it does.
    pub allowed: Option<String>,
    /// Why it is the host's doing, when it is.
    pub excused: Option<String>,
}

/// A finding that is a consequence of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Follower {
    /// The rule that found it.
    pub rule: &'static str,
    /// Its title.
    pub title: String,
    /// Its kind.
    pub kind: Kind,
    /// Its severity.
    pub severity: Severity,
    /// How often this title was seen after its cause.
    pub times: u32,
}

impl Finding {
    /// Whether it counts against the guest: nobody declared it, and nothing of the host explains it.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.allowed.is_none() && self.excused.is_none()
    }

    /// The finding as a few lines of text: what, when, what followed, the report.
    pub fn paragraph(&self) -> String {
        let when = self
            .at
            .map(|at| format!(" at {:.6} s", at.as_secs_f64()))
            .unwrap_or_default();
        let often = if self.times > 1 {
            format!(", {} times", self.times)
        } else {
            String::new()
        };
        let mut out = vec![format!("{} ({}{when}{often})", self.title, self.source)];
        out.extend(
            self.allowed
                .iter()
                .map(|reason| format!("  declared by the check: {reason}")),
        );
        out.extend(
            self.excused
                .iter()
                .map(|reason| format!("  the host's doing: {reason}")),
        );
        out.extend(
            self.followed_by
                .iter()
                .map(|late| format!("  followed by: {}", late.title)),
        );
        out.extend(self.excerpt.iter().map(|line| format!("  | {line}")));
        out.join("\n")
    }
}

impl Kind {
    /// The name that golden logs and reports use.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}").to_lowercase(),
        }
    }
}
