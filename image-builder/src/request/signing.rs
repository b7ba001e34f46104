//! Signing modules: what is given, and what follows from it for an image.
//!
//! The key is never copied. The shell that enters the builder root opens it (see
//! [`crate::stages::builder::ENTER`]), and only sign-file(1) of the kernel inherits it; the tree's own
//! build has ended by then.

use std::fs;
use std::path::{Path, PathBuf};

use image::{SigningRecord, SigningState};

use crate::store::key;
use crate::{BuildError, KernelChoice, ModuleSigning};

/// Digest of the signatures; what the kernel's configuration says too.
pub(crate) const HASH: &str = "sha256";
/// Where the open key is in the builder root.
pub(crate) const KEY_FILE: &str = "/dev/fd/9";
/// Kernel parameters that make it insist.
pub(crate) const ENFORCE: &str = "module.sig_enforce=1 lockdown=integrity";

/// What modules are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    /// The private key's file. Its content is nobody's business here.
    pub(crate) key: PathBuf,
    /// The certificate, PEM.
    pub(crate) certificate: String,
}

impl Signer {
    /// Reads what was given, and refuses what cannot work or would let the key out.
    pub(crate) fn read(given: Option<&ModuleSigning>) -> Result<Option<Signer>, BuildError> {
        let Some(given) = given else { return Ok(None) };
        let bad = |field, path: &Path, remedy: &str| BuildError::BadRequest {
            field,
            value: path.display().to_string(),
            remedy: remedy.into(),
        };
        let absolute =
            std::path::absolute(&given.key).map_err(BuildError::io("find", &given.key))?;
        let key = fs::read_to_string(&absolute).map_err(BuildError::io("read", &absolute))?;
        let field = "--module-key";
        if key.contains("ENCRYPTED") {
            let remedy = "it is encrypted, and nobody is there to ask; give it without passphrase";
            return Err(bad(field, &absolute, remedy));
        }
        if !key.contains("PRIVATE KEY-----") {
            return Err(bad(field, &absolute, "it holds no private key in PEM form"));
        }
        let path = &given.certificate;
        let certificate = fs::read_to_string(path).map_err(BuildError::io("read", path))?;
        let field = "--module-cert";
        if certificate.contains("PRIVATE KEY-----") {
            let remedy =
                "it holds a private key, and it goes into the kernel: give the certificate alone";
            return Err(bad(field, path, remedy));
        }
        if !certificate.contains("-----BEGIN CERTIFICATE-----") {
            return Err(bad(
                field,
                path,
                "it holds no X.509 certificate in PEM form",
            ));
        }
        Ok(Some(Signer {
            key: absolute,
            certificate,
        }))
    }

    /// Digest of the certificate: with the module's content it decides the signature.
    pub(crate) fn digest(&self) -> String {
        key::digest(&self.certificate)
    }
}

/// What the image's manifest says of it.
pub(crate) fn record(
    signer: Option<&Signer>,
    kernel: &KernelChoice,
    lockdown: bool,
) -> SigningRecord {
    let (state, reason) = match (signer, kernel, lockdown) {
        (None, KernelChoice::Source(_), _) => (
            SigningState::Off,
            "the build was given no key (--module-key, --module-cert)",
        ),
        (None, ..) => (
            SigningState::Off,
            "the build was given no key, and the distribution's kernel trusts Debian's alone",
        ),
        (Some(_), KernelChoice::Source(_), true) => (
            SigningState::Enforced,
            "the kernel has the certificate built in and takes no other module",
        ),
        (Some(_), KernelChoice::Source(_), false) => (
            SigningState::Trusted,
            "the kernel has the certificate built in; this variant takes other modules too",
        ),
        (Some(_), ..) => (
            SigningState::Signed,
            "the distribution's kernel does not trust the key: compile one that does (--kernel source)",
        ),
    };
    SigningRecord {
        state,
        reason: reason.into(),
        certificate_sha256: signer.map(Signer::digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(key: &str, certificate: &str) -> Result<Option<Signer>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let given = ModuleSigning {
            key: dir.path().join("key.pem"),
            certificate: dir.path().join("cert.pem"),
        };
        fs::write(&given.key, key).expect("a file");
        fs::write(&given.certificate, certificate).expect("a file");
        Signer::read(Some(&given)).map_err(|error| error.to_string())
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";

    #[test]
    fn what_cannot_work_or_would_let_the_key_out_is_refused() {
        assert!(given(KEY, CERTIFICATE).is_ok_and(|signer| signer.is_some()));
        let encrypted = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        for (key, certificate, said) in [
            (encrypted.as_str(), CERTIFICATE, "encrypted"),
            (CERTIFICATE, CERTIFICATE, "no private key"),
            (KEY, KEY, "give the certificate alone"),
            (KEY, "", "no X.509 certificate"),
        ] {
            let error = given(key, certificate).expect_err("refused");
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }

    #[test]
    fn the_record_says_how_far_it_goes_and_why() {
        let signer = given(KEY, CERTIFICATE).expect("a signer");
        let signer = signer.as_ref();
        let source = KernelChoice::Source("plain".into());
        let both = KernelChoice::Both("debug".into());
        for (signer, kernel, lockdown, state) in [
            (None, &source, true, SigningState::Off),
            (None, &KernelChoice::Distribution, true, SigningState::Off),
            (
                signer,
                &KernelChoice::Distribution,
                true,
                SigningState::Signed,
            ),
            (signer, &both, true, SigningState::Signed),
            (signer, &source, false, SigningState::Trusted),
            (signer, &source, true, SigningState::Enforced),
        ] {
            let record = record(signer, kernel, lockdown);
            assert_eq!(record.state, state, "{kernel} {lockdown}");
            assert_eq!(record.certificate_sha256.is_some(), signer.is_some());
            assert!(!record.reason.is_empty());
        }
    }
}
