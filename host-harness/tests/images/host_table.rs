//! The troubles of a host, as data. What an unusual row says comes last.

use super::{Ends, Row, Trouble, When};

/// Most of a row.
const USUAL: Row = Row {
    name: "",
    about: "",
    when: When::Point("mounted"),
    trouble: Trouble::None,
    lasts: 1,
    nightly: false,
    boots: false,
    ends: Ends::Told,
};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    Row { name: "quiet", about: "nothing: what all others are held against", ends: Ends::Undisturbed, ..USUAL },

    Row { name: "daemon_killed_boot", about: "the vsock daemon is killed while the machine to freeze boots",
          when: When::Boot, trouble: Trouble::DaemonKilled, boots: true, nightly: true, ..USUAL },
    Row { name: "daemon_killed_settle", about: "the same, while it comes to rest",
          when: When::Settle, trouble: Trouble::DaemonKilled, boots: true, nightly: true, ..USUAL },
    Row { name: "daemon_killed_freeze", about: "the same, when it is about to be frozen",
          when: When::Freeze, trouble: Trouble::DaemonKilled, boots: true, nightly: true, ends: Ends::Either, ..USUAL },
    Row { name: "daemon_killed_fork", about: "the same, while a fork is restored",
          when: When::Fork, trouble: Trouble::DaemonKilled, ..USUAL },
    Row { name: "daemon_killed_story", about: "the same, in the middle of a story",
          trouble: Trouble::DaemonKilled, ..USUAL },
    Row { name: "daemon_killed_off", about: "the same, while the guest powers off",
          when: When::Point("off"), trouble: Trouble::DaemonKilled, nightly: true, ..USUAL },
    Row { name: "daemon_always_killed", about: "the same, in the middle of every story",
          trouble: Trouble::DaemonKilled, lasts: 9,
          ends: Ends::Infrastructure("the vsock device of the machine ended"), ..USUAL },

    Row { name: "qemu_killed_boot", about: "QEMU is killed while the machine to freeze boots",
          when: When::Boot, trouble: Trouble::QemuKilled, boots: true, nightly: true, ..USUAL },
    Row { name: "qemu_killed_settle", about: "the same, while it comes to rest",
          when: When::Settle, trouble: Trouble::QemuKilled, boots: true, nightly: true, ..USUAL },
    Row { name: "qemu_killed_freeze", about: "the same, when it is about to be frozen",
          when: When::Freeze, trouble: Trouble::QemuKilled, boots: true, nightly: true, ..USUAL },
    Row { name: "qemu_killed_fork", about: "the same, while a fork is restored",
          when: When::Fork, trouble: Trouble::QemuKilled, ..USUAL },
    Row { name: "qemu_killed_story", about: "the same, in the middle of a story",
          trouble: Trouble::QemuKilled, ..USUAL },
    Row { name: "qemu_killed_off", about: "the same, while the guest powers off",
          when: When::Point("off"), trouble: Trouble::QemuKilled, nightly: true, ..USUAL },
    Row { name: "qemu_always_killed", about: "the same, whenever a fork is restored",
          when: When::Fork, trouble: Trouble::QemuKilled, lasts: 99,
          ends: Ends::Infrastructure("QEMU ended with signal: 9"), ..USUAL },
    Row { name: "qemu_terminated_story", about: "QEMU is told to end (SIGTERM) in the middle of a story",
          trouble: Trouble::QemuTerminated, ..USUAL },

    Row { name: "qemu_stopped_story", about: "QEMU is stopped for 20 s in the middle of a story",
          trouble: Trouble::QemuStopped(20), ends: Ends::Either, nightly: true, ..USUAL },
    Row { name: "qemu_stopped_briefly", about: "the same, for 6 s: longer than any wait for an answer",
          trouble: Trouble::QemuStopped(6), ends: Ends::Undisturbed, ..USUAL },
    Row { name: "qemu_stopped_boot", about: "the same, for 20 s while the machine to freeze boots",
          when: When::Boot, trouble: Trouble::QemuStopped(20), boots: true, nightly: true, ends: Ends::Either, ..USUAL },
    Row { name: "qemu_stopped_fork", about: "the same, for 20 s while a fork is restored",
          when: When::Fork, trouble: Trouble::QemuStopped(20), nightly: true, ends: Ends::Either, ..USUAL },

    Row { name: "shm_small", about: "/dev/shm has the 64 MiB of a container",
          trouble: Trouble::ShmOf(64), lasts: 99, ends: Ends::Infrastructure("/dev/shm"), ..USUAL },
    Row { name: "shm_fills", about: "somebody else fills /dev/shm in the middle of a story",
          trouble: Trouble::ShmFills, ends: Ends::Told, ..USUAL },
    Row { name: "disk_fills", about: "the disk with the machine's overlay is full in the middle of a story",
          trouble: Trouble::DiskFills, ends: Ends::Told, ..USUAL },
    Row { name: "disk_stays_full", about: "the same, in every story",
          trouble: Trouble::DiskFills, lasts: 99, ends: Ends::Infrastructure("disk is full"), ..USUAL },

    Row { name: "load_of_eight", about: "eight busy processes beside it",
          trouble: Trouble::Load(8), lasts: 99, ends: Ends::Either, ..USUAL },
    Row { name: "load_of_eight_boot", about: "the same, while the machine to freeze boots",
          when: When::Boot, trouble: Trouble::Load(8), lasts: 99, boots: true, nightly: true, ends: Ends::Either },
    Row { name: "clock_jumps", about: "the host's clock jumps an hour ahead in the middle of a story",
          trouble: Trouble::ClockJumps, ends: Ends::Undisturbed, ..USUAL },
    Row { name: "tickets_of_the_dead", about: "all tickets were held by a process that has been killed",
          trouble: Trouble::TicketsOfTheDead, ends: Ends::Undisturbed, ..USUAL },
];
