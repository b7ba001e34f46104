//! Who may still send how much (virtio 1.2, 5.10.6.3): each side says how much it can hold and how
//! much of that it has passed on, both counted since the connection began, modulo 2^32.

/// How many bytes of the guest's we hold for one connection: what Linux allows a socket by itself.
pub const ROOM: u32 = 256 * 1024;

/// The accounts of one connection.
#[derive(Debug, Default)]
pub struct Credit {
    /// Sent to the guest.
    sent: u32,
    /// What the guest can hold, in its words.
    guest_room: u32,
    /// What the guest has passed on, in its words.
    guest_passed: u32,
    /// Received from the guest.
    received: u32,
    /// Passed on to the host's program.
    passed: u32,
    /// `passed` as last told to the guest.
    told: u32,
}

impl Credit {
    /// What the guest says of its side, which comes with each of its packets.
    pub fn hear(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.guest_room = buf_alloc;
        self.guest_passed = fwd_cnt;
    }

    /// How many bytes may be sent to the guest now. A guest that claims to have passed on what it
    /// never got has none.
    pub fn allowed(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.guest_passed);
        self.guest_room.saturating_sub(under_way)
    }

    /// Bytes are on their way to the guest.
    pub fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Bytes came from the guest. False when they are more than it was allowed to send.
    #[must_use]
    pub fn receive(&mut self, bytes: u32) -> bool {
        let held = self.received.wrapping_sub(self.passed);
        if bytes > ROOM.saturating_sub(held) {
            return false;
        }
        self.received = self.received.wrapping_add(bytes);
        true
    }

    /// Bytes of the guest's were passed on.
    pub fn pass(&mut self, bytes: u32) {
        self.passed = self.passed.wrapping_add(bytes);
    }

    /// Whether the guest believes that there is little room although there is more: worth a packet
    /// of its own. An eighth at a time, so that a slow reader does not cause one per byte.
    pub fn stale(&self) -> bool {
        let believed = ROOM.saturating_sub(self.received.wrapping_sub(self.told));
        let news = self.passed.wrapping_sub(self.told);
        let drained = self.received == self.passed;
        believed < ROOM / 2 && (news >= ROOM / 8 || drained && news > 0)
    }

    /// `buf_alloc` and `fwd_cnt` of a packet that is about to go to the guest.
    pub fn tell(&mut self) -> (u32, u32) {
        self.told = self.passed;
        (ROOM, self.passed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_under_way_counts_until_the_guest_has_passed_it_on() {
        let mut credit = Credit::default();
        assert_eq!(credit.allowed(), 0, "nothing is known of the guest yet");
        credit.hear(1000, 0);
        credit.send(400);
        assert_eq!(credit.allowed(), 600);
        credit.hear(1000, 300);
        assert_eq!(credit.allowed(), 900);
        // It shrank what it can hold below what is under way.
        credit.hear(50, 300);
        assert_eq!(credit.allowed(), 0);
        // It lies.
        credit.hear(1000, 5000);
        assert_eq!(credit.allowed(), 0);
    }

    #[test]
    fn the_counts_wrap() {
        let mut credit = Credit {
            sent: u32::MAX - 9,
            guest_passed: u32::MAX - 9,
            guest_room: 100,
            ..Credit::default()
        };
        credit.send(30);
        assert_eq!(credit.allowed(), 70);
        credit.hear(100, 20);
        assert_eq!(credit.allowed(), 100);
    }

    #[test]
    fn a_guest_cannot_send_more_than_fits() {
        let mut credit = Credit::default();
        assert!(credit.receive(ROOM));
        assert!(!credit.receive(1));
        credit.pass(10);
        assert!(credit.receive(10));
        assert!(!credit.receive(1));
    }

    #[test]
    fn the_guest_is_told_of_room_when_it_needs_to_know() {
        let mut credit = Credit::default();
        assert!(credit.receive(ROOM / 4));
        credit.pass(ROOM / 4);
        assert!(!credit.stale(), "it still believes in three quarters");
        assert!(credit.receive(ROOM / 2));
        assert!(credit.stale());
        assert_eq!(credit.tell(), (ROOM, ROOM / 4));
        assert!(!credit.stale(), "there is no news");
        credit.pass(1);
        assert!(!credit.stale());
        credit.pass(ROOM / 8);
        assert!(!credit.stale(), "it believes in a half");
    }

    proptest! {
        /// Whatever happens in whatever order, a guest that waits for credit hears of it once all
        /// it sent is passed on.
        #[test]
        fn nobody_waits_for_ever(steps in proptest::collection::vec((0u32..70_000, 0u32..70_000), 1..200)) {
            let mut credit = Credit::default();
            let mut held = 0;
            let mut believed = ROOM;
            for (send, pass) in steps {
                let send = send.min(believed);
                prop_assert!(credit.receive(send));
                held += send;
                believed -= send;
                let pass = pass.min(held);
                credit.pass(pass);
                held -= pass;
                if credit.stale() {
                    let (room, _) = credit.tell();
                    believed = room - held;
                }
            }
            credit.pass(held);
            prop_assert!(believed >= ROOM / 2 || credit.stale());
        }
    }
}
