//! What must hold for all messages, all bytes, and all ways in which bytes arrive.

mod messages;

use std::pin::Pin;
use std::task::{Context, Poll};

use agent_protocol::fuzzing::bytes_from_a_peer;
use agent_protocol::handshake::{self, Versions};
use agent_protocol::message::ExecRequest;
use agent_protocol::{
    Bytes, FromAgent, HandshakeError, Input, MAX_FRAME, MAX_ITEMS, Request, RequestId, Secret,
    ToAgent, codec, frame,
};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use messages::{from_agent, to_agent};

/// Bytes that arrive in pieces of the given sizes.
struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let size = self.sizes.next().unwrap_or(1).min(buffer.remaining());
        let end = (self.at + size).min(self.bytes.len());
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #[test]
    fn requests_survive_the_way(messages in proptest::collection::vec(to_agent(), 1..5),
                                sizes in proptest::collection::vec(1_usize..50, 1..10)) {
        let bytes = messages.iter().flat_map(|m| frame::to_bytes(m).unwrap()).collect();
        let mut stream = Dribble { bytes, at: 0, sizes: sizes.into_iter().cycle() };
        block_on(async {
            for message in messages {
                assert_eq!(frame::read(&mut stream).await.unwrap(), Some(message));
            }
            assert_eq!(frame::read::<ToAgent, _>(&mut stream).await.unwrap(), None);
        });
    }

    #[test]
    fn answers_survive_the_way(message in from_agent()) {
        let bytes = codec::encode(&message).unwrap();
        let back: FromAgent = codec::decode(&bytes).unwrap();
        // By bytes: a load average may be NaN, which equals nothing.
        prop_assert_eq!(codec::encode(&back).unwrap(), bytes);
    }

    #[test]
    fn no_bytes_are_harmful(bytes in any::<Vec<u8>>()) {
        bytes_from_a_peer(&bytes);
    }

    #[test]
    fn no_damage_to_a_message_is_harmful(message in from_agent(), at in any::<prop::sample::Index>(),
                                         value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = codec::encode(&message).unwrap();
        let length = bytes.len();
        bytes[at.index(length)] = value;
        bytes_from_a_peer(&bytes);
        bytes.truncate(cut.index(length));
        bytes_from_a_peer(&bytes);
    }

    #[test]
    fn no_damage_to_a_request_is_harmful(message in to_agent(), at in any::<prop::sample::Index>(),
                                         value in any::<u8>()) {
        let mut bytes = frame::to_bytes(&message).unwrap();
        let length = bytes.len();
        bytes[at.index(length)] = value;
        bytes_from_a_peer(&bytes);
        bytes_from_a_peer(&bytes[4..]);
    }

    #[test]
    fn both_sides_choose_the_same_version(a in any::<(u16, u16)>(), b in any::<(u16, u16)>()) {
        let a = Versions { oldest: a.0, newest: a.1 };
        let b = Versions { oldest: b.0, newest: b.1 };
        prop_assert_eq!(a.common(b), b.common(a));
        if let Some(version) = a.common(b) {
            prop_assert!(version >= a.oldest && version <= a.newest);
            prop_assert!(version >= b.oldest && version <= b.newest);
        }
    }

    /// Whoever sits in between and changes one bit of the handshake, of either side, at any place:
    /// nobody is let in who should not be, and neither side takes the other for what it is not.
    #[test]
    fn no_bit_of_the_handshake_can_be_changed(at in 0_usize..44 + 46 + 32 + 33, bit in 0_u8..8) {
        let secret = Secret::from_bytes([3; 32]);
        let (host, guest) = block_on(tampered(&secret, &secret, Some((at, 1 << bit))));
        // Only the last message comes too late for the agent to notice.
        prop_assert!(host.is_err());
        prop_assert!(guest.is_err() || at >= 44 + 46 + 32);
    }
}

/// Handshake through a relay that flips `mask` in the byte number `at` of all that passes, in the
/// order in which it passes: 44 bytes to the agent, 46 back, 32 there, 33 back.
async fn tampered(
    host_secret: &Secret,
    guest_secret: &Secret,
    flip: Option<(usize, u8)>,
) -> (Result<u16, HandshakeError>, Result<u16, HandshakeError>) {
    let (mut host, mut relay_host) = tokio::io::duplex(256);
    let (mut relay_guest, mut guest) = tokio::io::duplex(256);
    let relay = async move {
        let mut passed = 0;
        for (to_guest, length) in [(true, 44), (false, 46), (true, 32), (false, 33)] {
            let (from, to) = if to_guest {
                (&mut relay_host, &mut relay_guest)
            } else {
                (&mut relay_guest, &mut relay_host)
            };
            for _ in 0..length {
                let Ok(mut byte) = from.read_u8().await else {
                    return;
                };
                if let Some((at, mask)) = flip
                    && at == passed
                {
                    byte ^= mask;
                }
                passed += 1;
                if to.write_u8(byte).await.is_err() {
                    return;
                }
            }
        }
    };
    // Each side hangs up when it is done, as they do in earnest.
    let host = async move { handshake::connect(&mut host, host_secret).await };
    let guest = async move { handshake::accept(&mut guest, guest_secret).await };
    let (host, guest, ()) = tokio::join!(host, guest, relay);
    (host, guest)
}

#[test]
fn a_handshake_needs_one_secret_and_one_version() {
    let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
    let (host, guest) = block_on(tampered(&one, &one, None));
    assert_eq!(
        (host.unwrap(), guest.unwrap()),
        (
            agent_protocol::NEWEST_VERSION,
            agent_protocol::NEWEST_VERSION
        )
    );
    let (host, guest) = block_on(tampered(&one, &other, None));
    assert!(matches!(host, Err(HandshakeError::WrongSecret)), "{host:?}");
    assert!(
        matches!(guest, Err(HandshakeError::WrongSecret)),
        "{guest:?}"
    );

    let old = Versions {
        oldest: 1,
        newest: 4,
    };
    for (new, agreed) in [
        ((3, 9), Some(4)),
        ((5, 9), None),
        ((1, 2), Some(2)),
        ((0, 0), None),
    ] {
        let new = Versions {
            oldest: new.0,
            newest: new.1,
        };
        let (mut host, mut guest) = tokio::io::duplex(256);
        let (host, guest) = block_on(async {
            tokio::join!(
                handshake::connect_as(&mut host, &one, old),
                handshake::accept_as(&mut guest, &one, new)
            )
        });
        assert_eq!(
            (host.as_ref().ok(), guest.as_ref().ok()),
            (agreed.as_ref(), agreed.as_ref())
        );
        if agreed.is_none() {
            let expected = HandshakeError::Version {
                ours: old,
                theirs: new,
            };
            assert_eq!(host.unwrap_err().to_string(), expected.to_string());
        }
    }
}

/// A stranger that answers with the host's own proof, and one that replays a recorded conversation.
#[test]
fn a_proof_is_worth_nothing_to_another() {
    let secret = Secret::from_bytes([9; 32]);
    let (mut host, mut stranger) = tokio::io::duplex(256);
    let mirror = async move {
        let mut hello = [0; 44];
        stranger.read_exact(&mut hello).await.unwrap();
        // A welcome with the host's own nonce.
        let mut welcome = hello[..8].to_vec();
        welcome.extend([agent_protocol::NEWEST_VERSION.to_le_bytes(); 3].concat());
        welcome.extend(&hello[12..]);
        stranger.write_all(&welcome).await.unwrap();
        let mut proof = [0; 32];
        stranger.read_exact(&mut proof).await.unwrap();
        stranger.write_u8(1).await.unwrap();
        stranger.write_all(&proof).await.unwrap();
    };
    let (result, ()) =
        block_on(async { tokio::join!(handshake::connect(&mut host, &secret), mirror) });
    assert!(
        matches!(result, Err(HandshakeError::WrongSecret)),
        "{result:?}"
    );

    let record = block_on(async {
        let (mut host, mut tap_host) = tokio::io::duplex(256);
        let (mut tap_guest, mut guest) = tokio::io::duplex(256);
        let tap = async move {
            let mut said = vec![0; 44];
            tap_host.read_exact(&mut said).await.unwrap();
            tap_guest.write_all(&said).await.unwrap();
            let mut welcome = [0; 46];
            tap_guest.read_exact(&mut welcome).await.unwrap();
            tap_host.write_all(&welcome).await.unwrap();
            let mut proof = [0; 32];
            tap_host.read_exact(&mut proof).await.unwrap();
            said.extend(proof);
            said
        };
        let accepted = handshake::accept(&mut guest, &secret);
        let (said, _, _) = tokio::join!(tap, handshake::connect(&mut host, &secret), async {
            // Ends when the tap is dropped: the proof was kept from it.
            let _ = accepted.await;
        });
        said
    });
    let replayed = block_on(async {
        let mut stream = tokio::io::join(record.as_slice(), tokio::io::sink());
        handshake::accept(&mut stream, &secret).await
    });
    assert!(
        matches!(replayed, Err(HandshakeError::WrongSecret)),
        "{replayed:?}"
    );
}

#[test]
fn limits_are_kept() {
    // Exactly as much as fits, and one more.
    let request = |length| ToAgent::Input {
        id: RequestId(1),
        input: Input::Data(Bytes(vec![0; length])),
    };
    let overhead = codec::encode(&request(0)).unwrap().len();
    assert_eq!(
        codec::encode(&request(MAX_FRAME - overhead)).unwrap().len(),
        MAX_FRAME
    );
    assert!(codec::encode(&request(MAX_FRAME - overhead + 1)).is_err());

    let mut list = Vec::new();
    for _ in 0..=MAX_ITEMS {
        list.push(String::new());
    }
    let exec = |argv| {
        Request::Exec(ExecRequest {
            argv,
            env: Vec::new(),
            cwd: None,
            user: None,
            stdin: false,
            terminal: None,
        })
    };
    let too_many = codec::encode(&exec(list.clone())).unwrap();
    assert!(codec::decode::<Request>(&too_many).is_err());
    list.pop();
    let enough = codec::encode(&exec(list)).unwrap();
    assert!(codec::decode::<Request>(&enough).is_ok());

    let mut trailing = codec::encode(&Request::Ping).unwrap();
    trailing.push(0);
    assert!(codec::decode::<Request>(&trailing).is_err());

    let announced = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
    let refused = block_on(frame::read_bytes(&mut announced.as_slice()));
    assert!(
        matches!(refused, Err(frame::FrameError::TooLarge(_))),
        "{refused:?}"
    );
}

#[test]
fn a_secret_is_shown_nowhere_and_read_back_exactly() {
    let secret = Secret::generate().unwrap();
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    let again: Secret = format!(" {}\n", secret.to_hex().to_uppercase())
        .parse()
        .unwrap();
    assert_eq!(again.to_hex(), secret.to_hex());
    for wrong in ["", "ab", &"g".repeat(64), &"a".repeat(65), &"ä".repeat(32)] {
        assert!(wrong.parse::<Secret>().is_err(), "{wrong}");
    }
}
