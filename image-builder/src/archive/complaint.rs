//! What apt complains of, as a sentence about the mirror.

use keeper::Failure;

use crate::BuildError;
use crate::archive::sources::Source;

/// An archive of past states that answers, but not for this date.
pub(super) fn no_snapshot(error: BuildError, sources: &[Source]) -> BuildError {
    let absent = |said: &str| {
        ["404", "does not have a Release file", "File not found"]
            .iter()
            .any(|word| said.contains(word))
    };
    match error {
        BuildError::Mirror { url, said } if sources.iter().any(|s| s.dated) && absent(&said) => {
            let source = sources.iter().find(|s| url.starts_with(&s.uri));
            let address = source.map_or(url, |s| s.uri.clone());
            let date = address
                .split('/')
                .find(|part| part.len() == 16 && part.ends_with('Z'))
                .unwrap_or_default()
                .to_owned();
            BuildError::NoSnapshot {
                url: address,
                date,
                said,
            }
        }
        other => other,
    }
}

/// Turns apt's failure to fetch into a sentence about the mirror.
pub(super) fn mirror_error(error: BuildError, sources: &[Source]) -> BuildError {
    let BuildError::Step {
        source: Failure::Ended { tail, log, .. },
        stage,
    } = error
    else {
        return error;
    };
    let (url, said) = first_fetch_error(&tail).unwrap_or_else(|| {
        let hosts: Vec<_> = sources.iter().map(|source| source.uri.as_str()).collect();
        (
            hosts.first().copied().unwrap_or("configured").to_owned(),
            format!("{stage} failed:\n{tail}\nwhole log: {}", log.display()),
        )
    });
    BuildError::Mirror { url, said }
}

/// The first address apt could not fetch and why, from its messages.
fn first_fetch_error(text: &str) -> Option<(String, String)> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix("E: ")?;
        if let Some(rest) = rest.strip_prefix("Failed to fetch ") {
            let (url, said) = rest.split_once(' ')?;
            return Some((url.to_owned(), said.trim().trim_end_matches(':').to_owned()));
        }
        let (repository, said) = rest.strip_prefix("The repository '")?.split_once("' ")?;
        let (uri, suite) = repository.split_once(' ')?;
        let suite = suite.split(' ').next().unwrap_or(suite);
        Some((
            uri.to_owned(),
            format!("{suite} {}", said.trim_end_matches('.')),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_complaint_becomes_address_and_reason() {
        let refused = "Reading package lists...\n\
            E: Failed to fetch http://m:9/debian/dists/bookworm/InRelease  Could not connect to m:9 (127.0.0.1). - connect (111: Connection refused)\n\
            E: Some index files failed to download.\n";
        assert_eq!(
            first_fetch_error(refused),
            Some((
                "http://m:9/debian/dists/bookworm/InRelease".into(),
                "Could not connect to m:9 (127.0.0.1). - connect (111: Connection refused)".into()
            ))
        );
        let absent = "E: The repository 'http://m/debian-security bookworm-security Release' does not have a Release file.\n";
        assert_eq!(
            first_fetch_error(absent),
            Some((
                "http://m/debian-security".into(),
                "bookworm-security does not have a Release file".into()
            ))
        );
        assert_eq!(first_fetch_error("E: Unable to locate package x"), None);
    }
}
