//! How fast do messages turn into bytes and back? The agent's output streams go through this.

use agent_protocol::{CHUNK, Event, FromAgent, RequestId, codec};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn codec_throughput(criterion: &mut Criterion) {
    let bytes: Vec<u8> = (0..CHUNK).map(|at| (at * 31 % 251) as u8).collect();
    let message = FromAgent::Event {
        id: RequestId(7),
        event: Event::Stdout(bytes.into()),
    };
    let encoded = codec::encode(&message).expect("a full chunk fits into a frame");
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    group.bench_function("encode a full chunk of output", |b| {
        b.iter(|| codec::encode(&message))
    });
    group.bench_function("decode a full chunk of output", |b| {
        b.iter(|| codec::decode::<FromAgent>(&encoded));
    });
    group.finish();
}

criterion_group!(benches, codec_throughput);
criterion_main!(benches);
