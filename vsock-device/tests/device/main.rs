//! The daemon, driven as QEMU and a guest would, without either. Each daemon is a process of its own:
//! this program started again.

mod cycles;
mod daemon;
mod hostile;
mod program;
mod traffic;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a test is.
type Body = fn() -> Result<(), Failed>;

const TESTS: &[(&str, Body)] = &[
    (
        "none_is_lost_in_hundreds_of_boots_and_resets",
        cycles::hundreds,
    ),
    ("nightly_none_is_lost_in_ten_thousand", cycles::ten_thousand),
    ("a_port_nobody_listens_on_refuses", traffic::refused),
    ("a_connection_waits_for_the_guest", traffic::waits),
    ("a_program_that_gives_up_is_forgotten", traffic::gives_up),
    (
        "more_than_there_is_room_for_wait_their_turn",
        traffic::too_many,
    ),
    (
        "a_reader_that_does_not_read_holds_up_nobody_else",
        traffic::back_pressure,
    ),
    ("each_side_can_end_its_half", traffic::half_close),
    ("a_pause_is_no_reset", traffic::paused),
    ("a_pause_that_does_not_end_is_one", traffic::paused_for_long),
    (
        "the_guest_reaches_programs_on_the_host",
        traffic::from_guest,
    ),
    ("the_next_frontend_is_served", traffic::next_frontend),
    (
        "whatever_the_guest_writes_the_next_one_is_served",
        hostile::packets_and_chains,
    ),
    (
        "a_guest_that_takes_nothing_is_not_listened_to",
        hostile::flood,
    ),
];

fn main() {
    keeper::hook();
    vsock_device::hook();
    let trials = TESTS.iter().map(|(name, body)| Trial::test(*name, *body));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
