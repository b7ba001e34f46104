//! Files and directories.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use agent_protocol::FaultKind;
use agent_protocol::message::{FileKind, GuestPath};
use tokio::io::AsyncReadExt;

use super::{AMPLE, Pair, pair};
use crate::AgentError;

fn guest(path: &Path) -> GuestPath {
    GuestPath::from_bytes(path.as_os_str().as_bytes())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test]
async fn small_files_are_read_whole_and_at_one_time() {
    let Pair { client, .. } = pair().await;
    let paths = ["/proc/self/comm", "/dev/null", "/proc/version"];
    let files = client.read_files(paths, AMPLE).await.unwrap();
    assert!(files[1].is_empty() && files[2].starts_with(b"Linux version"));
    assert_eq!(files.len(), 3);
    assert_eq!(client.read_files([], AMPLE).await.unwrap().len(), 0);
    let absent = client
        .read_files(["/proc/version", "/no/such/file"], AMPLE)
        .await
        .unwrap_err();
    assert_eq!(absent.fault_kind(), Some(FaultKind::NotFound), "{absent}");
    assert!(absent.to_string().contains("/no/such/file"), "{absent}");
    let endless = client
        .read_files(["/proc/version", "/dev/zero"], AMPLE)
        .await
        .unwrap_err();
    assert_eq!(endless.fault_kind(), Some(FaultKind::Invalid), "{endless}");
    assert!(
        endless.to_string().contains("get it by itself"),
        "{endless}"
    );
}

#[tokio::test]
async fn a_file_goes_there_and_comes_back() {
    let Pair { client, .. } = pair().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a file");
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 253) as u8).collect();

    client
        .put_file(guest(&path), 0o4751, &content, AMPLE)
        .await
        .unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o4751
    );
    assert_eq!(names(directory.path()), ["a file"]);
    let back = client
        .get_file(guest(&path), 1_000_000, AMPLE)
        .await
        .unwrap();
    assert!(back.bytes == content && back.mode == 0o4751);
    let part = client
        .get_range(guest(&path), 500_000, 70_000, AMPLE)
        .await
        .unwrap();
    assert_eq!(part.bytes, content[500_000..570_000]);
    let end = client
        .get_range(guest(&path), 999_999, 70_000, AMPLE)
        .await
        .unwrap();
    assert_eq!(end.bytes, content[999_999..]);
    client
        .put_file(guest(&path), 0o600, b"", AMPLE)
        .await
        .unwrap();
    assert_eq!(
        client.get_file(guest(&path), 0, AMPLE).await.unwrap().bytes,
        b""
    );
}

#[tokio::test]
async fn files_without_a_size_and_files_too_large() {
    let Pair { client, .. } = pair().await;
    let stat = client
        .get_file("/proc/self/stat", 4096, AMPLE)
        .await
        .unwrap();
    assert!(!stat.bytes.is_empty());
    let error = client
        .get_file("/dev/zero", 100_000, AMPLE)
        .await
        .unwrap_err();
    assert!(
        matches!(error, AgentError::TooLarge { limit: 100_000, .. }),
        "{error}"
    );
    let zeros = client
        .get_range("/dev/zero", 0, 100_000, AMPLE)
        .await
        .unwrap();
    assert_eq!(zeros.bytes, vec![0; 100_000]);
    let error = client.get_file("/", 1, AMPLE).await.unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::Invalid), "{error}");
    let error = client
        .get_file("/no/such/file", 1, AMPLE)
        .await
        .unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::NotFound), "{error}");
}

#[tokio::test]
async fn an_interrupted_put_leaves_the_old_file_and_no_trace() {
    let Pair { client, agent } = pair().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "old").unwrap();

    // One that stalls half-way, until its deadline...
    let stalled = tokio::io::repeat(7).take(100_000).chain(Never);
    let within = Duration::from_millis(300);
    let error = client
        .put_stream(guest(&path), 0o644, stalled, within)
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
    // ...one whose source fails...
    let failing = tokio::io::repeat(7).take(100_000).chain(Failing);
    let result = client
        .put_stream(guest(&path), 0o644, failing, AMPLE)
        .await
        .unwrap();
    assert!(result.is_err());
    // ...and one whose connection drops.
    let stalled = tokio::io::repeat(7).take(100_000).chain(Never);
    let put = client.put_stream(guest(&path), 0o644, stalled, AMPLE);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), put)
            .await
            .is_err()
    );
    drop(client);
    agent.await.unwrap().unwrap();

    for _ in 0..500 {
        if names(directory.path()) == ["file"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(names(directory.path()), ["file"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
}

#[tokio::test]
async fn a_put_that_cannot_be_says_so_however_much_was_to_come() {
    let Pair { client, .. } = pair().await;
    for path in ["/no/such/directory/file", "/proc/file"] {
        let error = client
            .put_file(path, 0o644, &[0; 3_000_000], AMPLE)
            .await
            .unwrap_err();
        assert!(matches!(error, AgentError::Fault { .. }), "{path}: {error}");
    }
    let error = client.put_file("/", 0o644, b"x", AMPLE).await.unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::Invalid), "{error}");
    let error = client
        .put_file("/tmp/x", 0o10644, b"x", AMPLE)
        .await
        .unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::Invalid), "{error}");
}

#[tokio::test]
async fn directories_links_and_odd_names() {
    let Pair { client, .. } = pair().await;
    let directory = tempfile::tempdir().unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff\n name");
    fs::write(directory.path().join(odd), "12345").unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    std::os::unix::fs::symlink("no where", directory.path().join("link")).unwrap();
    for number in 0..200 {
        fs::write(
            directory
                .path()
                .join(format!("{number}{}", "x".repeat(240))),
            "",
        )
        .unwrap();
    }

    let entries = client.list(guest(directory.path()), AMPLE).await.unwrap();
    assert_eq!(entries.len(), 203);
    let find = |name: &[u8]| {
        entries
            .iter()
            .find(|entry| entry.name.as_bytes() == name)
            .expect("listed")
            .stat
            .clone()
    };
    assert_eq!(
        (find(odd.as_bytes()).kind, find(odd.as_bytes()).size),
        (FileKind::File, 5)
    );
    assert_eq!(find(b"sub").kind, FileKind::Directory);
    let link = find(b"link");
    assert_eq!(link.kind, FileKind::Symlink);
    assert_eq!(link.link_target, Some(GuestPath::from("no where")));
    let path = guest(&directory.path().join("link"));
    assert_eq!(client.stat(path.clone(), false, AMPLE).await.unwrap(), link);
    let error = client.stat(path, true, AMPLE).await.unwrap_err();
    assert_eq!(error.fault_kind(), Some(FaultKind::NotFound));
    let null = client.stat("/dev/null", true, AMPLE).await.unwrap();
    assert_eq!(null.kind, FileKind::CharDevice);
    let error = client.list("/etc/passwd", AMPLE).await.unwrap_err();
    assert!(error.to_string().contains("/etc/passwd"), "{error}");
}

/// A source that has no more, and does not say so.
struct Never;

impl tokio::io::AsyncRead for Never {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}

/// A source that breaks.
struct Failing;

impl tokio::io::AsyncRead for Failing {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the disk is gone")))
    }
}
