//! Length-prefixed frames: a little-endian `u32`, then that many bytes.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::MAX_FRAME;
use crate::codec::{self, CodecError};

/// Memory taken ahead of the bytes that fill it, at most.
const STEP: usize = 16 * 1024;

/// Why no frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced more than [`MAX_FRAME`]; nothing was allocated for it.
    #[error("the peer announced a frame of {0} bytes; at most {MAX_FRAME} are allowed")]
    TooLarge(u32),
    /// The frame arrived and is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The stream ended inside a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Reads one frame's bytes; `None` when the stream ends before one begins.
///
/// Not cancel-safe: a dropped call may have consumed part of a frame.
///
/// # Errors
/// All but [`FrameError::Codec`].
pub async fn read_bytes<R>(stream: &mut R) -> Result<Option<Vec<u8>>, FrameError>
where
    R: AsyncRead + Unpin,
{
    let Some(length) = read_length(stream).await? else {
        return Ok(None);
    };
    if length as usize > MAX_FRAME {
        return Err(FrameError::TooLarge(length));
    }
    let length = length as usize;
    let mut bytes = Vec::new();
    let mut filled = 0;
    while filled < length {
        if filled == bytes.len() {
            // Doubling what has arrived, never what was announced.
            let next = bytes
                .len()
                .max(STEP)
                .saturating_add(bytes.len())
                .min(length);
            bytes.reserve_exact(next - bytes.len());
            bytes.resize(next, 0);
        }
        match stream.read(&mut bytes[filled..]).await? {
            0 => return Err(FrameError::Truncated),
            n => filled += n,
        }
    }
    Ok(Some(bytes))
}

async fn read_length<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<u32>, FrameError> {
    let mut prefix = [0; 4];
    let mut filled = 0;
    while filled < prefix.len() {
        match stream.read(&mut prefix[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(FrameError::Truncated),
            n => filled += n,
        }
    }
    Ok(Some(u32::from_le_bytes(prefix)))
}

/// Reads one message; `None` when the stream ends before one begins. Not cancel-safe.
///
/// # Errors
/// Every [`FrameError`]; after any of them the stream is out of step and must be dropped.
pub async fn read<T, R>(stream: &mut R) -> Result<Option<T>, FrameError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    match read_bytes(stream).await? {
        Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
        None => Ok(None),
    }
}

/// Bytes of one frame around `message`, length prefix included, ready to be written at once.
///
/// # Errors
/// Those of [`codec::encode`].
pub fn to_bytes<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let body = codec::encode(message)?;
    let length = u32::try_from(body.len()).map_err(|_| CodecError::TooLarge(body.len()))?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Writes one message and flushes. Not cancel-safe.
///
/// # Errors
/// [`FrameError::Codec`], before a byte was written, and [`FrameError::Io`].
pub async fn write<T, W>(stream: &mut W, message: &T) -> Result<(), FrameError>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    let bytes = to_bytes(message)?;
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}
