//! How fast do messages turn into bytes and back? The agent's output streams go through this.

use agent_protocol::{CHUNK, FromAgent, codec};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use host_harness::perf::codec::message;

fn codec_throughput(criterion: &mut Criterion) {
    let message = message();
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
