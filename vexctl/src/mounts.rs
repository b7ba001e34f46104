//! Which VexFS file systems are mounted, and which ought to be (fstab(5), proc(5)).

use std::path::{Path, PathBuf};

/// One line of `/proc/self/mounts` or `/etc/fstab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Device, or `UUID=…`/`LABEL=…` in fstab.
    pub source: String,
    /// Where.
    pub target: PathBuf,
    /// Options as written, with commas between.
    pub options: String,
}

impl Entry {
    /// Whether `name` is among the options.
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        self.options.split(',').any(|option| option == name)
    }
}

/// Spaces and the like are written as `\040` in both files.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            out.push(byte);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The VexFS lines of a mount table, in its order.
#[must_use]
pub fn parse(table: &str) -> Vec<Entry> {
    let fields = table
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    fields
        .filter_map(|line| {
            let mut field = line.split_whitespace();
            let (source, target) = (field.next()?, field.next()?);
            (field.next()? == "vexfs").then(|| Entry {
                source: unescape(source),
                target: unescape(target).into(),
                options: field.next().unwrap_or("defaults").to_owned(),
            })
        })
        .collect()
}

/// The VexFS file systems mounted now.
///
/// # Errors
/// If `/proc` is not there.
pub fn mounted() -> std::io::Result<Vec<Entry>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mounts")?))
}

/// The VexFS file systems an fstab asks for; none if there is no such file.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn wanted(fstab: &Path) -> std::io::Result<Vec<Entry>> {
    match std::fs::read_to_string(fstab) {
        Ok(table) => Ok(parse(&table)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fstab_and_mounts() {
        let table = "# /etc/fstab\nUUID=1 / ext4 rw 0 1\n\
            LABEL=vex /srv/my\\040data vexfs noauto,ro 0 2\n/dev/vdb /mnt vexfs\nbroken\n";
        let entries = parse(table);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].target, Path::new("/srv/my data"));
        assert!(entries[0].has_option("noauto") && !entries[0].has_option("auto"));
        assert_eq!(entries[1].options, "defaults");
    }
}
