//! A tiny signed Debian archive of our own making, with a state for each date, and a loopback server
//! of it that can let its clients down.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

/// What a build of the tiny lab asks for besides the recipe's packages.
const MORE: &[&str] = &[
    "apt",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "mawk",
    "sed",
    "tar",
];
const RELEASE: &str = "6.1.0-1-cloud-amd64";
const SUITES: &[&str] = &["bookworm", "bookworm-updates", "bookworm-security"];

/// The archive: `root()/<date>/` is one of its states.
pub struct Archive {
    home: tempfile::TempDir,
}

impl Archive {
    /// An archive without states, and its key.
    pub fn new() -> Result<Archive, String> {
        let archive = Archive {
            home: tempfile::tempdir().map_err(|e| e.to_string())?,
        };
        fs::create_dir_all(archive.root()).map_err(|e| e.to_string())?;
        archive.gpg(&[
            "--quick-generate-key",
            "test@invalid",
            "ed25519",
            "sign",
            "never",
        ])?;
        let keyring = archive.keyring();
        archive.gpg(&["--output", &keyring.display().to_string(), "--export"])?;
        Ok(archive)
    }

    pub fn root(&self) -> PathBuf {
        self.home.path().join("archive")
    }

    pub fn keyring(&self) -> PathBuf {
        self.home.path().join("keyring.gpg")
    }

    /// Adds a state with all packages at this version, signed, with fields of its own in the
    /// release file.
    pub fn add(&self, date: &str, version: &str, fields: &str) -> Result<(), String> {
        let state = self.root().join(date);
        let io = |e: std::io::Error| e.to_string();
        fs::create_dir_all(state.join("pool")).map_err(io)?;
        let mut packages = String::new();
        for name in names() {
            let content = format!("{name} {version}\n").repeat(500);
            let file = format!("pool/{name}_{version}_amd64.deb");
            fs::write(state.join(&file), &content).map_err(io)?;
            let more = match name.as_str() {
                "linux-image-cloud-amd64" => {
                    format!("Depends: linux-image-{RELEASE} (= {version})\n")
                }
                "coreutils" => "Essential: yes\n".to_owned(),
                _ => String::new(),
            };
            packages += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\n\
                 Description: a test\n{more}Filename: {file}\nSize: {}\nSHA256: {}\n\n",
                content.len(),
                hex::encode(Sha256::digest(&content)),
            );
        }
        for suite in SUITES {
            let dir = state.join("dists").join(suite);
            let index = dir.join("main/binary-amd64");
            fs::create_dir_all(&index).map_err(io)?;
            // Everything in the released suite, nothing in the others.
            let text = if *suite == "bookworm" {
                packages.as_str()
            } else {
                ""
            };
            fs::write(index.join("Packages"), text).map_err(io)?;
            let release = format!(
                "Origin: test\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n\
                 Components: main\nDate: Mon, 01 Jan 2024 00:00:00 UTC\n{fields}SHA256:\n \
                 {} {} main/binary-amd64/Packages\n",
                hex::encode(Sha256::digest(text)),
                text.len(),
            );
            fs::write(dir.join("Release"), release).map_err(io)?;
            let paths = [dir.join("InRelease"), dir.join("Release")];
            let [signed, plain] = paths.map(|path| path.display().to_string());
            self.gpg(&["--yes", "--output", &signed, "--clearsign", &plain])?;
        }
        Ok(())
    }

    fn gpg(&self, arguments: &[&str]) -> Result<(), String> {
        let home = self.home.path().join("gnupg");
        fs::create_dir_all(&home).map_err(|e| e.to_string())?;
        let output = Command::new("gpg")
            .args([
                "--batch",
                "--quiet",
                "--passphrase",
                "",
                "--no-permission-warning",
            ])
            .arg("--homedir")
            .arg(home)
            .args(arguments)
            .output()
            .map_err(|e| format!("gpg (ci/setup installs it): {e}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Archive {
    /// gpg leaves an agent.
    fn drop(&mut self) {
        let home = self.home.path().join("gnupg");
        let ended = Command::new("gpgconf")
            .arg("--homedir")
            .arg(home)
            .args(["--kill", "all"])
            .status();
        if let Err(error) = ended {
            eprintln!("gpg's agent may still run: {error}");
        }
    }
}

/// Every package a build of the minimal variant asks for.
fn names() -> Vec<String> {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../provision/base/recipe.toml");
    let text = fs::read_to_string(recipe).expect("the recipe");
    let recipe: toml::Table = text.parse().expect("TOML");
    let list = |value: &toml::Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect()
    };
    let mut names = list(&recipe["packages"]);
    names.extend(list(&recipe["builder"]["packages"]));
    names.extend(MORE.iter().map(|name| (*name).to_owned()));
    names.push("linux-image-cloud-amd64".into());
    names.push(format!("linux-image-{RELEASE}"));
    names.push(format!("linux-headers-{RELEASE}"));
    names.sort();
    names.dedup();
    names
}

/// Serves a folder on loopback until dropped.
pub struct Server {
    port: u16,
    cuts: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Server {
    pub fn new(root: PathBuf) -> Result<Server, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let server = Server {
            port: listener.local_addr().map_err(|e| e.to_string())?.port(),
            cuts: Arc::default(),
            ended: Arc::default(),
        };
        let (cuts, ended) = (server.cuts.clone(), server.ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (root, cuts) = (root.clone(), cuts.load(Ordering::SeqCst));
                // A client that goes away is its own affair.
                std::thread::spawn(move || answer(&stream, &root, cuts).unwrap_or_default());
            }
        });
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on every package breaks off in its middle, or no longer.
    pub fn cut(&self, cuts: bool) {
        self.cuts.store(cuts, Ordering::SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes it up to see.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn answer(stream: &TcpStream, root: &Path, cuts: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let path = first
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/');
    let mut out = stream;
    let Ok(content) = fs::read(root.join(path)) else {
        return out.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    out.write_all(head.as_bytes())?;
    let cut = cuts && path.ends_with(".deb");
    let end = if cut {
        content.len() / 2
    } else {
        content.len()
    };
    out.write_all(&content[..end])
}
