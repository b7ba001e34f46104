//! Builds with every program of the host replaced by `fake-tool.sh`: what runs when, what is left
//! behind, and what is said when something fails. Each build is a process of its own, since it needs
//! an environment of its own and some are killed.

mod archive;
mod evidence;
mod failures;
mod faults;
mod formats;
mod kernel;
mod lab;
mod mirrors;
mod schema;
mod source;
mod stages;
mod template;
mod test_programs;

use libtest_mimic::{Arguments, Trial};

fn main() {
    keeper::hook();
    if let Some(scenario) = std::env::var_os(lab::BUILDER) {
        return lab::be_the_builder(scenario.as_ref());
    }
    let trials = [
        stages::TRIALS,
        evidence::TRIALS,
        failures::TRIALS,
        faults::TRIALS,
        formats::TRIALS,
        mirrors::TRIALS,
        kernel::TRIALS,
        source::TRIALS,
        template::TRIALS,
        test_programs::TRIALS,
    ]
    .concat();
    let trials = trials
        .into_iter()
        .map(|(name, test)| Trial::test(name, move || test().map_err(Into::into)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
