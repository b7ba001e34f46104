//! `cargo +nightly fuzz run peer -- -max_len=262148 -malloc_limit_mb=2`, in `agent-protocol/`.
#![no_main]

use agent_protocol::fuzzing::bytes_from_a_peer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| bytes_from_a_peer(data));
