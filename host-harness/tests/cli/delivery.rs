//! What `ci` does with what it has made: told to a webhook and a job's page, and brought to a folder.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use libtest_mimic::Failed;

use super::{Row, expect, out, vexfs_images};

pub const TESTS: &[Row] = &[
    ("published_and_told", published_and_told),
    ("a_failed_build_is_told", a_failed_build_is_told),
    ("no_place_to_publish_to", no_place_to_publish_to),
];

/// A webhook that fails twice and then listens: its address, and what it was told in the end.
fn webhook() -> Result<(String, JoinHandle<std::io::Result<String>>), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/hook/s3cret", listener.local_addr()?);
    let thread = std::thread::spawn(move || {
        let mut told = String::new();
        for status in ["500 No", "503 Not yet", "200 OK"] {
            let (mut stream, _) = listener.accept()?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                // A large message waits for this.
                if line.to_lowercase().starts_with("expect: 100-continue") {
                    write!(stream, "HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            told = String::from_utf8_lossy(&body).into_owned();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )?;
        }
        Ok(told)
    });
    Ok((url, thread))
}

/// One check only: the image goes there, and nobody is led to it.
fn published_and_told() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let (url, told) = webhook()?;
    let summary = dir.path().join("summary.md");
    fs::write(&summary, "what another step said\n")?;
    let files = dir.path().join("files");
    let mut command = vexfs_images(&["ci", "--check", "vexctl_status", "--keep-last", "3"]);
    command
        .arg("--publish")
        .arg(&files)
        .args(["--junit"])
        .arg(dir.path().join("junit.xml"));
    command
        .env("VEXFS_NOTIFY_URL", &url)
        .env("GITHUB_STEP_SUMMARY", &summary);
    let output = expect(command, 0, &["1 passed"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    for word in [
        "bundle ",
        "published ",
        "points nowhere: not every required check passed",
    ] {
        assert!(said.contains(word), "it does not say `{word}`");
    }
    let home = files.join("vexfs-minimal");
    assert!(fs::symlink_metadata(home.join("latest")).is_err());
    let releases = fs::read_dir(&home)?.flatten().map(|entry| entry.path());
    let release = releases
        .into_iter()
        .find(|path| path.join("index.json").is_file());
    let release = release.ok_or("nothing was published")?;
    let name = "vexfs-minimal-1.0.0";
    for file in [
        format!("{name}/{name}.qcow2"),
        format!("{name}/{name}.qcow2.zst"),
        format!("{name}/SHA256SUMS"),
        "reports/build.md".into(),
        "reports/junit.xml".into(),
        "index.html".into(),
    ] {
        assert!(release.join(&file).is_file(), "{file} is not there");
    }
    // What was published stands by itself: it can be held against everything it says.
    let mut verify = vexfs_images(&["verify"]);
    verify.arg(release.join(name));
    expect(verify, 0, &[])?;
    let told = told.join().map_err(|_| "the webhook died")??;
    assert!(
        told.contains("VexFS images not good: minimal 1.0.0"),
        "{told}"
    );
    let page = fs::read_to_string(&summary)?;
    assert!(
        page.starts_with("what another step said\n# VexFS images"),
        "{page}"
    );
    assert!(page.contains("not all that are required ran"), "{page}");
    let log = fs::read_to_string(out().join("logs/publish.log")).unwrap_or_default();
    let everything = [
        log,
        said,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ]
    .concat();
    assert!(
        !everything.contains("s3cret"),
        "the webhook's address is in the logs"
    );
    Ok(())
}

fn a_failed_build_is_told() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let (url, told) = webhook()?;
    let mut command = vexfs_images(&["ci", "--variants", "maximal", "--notify", &url]);
    command.arg("--output-dir").arg(dir.path());
    expect(command, 2, &["maximal"])?;
    let told = told.join().map_err(|_| "the webhook died")??;
    assert!(told.contains("not built: maximal"), "{told}");
    let page = fs::read_to_string(dir.path().join("reports/build.html"))?;
    assert!(page.contains("<td>maximal</td>"), "{page}");
    Ok(())
}

fn no_place_to_publish_to() -> Result<(), Failed> {
    let command = vexfs_images(&["ci", "--publish", "https://files.example/images"]);
    expect(
        command,
        2,
        &["https://files.example/images", "it is a folder, ssh://"],
    )
    .map(drop)
}
