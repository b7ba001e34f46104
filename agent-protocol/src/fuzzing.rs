//! What the fuzzer calls: arbitrary bytes against everything that reads from a peer.
//!
//! `fuzz/fuzz_targets/peer.rs` is one line around [`bytes_from_a_peer`], so that the same body also
//! runs under `cargo test`, where there is no fuzzer.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::codec::decode;
use crate::frame;
use crate::handshake::{self, Secret};
use crate::message::{FromAgent, ToAgent};

/// Feeds `data` to the frame reader, to the decoder as each kind of message, and to both sides of
/// the handshake. A message that decodes must encode to the very same bytes.
///
/// # Panics
/// When a decoded message does not encode to the bytes it came from, when something hangs, or when
/// arbitrary bytes pass for proof of the secret: all of them findings.
pub fn bytes_from_a_peer(data: &[u8]) {
    if let Ok(message) = decode::<ToAgent>(data) {
        round_trip(&message, data);
    }
    if let Ok(message) = decode::<FromAgent>(data) {
        round_trip(&message, data);
    }
    at_once(async {
        let mut stream = data;
        while let Ok(Some(_)) = frame::read::<ToAgent, _>(&mut stream).await {}
        let mut stream = data;
        while let Ok(Some(_)) = frame::read::<FromAgent, _>(&mut stream).await {}
    });
    let secret = Secret::from_bytes([7; 32]);
    at_once(async {
        let mut stream = tokio::io::join(data, tokio::io::sink());
        assert!(
            handshake::accept(&mut stream, &secret).await.is_err(),
            "an agent took garbage"
        );
        let mut stream = tokio::io::join(data, tokio::io::sink());
        assert!(
            handshake::connect(&mut stream, &secret).await.is_err(),
            "a host took garbage"
        );
    });
}

fn round_trip<T: serde::Serialize>(message: &T, data: &[u8]) {
    let again = crate::codec::encode(message).expect("what was decoded can be encoded");
    assert!(again == data, "a message has two spellings");
}

/// Runs a future whose streams are memory and so are always ready: waiting would be a hang.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("reading from memory had to wait"),
    }
}
