//! Who is there: agree on a version, then prove both ways that the secret of this boot is known.
//!
//! ```text
//! host  -> agent   hello    magic, oldest, newest version, 32 random bytes
//! agent -> host    welcome  magic, chosen version (0: none), oldest, newest, 32 random bytes
//! host  -> agent   proof    HMAC-SHA256(secret, "host"  label, hello, welcome)
//! agent -> host    answer   1 and HMAC-SHA256(secret, "agent" label, hello, welcome), or 0
//! ```
//!
//! Every message has a fixed size, so nothing a stranger sends is a length. Both random values and
//! the version ranges are under both proofs: an old proof is worth nothing, and nobody can talk two
//! newer sides into an older version. The labels differ, so a proof cannot be sent back as the
//! other side's. The host proves first: a stranger learns nothing from the agent but the versions.
//!
//! Time limits are the caller's.

use std::fmt;
use std::io;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{NEWEST_VERSION, OLDEST_VERSION};

const MAGIC: [u8; 8] = *b"VexFSrpc";
const HOST_PROOF: &[u8] = b"vexfs agent handshake: proof of the host\0";
const AGENT_PROOF: &[u8] = b"vexfs agent handshake: proof of the agent\0";
const NONCE: usize = 32;
const PROOF: usize = 32;
const HELLO: usize = MAGIC.len() + 4 + NONCE;
const WELCOME: usize = MAGIC.len() + 6 + NONCE;
const PROVEN: u8 = 1;
const DENIED: u8 = 0;

/// The secret of one boot. Shown nowhere, not even in `Debug`.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// A text that is not a secret.
#[derive(Debug, thiserror::Error)]
#[error("a secret is 64 hexadecimal digits, and this has {0} characters or others among them")]
pub struct SecretError(usize);

impl Secret {
    /// From raw bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new one from the system's random source.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> io::Result<Self> {
        Ok(Self(random()?))
    }

    /// The raw bytes. Keep them out of logs and command lines.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The form in which a credential carries it. Keep it out of logs and command lines.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn mac(&self, label: &[u8], hello: &[u8; HELLO], welcome: &[u8; WELCOME]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key length");
        mac.update(label);
        mac.update(hello);
        mac.update(welcome);
        mac
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    /// Reads 64 hexadecimal digits; white space around them is ignored.
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let digits = text.trim().as_bytes();
        let refused = || SecretError(digits.len());
        if digits.len() != 64 {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| {
                char::from(c)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            let (high, low) = (
                digit(pair[0]).ok_or_else(refused)?,
                digit(pair[1]).ok_or_else(refused)?,
            );
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Versions a side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Oldest.
    pub oldest: u16,
    /// Newest.
    pub newest: u16,
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Self = Self {
        oldest: OLDEST_VERSION,
        newest: NEWEST_VERSION,
    };

    /// The newest version both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest) && newest > 0).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

/// Why there is no conversation.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side speaks no version that we speak.
    #[error("no common protocol version: we speak {ours}, the peer speaks {theirs}")]
    Version {
        /// What we speak.
        ours: Versions,
        /// What it speaks.
        theirs: Versions,
    },
    /// Our proof was refused, or the peer's is false: the secrets differ.
    #[error("the peer does not share this boot's secret")]
    WrongSecret,
    /// What arrived is no handshake of ours.
    #[error("the peer does not speak the vexfs agent protocol")]
    Garbage,
    /// The connection ended before the handshake did.
    #[error("the connection ended during the handshake")]
    Ended,
    /// The connection failed.
    #[error("the connection failed during the handshake: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Ended
        } else {
            Self::Io(error)
        }
    }
}

/// The host's side. Returns the version agreed on.
///
/// # Errors
/// Every [`HandshakeError`]; the stream must then be dropped.
pub async fn connect<S>(stream: &mut S, secret: &Secret) -> Result<u16, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    connect_as(stream, secret, Versions::OURS).await
}

/// [`connect`] for a side that speaks `ours`.
///
/// # Errors
/// As [`connect`].
pub async fn connect_as<S>(
    stream: &mut S,
    secret: &Secret,
    ours: Versions,
) -> Result<u16, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = hello(ours, &random()?);
    send(stream, &hello).await?;

    let welcome: [u8; WELCOME] = receive(stream).await?;
    if welcome[..8] != MAGIC {
        return Err(HandshakeError::Garbage);
    }
    let chosen = u16_at(&welcome, 8);
    let theirs = Versions {
        oldest: u16_at(&welcome, 10),
        newest: u16_at(&welcome, 12),
    };
    match ours.common(theirs) {
        Some(common) if common == chosen => {}
        Some(_) if chosen != 0 => return Err(HandshakeError::Garbage),
        _ => return Err(HandshakeError::Version { ours, theirs }),
    }

    let proof: [u8; PROOF] = secret
        .mac(HOST_PROOF, &hello, &welcome)
        .finalize()
        .into_bytes()
        .into();
    send(stream, &proof).await?;

    let [verdict] = receive(stream).await?;
    match verdict {
        PROVEN => {}
        DENIED => return Err(HandshakeError::WrongSecret),
        _ => return Err(HandshakeError::Garbage),
    }
    let answer: [u8; PROOF] = receive(stream).await?;
    // verify_slice compares in constant time.
    secret
        .mac(AGENT_PROOF, &hello, &welcome)
        .verify_slice(&answer)
        .map_err(|_| HandshakeError::WrongSecret)?;
    Ok(chosen)
}

/// The agent's side. Returns the version agreed on.
///
/// # Errors
/// Every [`HandshakeError`]; the stream must then be dropped.
pub async fn accept<S>(stream: &mut S, secret: &Secret) -> Result<u16, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    accept_as(stream, secret, Versions::OURS).await
}

/// [`accept`] for a side that speaks `ours`.
///
/// # Errors
/// As [`accept`].
pub async fn accept_as<S>(
    stream: &mut S,
    secret: &Secret,
    ours: Versions,
) -> Result<u16, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello: [u8; HELLO] = receive(stream).await?;
    if hello[..8] != MAGIC {
        return Err(HandshakeError::Garbage);
    }
    let theirs = Versions {
        oldest: u16_at(&hello, 8),
        newest: u16_at(&hello, 10),
    };
    let chosen = ours.common(theirs);

    let welcome = welcome(chosen.unwrap_or(0), ours, &random()?);
    send(stream, &welcome).await?;
    let chosen = chosen.ok_or(HandshakeError::Version { ours, theirs })?;

    let proof: [u8; PROOF] = receive(stream).await?;
    if secret
        .mac(HOST_PROOF, &hello, &welcome)
        .verify_slice(&proof)
        .is_err()
    {
        send(stream, &[DENIED]).await?;
        return Err(HandshakeError::WrongSecret);
    }
    let mut answer = [PROVEN; 1 + PROOF];
    answer[1..].copy_from_slice(
        &secret
            .mac(AGENT_PROOF, &hello, &welcome)
            .finalize()
            .into_bytes(),
    );
    send(stream, &answer).await?;
    Ok(chosen)
}

fn hello(ours: Versions, nonce: &[u8; NONCE]) -> [u8; HELLO] {
    let mut message = [0; HELLO];
    message[..8].copy_from_slice(&MAGIC);
    message[8..10].copy_from_slice(&ours.oldest.to_le_bytes());
    message[10..12].copy_from_slice(&ours.newest.to_le_bytes());
    message[12..].copy_from_slice(nonce);
    message
}

fn welcome(chosen: u16, ours: Versions, nonce: &[u8; NONCE]) -> [u8; WELCOME] {
    let mut message = [0; WELCOME];
    message[..8].copy_from_slice(&MAGIC);
    message[8..10].copy_from_slice(&chosen.to_le_bytes());
    message[10..12].copy_from_slice(&ours.oldest.to_le_bytes());
    message[12..14].copy_from_slice(&ours.newest.to_le_bytes());
    message[14..].copy_from_slice(nonce);
    message
}

fn u16_at(message: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([message[at], message[at + 1]])
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn receive<S: AsyncRead + Unpin, const N: usize>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
