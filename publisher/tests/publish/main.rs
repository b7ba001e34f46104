//! Bundles, and bringing them to every kind of destination: whole, again, half-way and back.

mod folder;
mod notify;
mod oci;
mod ssh;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};

/// A named test.
type Row = (&'static str, fn() -> Result<(), Failed>);

fn main() {
    keeper::hook();
    let mut trials = Vec::new();
    for (topic, tests) in [
        ("folder", folder::TESTS),
        ("notify", notify::TESTS),
        ("oci", oci::TESTS),
        ("ssh", ssh::TESTS),
    ] {
        let named = tests
            .iter()
            .map(|(name, test)| Trial::test(format!("{topic}::{name}"), *test));
        trials.extend(named);
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
