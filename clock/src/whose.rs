//! Whose fault it is that something did not come to its end.
//!
//! A tool that judges must know this, and must know it from a type: only what the guest did makes a
//! verdict. Every error of the rooms that run machines answers `whose()`, and what they are wrapped in
//! asks them; a sentence is for people and decides nothing.

/// Who did not do its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The guest: its kernel, its image, the module in it, or what a story found there. Makes a failure.
    Guest,
    /// The host, or whoever else lives on it: a daemon or QEMU that ended, a disk that is full, no
    /// processor time. Says nothing about the image, may be gone the next time, and so is tried again on
    /// a new machine.
    Host,
    /// Ours, or of those who set us up: a program that is not installed, an accelerator that is not
    /// there, a row that makes no sense. Says nothing about the image either; trying again changes nothing.
    Ours,
}

/// How often something is begun in all that the host's fault can end: a machine booted, frozen or
/// forked, a story told. A second try is cheap (a fork costs a third of a second) and settles nearly all;
/// what meets the same trouble three times is not chance.
pub const TRIES: usize = 3;

/// What the host did to a try that was followed by another one: the name of that property in reports.
pub const HOST_TROUBLE: &str = "host-trouble";

/// The tries of something so far, all of which the host has ended.
#[derive(Debug, Default)]
pub struct Tries {
    /// What the host did, in order; empty nearly always.
    pub troubles: Vec<String>,
}

impl Tries {
    /// Whether this error of the latest try is to be followed by another one.
    pub fn again(&mut self, whose: Whose, error: &impl std::fmt::Display) -> bool {
        let again = whose == Whose::Host && self.troubles.len() + 1 < TRIES;
        if again {
            self.troubles.push(error.to_string());
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_fault_is_tried_again_and_not_for_ever() {
        let tries = |errors: &[Whose]| {
            let mut tries = Tries::default();
            let answers: Vec<bool> = errors.iter().map(|w| tries.again(*w, &"e")).collect();
            (answers, tries.troubles.len())
        };
        assert_eq!(tries(&[Whose::Host; 3]), (vec![true, true, false], 2));
        assert_eq!(tries(&[Whose::Guest]), (vec![false], 0));
        assert_eq!(tries(&[Whose::Host, Whose::Ours]), (vec![true, false], 1));
    }
}
