//! The forms an image comes in besides qcow2, as a table.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A form of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// What every image is made as: no further file.
    Qcow2,
    /// The disk's bytes, with holes.
    Raw,
    /// Stream-optimised VMDK: what AWS imports.
    Vmdk,
    /// Fixed VHD whose disk is whole MiB: what Azure takes.
    Vhd,
    /// `disk.raw` in a compressed tar archive of the old GNU format: what Google's cloud takes.
    Gcp,
    /// The root file system as an OCI image layout, in a tar archive (`skopeo copy oci-archive:`).
    Oci,
}

/// Each form, its word on the command line, and how its file's name ends.
const TABLE: &[(Format, &str, &str)] = &[
    (Format::Qcow2, "qcow2", ".qcow2"),
    (Format::Raw, "raw", ".raw"),
    (Format::Vmdk, "vmdk", ".vmdk"),
    (Format::Vhd, "vhd", ".vhd"),
    (Format::Gcp, "gcp", ".gcp.tar.gz"),
    (Format::Oci, "oci", ".oci.tar"),
];

impl Format {
    /// Its word on the command line and in the manifest.
    pub fn word(self) -> &'static str {
        self.row().1
    }

    /// How its file's name ends.
    pub fn suffix(self) -> &'static str {
        self.row().2
    }

    /// Whether the file is a disk with a size the guest sees.
    pub fn is_disk(self) -> bool {
        matches!(
            self,
            Format::Qcow2 | Format::Raw | Format::Vmdk | Format::Vhd
        )
    }

    fn row(self) -> &'static (Format, &'static str, &'static str) {
        // Every form has its row: the test below.
        TABLE
            .iter()
            .find(|(format, _, _)| *format == self)
            .unwrap_or(&TABLE[0])
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(word: &str) -> Result<Format, String> {
        let known: Vec<&str> = TABLE.iter().map(|(_, word, _)| *word).collect();
        TABLE
            .iter()
            .find(|(_, known, _)| *known == word)
            .map(|(format, _, _)| *format)
            .ok_or_else(|| format!("no format `{word}`: there are {}", known.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_word_and_serde_agrees() {
        use Format::*;
        for format in [Qcow2, Raw, Vmdk, Vhd, Gcp, Oci] {
            assert_eq!(format.word().parse(), Ok(format));
            let json = serde_json::to_string(&format).expect("JSON");
            assert_eq!(json, format!("\"{}\"", format.word()));
        }
        let error = "vdi".parse::<Format>().expect_err("unknown");
        assert!(error.contains("`vdi`") && error.contains("vmdk"), "{error}");
    }
}
