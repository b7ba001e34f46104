//! `vexfs-images shell`

use std::io::{IsTerminal, Write};
use std::time::Duration;

use agent_client::{Chunk, ExecSpec};
use anyhow::Context;
use host_harness::lab::Guest;
use nix::sys::termios::{self, SetArg, Termios};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{self, Machines, OneImage, Place, Usage};

nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);

/// Options of `shell`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    image: OneImage,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    machines: Machines,
}

/// Puts the terminal back as it was, whatever ends the session.
struct Raw(Termios);

impl Raw {
    fn new() -> anyhow::Result<Raw> {
        let before =
            termios::tcgetattr(std::io::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0) {
            eprintln!("cannot put the terminal back ({error}): type `reset`");
        }
    }
}

/// An error with a remedy, unless there is a terminal to show a shell on.
pub fn needs_terminal(remedy: &str) -> anyhow::Result<()> {
    match std::io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(Usage(format!("a shell needs a terminal: {remedy}")).into()),
    }
}

/// Boots an overlay and opens a login shell on a terminal of its own.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    needs_terminal("use `vexfs-images exec IMAGE -- CMD` in scripts")?;
    let layout = args.place.layout()?;
    let image = args.image.open(&layout)?;
    let host = args.machines.host(&layout).await?;
    let guest = options::boot(&layout, &host, &image, "shell").await?;
    session(&guest).await
}

/// A login shell in a guest, on our terminal; returns its exit code.
pub async fn session(guest: &Guest) -> anyhow::Result<u8> {
    eprintln!("console: {}", guest.machine().console().path().display());
    let (rows, columns) = size();
    let spec = ExecSpec::new(["/bin/sh", "-l"])
        .env(
            "TERM",
            std::env::var("TERM").unwrap_or_else(|_| "vt100".to_owned()),
        )
        .terminal(rows, columns);
    let mut session = guest.client().start(spec, Duration::MAX).await?;
    let input = session.input();
    let mut resized = signal(SignalKind::window_change())?;
    let mut stdin = tokio::io::stdin();
    let mut typed = [0; 4096];
    let mut open = true;
    let raw = Raw::new()?;
    let code = loop {
        tokio::select! {
            chunk = session.next() => match chunk? {
                Chunk::Stdout(bytes) | Chunk::Stderr(bytes) => {
                    let mut out = std::io::stdout();
                    out.write_all(&bytes)?;
                    out.flush()?;
                }
                Chunk::Ended(result) => break crate::exec::code(result),
            },
            read = stdin.read(&mut typed), if open => match read? {
                0 => {
                    open = false;
                    input.end().await?;
                }
                n => input.send(&typed[..n]).await?,
            },
            _ = resized.recv() => {
                let (rows, columns) = size();
                input.resize(rows, columns).await?;
            }
            death = guest.machine().died() => {
                drop(raw);
                anyhow::bail!("{death}; the console ends with:\n{}", guest.machine().console().tail(20));
            }
        }
    };
    drop(raw);
    Ok(code)
}

/// Lines and characters of our terminal; 24 by 80 when it does not say.
fn size() -> (u16, u16) {
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize` (ioctl_tty(2)), which `size` is.
    #[allow(unsafe_code)]
    let asked = unsafe { window_size(nix::libc::STDOUT_FILENO, &raw mut size) };
    match asked {
        Ok(_) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}
