//! How root gets into an image: not at all, unless the builder says otherwise.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::run::Site;
use crate::store::key;
use crate::{BuildError, BuildRequest};

/// What the request's files say, read before anything is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Clear text, or a crypt(5) hash.
    password: Option<String>,
    /// Lines of authorized_keys, without comments and blank ones.
    keys: Option<String>,
}

/// Key types sshd(8) takes in authorized_keys.
const KEY_TYPES: &[&str] = &["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"];

impl Access {
    /// Reads the files of a request.
    pub(crate) fn read(request: &BuildRequest) -> Result<Access, BuildError> {
        let text = |path: &Path| fs::read_to_string(path).map_err(BuildError::io("read", path));
        let bad = |field, path: &Path, remedy: &str| BuildError::BadRequest {
            field,
            value: path.display().to_string(),
            remedy: remedy.into(),
        };
        let mut access = Access::default();
        if let Some(path) = &request.root_password_file {
            let password = text(path)?.lines().next().unwrap_or_default().to_owned();
            if password.is_empty() || password.contains(':') && password.starts_with('$') {
                let remedy = "its first line must be a password, or the hash that \
                              `openssl passwd -6` makes of one";
                return Err(bad("--root-password-file", path, remedy));
            }
            access.password = Some(password);
        }
        if let Some(path) = &request.authorized_keys {
            let keys =
                keys(&text(path)?).map_err(|remedy| bad("--authorized-keys", path, &remedy))?;
            access.keys = Some(keys);
        }
        Ok(access)
    }

    /// What it is called in the manifest and in the template.
    pub(crate) fn name(&self) -> &'static str {
        match (&self.password, &self.keys) {
            (None, None) => "none",
            (Some(_), None) => "password",
            (None, Some(_)) => "keys",
            (Some(_), Some(_)) => "password and keys",
        }
    }

    /// What an image depends on. A digest of a password would tell it to whoever tries words, so of
    /// one in clear text only the time of the build is named: its salt is new each time as well.
    pub(crate) fn inputs(&self) -> Vec<(String, String)> {
        let password = self.password.as_ref().map(|password| {
            let value = if is_hash(password) {
                key::digest(password)
            } else {
                format!(
                    "in clear text, hashed at {:?}",
                    std::time::SystemTime::now()
                )
            };
            ("root's password".to_owned(), value)
        });
        let keys = self
            .keys
            .as_ref()
            .map(|keys| ("root's SSH keys".to_owned(), key::digest(keys)));
        password.into_iter().chain(keys).collect()
    }

    /// Puts what the scripts install into the payload.
    pub(crate) async fn write(
        &self,
        site: &Site<'_>,
        stage: &str,
        payload: &Path,
    ) -> Result<(), BuildError> {
        let write = |name: &str, text: &str| {
            let path = payload.join(name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
                .map_err(BuildError::io("write", path))
        };
        if let Some(password) = &self.password {
            let hash = if is_hash(password) {
                password.clone()
            } else {
                let clear = payload.join("root-password.clear");
                write("root-password.clear", password)?;
                let hash = Site::program("openssl")
                    .args(["passwd", "-6", "-in"])
                    .arg(&clear);
                let hash = site.output(stage, hash).await;
                fs::remove_file(&clear).map_err(BuildError::io("remove", clear))?;
                hash?.trim().to_owned()
            };
            write("root-password", &hash)?;
        }
        match &self.keys {
            Some(keys) => write("authorized-keys", keys),
            None => Ok(()),
        }
    }
}

/// Whether it is a hash of crypt(5), `$id$…`.
fn is_hash(password: &str) -> bool {
    password.starts_with('$') && password.matches('$').count() >= 3
}

/// The keys of an authorized_keys file, or what is wrong with it.
fn keys(text: &str) -> Result<String, String> {
    let mut keys = String::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains("PRIVATE KEY") {
            return Err("it holds a private key: give the .pub file".into());
        }
        let is_type = |word: &str| KEY_TYPES.iter().any(|start| word.starts_with(start));
        if !line.split(' ').any(is_type) {
            return Err(format!("`{line}` is no public key of ssh-keygen(1)"));
        }
        keys.push_str(line);
        keys.push('\n');
    }
    match keys.is_empty() {
        true => Err("it holds no key".into()),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ somebody";

    #[test]
    fn keys_are_public_ones() {
        let text = format!("# ours\n\n{KEY}\nfrom=\"10.0.0.0/8\" {KEY}\n");
        assert_eq!(keys(&text).expect("two keys").lines().count(), 2);
        assert!(keys("").expect_err("none").contains("no key"));
        assert!(
            keys("-----BEGIN OPENSSH PRIVATE KEY-----")
                .expect_err("private")
                .contains(".pub")
        );
        assert!(keys("hello").expect_err("a word").contains("`hello`"));
    }

    #[test]
    fn a_password_in_clear_text_leaves_no_digest() {
        let access = |password: &str| Access {
            password: Some(password.into()),
            keys: None,
        };
        let clear = access("hunter2").inputs();
        assert!(!clear[0].1.contains(&key::digest("hunter2")));
        let hash = access("$6$salt$abcdef");
        assert_eq!(hash.inputs(), hash.inputs());
        assert_eq!(hash.name(), "password");
        assert_eq!(Access::default().name(), "none");
    }
}
