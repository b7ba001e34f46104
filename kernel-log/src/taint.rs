//! `/proc/sys/kernel/tainted`, decoded (Documentation/admin-guide/tainted-kernels.rst, include/linux/panic.h).
//!
//! A taint is the kernel's memory of what happened to it, and outlives the log. Judged by difference:
//! loading the module under test, which is built out of tree and not signed, taints a kernel by itself.

use super::finding::Kind;

/// The value of `/proc/sys/kernel/tainted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taint(pub u64);

/// One reason for which a kernel is tainted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Its bit.
    pub bit: u32,
    /// Its letter in an oops.
    pub letter: char,
    /// What it means.
    pub meaning: &'static str,
}

const fn flag(bit: u32, letter: char, meaning: &'static str) -> Flag {
    Flag {
        bit,
        letter,
        meaning,
    }
}

/// All flags up to Linux 6.15.
const FLAGS: [Flag; 20] = [
    flag(0, 'P', "a proprietary module was loaded"),
    flag(1, 'F', "a module was loaded by force"),
    flag(
        2,
        'S',
        "the kernel runs on a system out of its specification",
    ),
    flag(3, 'R', "a module was unloaded by force"),
    flag(4, 'M', "the processor reported a machine check"),
    flag(5, 'B', "a bad page was found, or memory is corrupt"),
    flag(6, 'U', "user space asked for the taint"),
    flag(7, 'D', "the kernel died: there was an oops or BUG"),
    flag(8, 'A', "an ACPI table was overridden"),
    flag(9, 'W', "the kernel issued a warning"),
    flag(10, 'C', "a staging driver was loaded"),
    flag(11, 'I', "a firmware bug was worked around"),
    flag(12, 'O', "a module built out of tree was loaded"),
    flag(13, 'E', "an unsigned module was loaded"),
    flag(14, 'L', "there was a soft lockup"),
    flag(15, 'K', "the kernel was live patched"),
    flag(16, 'X', "the distribution's own taint"),
    flag(17, 'T', "the kernel was built with randomised structures"),
    flag(18, 'N', "an in-kernel test ran"),
    flag(
        19,
        'J',
        "user space used a mutating debug operation of fwctl",
    ),
];

impl Taint {
    /// What the module under test may do to a kernel: out of tree (4096) and unsigned (8192).
    pub const OF_OUR_MODULE: Taint = Taint(4096 | 8192);

    /// Parses the file's content.
    pub fn parse(text: &str) -> Option<Taint> {
        text.trim().parse().ok().map(Taint)
    }

    /// What a kernel may be tainted by that said something of this kind: W by any WARN (reports of most
    /// kinds are made with one), the rest by what is about it.
    pub fn left_by(kind: Kind) -> Taint {
        let own = match kind {
            Kind::Panic | Kind::Oops | Kind::Bug => 'D',
            Kind::Lockup => 'L',
            Kind::Corruption | Kind::Kasan => 'B',
            _ => 'W',
        };
        let bits = FLAGS.iter().filter(|f| ['W', own].contains(&f.letter));
        Taint(bits.map(|flag| 1 << flag.bit).sum())
    }

    /// The reasons, lowest bit first. A bit this table does not know is reported as one.
    pub fn flags(self) -> Vec<Flag> {
        let known = |bit| FLAGS.iter().find(move |flag| flag.bit == bit).copied();
        let unknown = |bit| flag(bit, '?', "a reason this program does not know");
        let set = (0..u64::BITS).filter(|bit| self.0 >> bit & 1 == 1);
        set.map(|bit| known(bit).unwrap_or_else(|| unknown(bit)))
            .collect()
    }

    /// The letters as an oops shows them, such as `OE`; empty when not tainted.
    pub fn letters(self) -> String {
        self.flags().iter().map(|flag| flag.letter).collect()
    }
}

/// What was added between `before` and `after` that `normal` does not excuse. Flags never go away.
pub fn difference(before: Taint, after: Taint, normal: Taint) -> Vec<Flag> {
    Taint(after.0 & !before.0 & !normal.0).flags()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_decoded() {
        assert_eq!(Taint(12288).letters(), "OE");
        assert_eq!(Taint::OF_OUR_MODULE, Taint(12288));
        assert_eq!(
            Taint::parse("12800\n").map(Taint::letters).as_deref(),
            Some("WOE")
        );
        assert_eq!(Taint::parse("x"), None);
        for (index, flag) in FLAGS.iter().enumerate() {
            assert_eq!(flag.bit as usize, index);
        }
        assert_eq!(Taint::left_by(Kind::Warning).letters(), "W");
        assert_eq!(Taint::left_by(Kind::Oops).letters(), "DW");
        assert_eq!(Taint(1 << 40).letters(), "?");
    }

    #[test]
    fn only_what_is_new_and_not_normal_counts() {
        let words = |before, after| -> Vec<&str> {
            let new = difference(Taint(before), Taint(after), Taint::OF_OUR_MODULE);
            new.iter().map(|flag| flag.meaning).collect()
        };
        assert!(words(0, 12288).is_empty());
        assert!(words(512, 12800).is_empty());
        assert_eq!(words(0, 12288 | 512), ["the kernel issued a warning"]);
        assert_eq!(
            words(12288, 12288 | 128 | 32),
            [
                "a bad page was found, or memory is corrupt",
                "the kernel died: there was an oops or BUG"
            ]
        );
    }
}
