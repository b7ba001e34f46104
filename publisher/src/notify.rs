//! A message to a webhook, by curl(1). The address is a secret (it is all that such services ask for),
//! so it never stands on a command line, in a log or in an error.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use keeper::Kept;

use crate::{PublishError, run};

/// How often a message is tried again, and the most seconds one try may take. curl waits 1, 2, 4 … s
/// between tries.
const RETRIES: u32 = 4;
const SECONDS: u32 = 20;

/// Posts a JSON text to `url`; tries again when nobody answers or the answer is no.
///
/// # Errors
/// When none of the tries was answered well.
pub async fn notify(url: &str, text: &str, log: &Path) -> Result<(), PublishError> {
    let doing = format!("notify {}", redacted(url));
    let refused = |said: &str| PublishError::Program {
        doing: doing.clone(),
        said: said.to_owned(),
    };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    if !(url.starts_with("https://") || url.starts_with("http://")) || !url.chars().all(plain) {
        return Err(refused(
            "it is no address that begins with https:// or http://",
        ));
    }
    let body = tempfile::NamedTempFile::new().and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        Ok(file)
    });
    let body = body.map_err(PublishError::io("write", "a temporary file"))?;
    // curl's --config from standard input: other users of the host see command lines.
    let config = format!("url = \"{url}\"\n");
    let config = tempfile::tempfile().and_then(|mut file: File| {
        file.write_all(config.as_bytes())?;
        file.rewind()?;
        Ok(file)
    });
    let config = config.map_err(PublishError::io("write", "a temporary file"))?;
    let command = Kept::new("curl")
        .args(["--config", "-", "--silent", "--show-error", "--fail"])
        .args([
            "--header",
            "Content-Type: application/json",
            "--data-binary",
        ])
        .arg(format!("@{}", body.path().display()))
        .args(["--retry-all-errors", "--retry-connrefused", "--retry"])
        .arg(RETRIES.to_string())
        .args(["--max-time".to_owned(), SECONDS.to_string()])
        .args(["--output", "/dev/null"])
        .stdin(config);
    // What curl says may name the address: it goes to no log before that is taken out.
    let quiet =
        tempfile::NamedTempFile::new().map_err(PublishError::io("make", "a temporary file"))?;
    let sent = run::output(command, &doing, quiet.path()).await;
    let said = std::fs::read_to_string(quiet.path()).unwrap_or_default();
    if !said.is_empty() {
        let written = File::options()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|mut file| file.write_all(without(&said, url).as_bytes()));
        written.map_err(PublishError::io("write", log))?;
    }
    match sent {
        Ok(_) => Ok(()),
        Err(PublishError::Program { doing, said }) => Err(PublishError::Program {
            doing,
            said: without(&said, url),
        }),
        Err(other) => Err(other),
    }
}

/// An address without what in it is secret: `https://hooks.example/…`.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "…".into();
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/…")
}

/// A text in which the secret parts of an address are not to be read any more.
fn without(text: &str, url: &str) -> String {
    let text = text.replace(url, &redacted(url));
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let user = rest.split_once('@').map_or("", |(user, _)| user);
    let path = rest
        .split_once(['/', '?', '#'])
        .map_or("", |(_, path)| path);
    let secrets = [user, path].into_iter().filter(|secret| !secret.is_empty());
    secrets.fold(text, |text, secret| text.replace(secret, "…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_only_the_host_is_shown() {
        for (url, shown) in [
            (
                "https://hooks.example/services/T0/B1/s3cret",
                "https://hooks.example/…",
            ),
            (
                "https://user:s3cret@hooks.example:8443/x?y=s3cret",
                "https://hooks.example:8443/…",
            ),
            (
                "http://hooks.example?token=s3cret",
                "http://hooks.example/…",
            ),
            ("s3cret", "…"),
        ] {
            assert_eq!(redacted(url), shown);
            let path = url.split('/').skip(3).collect::<Vec<_>>().join("/");
            let left = without(&format!("curl: (6) {url} and /{path}"), url);
            assert!(!left.contains("s3cret"), "{left}");
        }
    }
}
