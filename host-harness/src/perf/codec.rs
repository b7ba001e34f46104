//! How fast do messages turn into bytes and back? The agent's output streams go through this.

use std::time::{Duration, Instant};

use agent_protocol::{CHUNK, Event, FromAgent, RequestId, codec};

use results::figures::{Direction, Metric};

/// How long one sample encodes, or decodes.
const SAMPLE: Duration = Duration::from_millis(100);

/// A full chunk of a program's output.
pub fn message() -> FromAgent {
    let bytes: Vec<u8> = (0..CHUNK).map(|at| (at * 31 % 251) as u8).collect();
    FromAgent::Event {
        id: RequestId(7),
        event: Event::Stdout(bytes.into()),
    }
}

/// Measures `rounds` times.
///
/// # Errors
/// When the message does not fit into a frame.
pub fn measure(rounds: usize) -> Result<Vec<Metric>, String> {
    let message = message();
    let encoded = codec::encode(&message).map_err(|e| e.to_string())?;
    let metric = |name: &str| Metric::new(name, "codec", "MB/s", Direction::Higher);
    let (mut encode, mut decode) = (metric("codec/encode"), metric("codec/decode"));
    for _ in 0..rounds {
        encode.samples.push(rate(|| {
            std::hint::black_box(codec::encode(std::hint::black_box(&message)).is_ok());
        }));
        decode.samples.push(rate(|| {
            let decoded = codec::decode::<FromAgent>(std::hint::black_box(&encoded));
            std::hint::black_box(decoded.is_ok());
        }));
    }
    Ok(vec![encode, decode])
}

fn rate(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut times = 0u32;
    while begin.elapsed() < SAMPLE {
        work();
        times += 1;
    }
    f64::from(times) * CHUNK as f64 / 1e6 / begin.elapsed().as_secs_f64()
}
