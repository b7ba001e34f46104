//! Benchmarks: each file asks one question a user asks, with criterion. `cargo bench --bench boot`.
//!
//! Figures are only comparable between runs on one host: see the accelerator and versions that a
//! benchmark of machines prints before it starts.
