//! Messages to bytes and back. The only file that names bincode.
//!
//! Integers have a fixed size: a short varint for the length of a string would let 1 byte on the
//! wire become a 24-byte `String` in memory, and [`crate::MEMORY_CAP`] could not be held.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_FRAME;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<MAX_FRAME>> = bincode::config::standard()
    .with_fixed_int_encoding()
    .with_limit::<MAX_FRAME>();

/// A message that cannot be put into a frame, or bytes that are no message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The message is larger than a frame may be.
    #[error("a message of {0} bytes does not fit into a frame of {MAX_FRAME} bytes")]
    TooLarge(usize),
    /// The message cannot be expressed.
    #[error("a message cannot be encoded: {0}")]
    Encode(#[source] Box<bincode::error::EncodeError>),
    /// The bytes are not a message of this protocol.
    #[error("a frame of {length} bytes holds no valid message: {source}")]
    Garbage {
        /// Bytes in the frame.
        length: usize,
        /// What the decoder met.
        source: Box<bincode::error::DecodeError>,
    },
    /// A message, and something behind it.
    #[error("a frame carries {0} bytes behind its message")]
    Trailing(usize),
}

/// The bytes of `message`, at most [`MAX_FRAME`].
///
/// # Errors
/// [`CodecError::TooLarge`] and [`CodecError::Encode`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(message, CONFIG)
        .map_err(|source| CodecError::Encode(Box::new(source)))?;
    if bytes.len() > MAX_FRAME {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// The message that `bytes` are, all of them.
///
/// # Errors
/// [`CodecError::TooLarge`], [`CodecError::Garbage`] and [`CodecError::Trailing`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_FRAME {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let (message, used) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|source| CodecError::Garbage {
            length: bytes.len(),
            source: Box::new(source),
        })?;
    if used != bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - used));
    }
    Ok(message)
}
