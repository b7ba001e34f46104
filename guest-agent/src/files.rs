//! Files: put atomically, get in chunks, stat, list.

use std::ffi::OsStr;
use std::fs::{self, Metadata, ReadDir};
use std::io::{self, Read, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use agent_protocol::message::{DirEntry, FileKind, FileStat, GuestPath};
use agent_protocol::{CHUNK, CONTENTS, Event, Fault, FaultKind, Input, Reply};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::runtime::Handle;

use crate::flow::{Gone, Inlet, Outlet};
use crate::off_thread;

/// Entries in one [`Event::Entries`].
const ENTRIES: usize = 64;

/// The path here that the host means.
#[must_use]
pub fn local_path(path: &GuestPath) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

/// A file half written; removed unless it got its name.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let (Some(path), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // Elsewhere, because removing touches the file system. If that is lost, nobody cares.
            runtime.spawn_blocking(move || fs::remove_file(path));
        }
    }
}

/// Reads small files whole, all at one time and on one thread.
///
/// # Errors
/// When one cannot be read, or they hold more than [`CONTENTS`] bytes together.
pub async fn read_whole(paths: Vec<GuestPath>) -> Result<Reply, Fault> {
    off_thread(move || {
        let mut room = CONTENTS;
        let mut files = Vec::with_capacity(paths.len());
        for path in &paths {
            let mut content = Vec::new();
            fs::File::open(local_path(path))
                // One byte more than there is room for tells a file that is too large.
                .and_then(|file| file.take(room as u64 + 1).read_to_end(&mut content))
                .map_err(|error| Fault::from_io(format!("read {path}"), &error))?;
            room = room.checked_sub(content.len()).ok_or_else(|| {
                let message = format!(
                    "read {path}: more than {CONTENTS} bytes together with the files before it; \
                     get it by itself"
                );
                Fault::new(FaultKind::Invalid, message)
            })?;
            files.push(content.into());
        }
        Ok(Reply::Contents { files })
    })
    .await
}

/// Writes what comes in to a temporary file beside `path`, and renames it when it is complete and on
/// the disk.
///
/// # Errors
/// Of any of these steps; the old file is then untouched.
pub async fn put(path: GuestPath, mode: u32, inlet: &mut Inlet) -> Result<Reply, Fault> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let target = local_path(&path).to_owned();
    let failed = |what: &str, error: &io::Error| Fault::from_io(format!("{what} {path}"), error);
    if mode & !0o7777 != 0 {
        return Err(Fault::new(
            FaultKind::Invalid,
            format!("put {path}: mode {mode:#o}"),
        ));
    }
    let (Some(directory), Some(_)) = (target.parent(), target.file_name()) else {
        return Err(Fault::new(
            FaultKind::Invalid,
            format!("put {path}: names no file"),
        ));
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let beside = directory.join(format!(".vexfs-put.{}.{number}", std::process::id()));

    // File and guard in one step: when this hangs, and nobody waits for it any more by the time it
    // does not, what it made is removed all the same.
    let (file, mut temporary) = off_thread({
        let (beside, path) = (beside.clone(), path.clone());
        move || {
            let file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)
                .map_err(|error| Fault::from_io(format!("create a file beside {path}"), &error))?;
            Ok((file, Temporary(Some(beside))))
        }
    })
    .await?;
    let mut file = File::from_std(file);
    let mut bytes = 0;
    loop {
        match inlet.next().await {
            Some(Input::Data(data)) => {
                file.write_all(&data.0)
                    .await
                    .map_err(|error| failed("write", &error))?;
                bytes += data.len() as u64;
            }
            Some(Input::End) => break,
            Some(Input::Resize(_)) => {
                return Err(Fault::new(
                    FaultKind::Invalid,
                    format!("put {path}: no terminal"),
                ));
            }
            None => return Err(cut_off(&Gone)),
        }
    }
    file.flush()
        .await
        .map_err(|error| failed("write", &error))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .await
        .map_err(|error| failed("set the mode of", &error))?;
    file.sync_all()
        .await
        .map_err(|error| failed("sync", &error))?;
    drop(file);
    tokio::fs::rename(&beside, &target)
        .await
        .map_err(|error| failed("rename to", &error))?;
    temporary.0 = None;
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let directory = File::open(directory)
        .await
        .map_err(|error| failed("open the directory of", &error))?;
    directory
        .sync_all()
        .await
        .map_err(|error| failed("sync the directory of", &error))?;
    Ok(Reply::Transferred { bytes, mode })
}

/// Sends a file's content from `offset`, at most `limit` bytes.
///
/// # Errors
/// When it cannot be opened, sought or read.
pub async fn get(
    path: GuestPath,
    offset: u64,
    limit: Option<u64>,
    outlet: &Outlet,
) -> Result<Reply, Fault> {
    let failed = |what: &str, error: &io::Error| Fault::from_io(format!("{what} {path}"), error);
    // O_NONBLOCK: opening a named pipe without a writer would hang.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(local_path(&path))
        .await
        .map_err(|error| failed("open", &error))?;
    let metadata = file
        .metadata()
        .await
        .map_err(|error| failed("stat", &error))?;
    if metadata.is_dir() {
        return Err(Fault::new(
            FaultKind::Invalid,
            format!("get {path}: it is a directory"),
        ));
    }
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))
            .await
            .map_err(|error| failed("seek in", &error))?;
    }
    let mut rest = limit.unwrap_or(u64::MAX);
    let mut buffer = vec![0; CHUNK];
    while rest > 0 {
        let most = usize::try_from(rest).unwrap_or(CHUNK).min(CHUNK);
        let count = file
            .read(&mut buffer[..most])
            .await
            .map_err(|error| failed("read", &error))?;
        if count == 0 {
            break;
        }
        outlet
            .send(Event::Data(buffer[..count].to_vec().into()))
            .await
            .map_err(|gone| cut_off(&gone))?;
        rest -= count as u64;
    }
    let bytes = limit.unwrap_or(u64::MAX) - rest;
    Ok(Reply::Transferred {
        bytes,
        mode: metadata.mode() & 0o7777,
    })
}

/// stat(2) or lstat(2).
///
/// # Errors
/// When it fails.
pub async fn stat(path: GuestPath, follow: bool) -> Result<Reply, Fault> {
    off_thread(move || {
        let local = local_path(&path);
        let metadata = if follow {
            fs::metadata(local)
        } else {
            fs::symlink_metadata(local)
        }
        .map_err(|error| Fault::from_io(format_args!("stat {path}"), &error))?;
        Ok(Reply::Stat(describe(&metadata, local)))
    })
    .await
}

/// Sends the entries of a directory.
///
/// # Errors
/// When it cannot be read. An entry that is gone before it could be looked at is left out.
pub async fn list(path: GuestPath, outlet: &Outlet) -> Result<Reply, Fault> {
    let directory = local_path(&path).to_owned();
    let mut entries = off_thread(move || {
        fs::read_dir(&directory)
            .map_err(|error| Fault::from_io(format_args!("list {}", directory.display()), &error))
    })
    .await?;
    loop {
        let (batch, rest) = off_thread(move || Ok((next_entries(&mut entries)?, entries))).await?;
        if batch.is_empty() {
            return Ok(Reply::Done);
        }
        outlet
            .send(Event::Entries(batch))
            .await
            .map_err(|gone| cut_off(&gone))?;
        entries = rest;
    }
}

fn next_entries(entries: &mut ReadDir) -> Result<Vec<DirEntry>, Fault> {
    let mut batch = Vec::new();
    // Names and link targets can be long; an event must stay well inside the window.
    let mut weight = 0;
    while batch.len() < ENTRIES && weight < CHUNK {
        let Some(entry) = entries.next() else { break };
        let entry = entry.map_err(|error| Fault::from_io("read a directory", &error))?;
        match entry.metadata() {
            Ok(metadata) => {
                let entry = DirEntry {
                    name: GuestPath::from_bytes(entry.file_name().into_vec()),
                    stat: describe(&metadata, &entry.path()),
                };
                weight += entry.weight();
                batch.push(entry);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("stat {}", entry.path().display());
                return Err(Fault::from_io(what, &error));
            }
        }
    }
    Ok(batch)
}

fn describe(metadata: &Metadata, path: &Path) -> FileStat {
    let kind = metadata.file_type();
    let link_target = if kind.is_symlink() {
        fs::read_link(path).ok()
    } else {
        None
    };
    FileStat {
        kind: match kind {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Symlink,
            kind if kind.is_block_device() => FileKind::BlockDevice,
            kind if kind.is_char_device() => FileKind::CharDevice,
            kind if kind.is_fifo() => FileKind::Fifo,
            kind if kind.is_socket() => FileKind::Socket,
            _ => FileKind::Other,
        },
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        blocks: metadata.blocks(),
        links: metadata.nlink(),
        inode: metadata.ino(),
        device: metadata.dev(),
        special: metadata.rdev(),
        modified_s: metadata.mtime(),
        modified_ns: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        link_target: link_target
            .map(|path| GuestPath::from_bytes(path.into_os_string().into_vec())),
    }
}

fn cut_off(_: &Gone) -> Fault {
    Fault::new(FaultKind::Cancelled, "the connection ended")
}
