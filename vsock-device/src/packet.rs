//! The header in front of everything on the rings (virtio 1.2, 5.10.6).

/// The host's CID (vsock(7), `VMADDR_CID_HOST`).
pub const HOST_CID: u64 = 2;

/// Size of a header, in bytes.
pub const HEADER: usize = 44;

/// Most payload of one packet that is accepted or sent, in bytes: what Linux sends at most.
pub const PAYLOAD: usize = 64 * 1024;

/// `VIRTIO_VSOCK_TYPE_STREAM`, the only type there is here.
pub const STREAM: u16 = 1;

/// What a packet is for.
pub mod op {
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// Accepts one.
    pub const RESPONSE: u16 = 2;
    /// Refuses or ends one at once.
    pub const RST: u16 = 3;
    /// Says what its sender will not do any more, see [`super::shutdown`].
    pub const SHUTDOWN: u16 = 4;
    /// Carries data.
    pub const RW: u16 = 5;
    /// Says how much room there is.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks how much room there is.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`].
pub mod shutdown {
    /// No more data will be received.
    pub const RECEIVE: u32 = 1;
    /// No more data will be sent.
    pub const SEND: u32 = 2;
    /// Both.
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// A header. All numbers are little-endian on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// CID of the sender.
    pub src_cid: u64,
    /// CID of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes of payload that follow.
    pub len: u32,
    /// [`STREAM`].
    pub kind: u16,
    /// One of [`op`].
    pub op: u16,
    /// [`shutdown`].
    pub flags: u32,
    /// How many bytes the sender can hold for this connection.
    pub buf_alloc: u32,
    /// How many bytes the sender has taken out of that so far, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads a header off the wire. Every content is a header; what it means is another question.
    pub fn decode(bytes: &[u8; HEADER]) -> Header {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Header {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// The header as it is on the wire.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put =
            |at: usize, number: &[u8]| bytes[at..at + number.len()].copy_from_slice(number);
        put(0, &self.src_cid.to_le_bytes());
        put(8, &self.dst_cid.to_le_bytes());
        put(16, &self.src_port.to_le_bytes());
        put(20, &self.dst_port.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &self.kind.to_le_bytes());
        put(30, &self.op.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_specification_says() {
        let header = Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            src_port: 0x0102_0304,
            dst_port: 5000,
            len: 7,
            kind: STREAM,
            op: op::RW,
            flags: shutdown::BOTH,
            buf_alloc: 0x4_0000,
            fwd_cnt: u32::MAX,
        };
        let bytes = header.encode();
        assert_eq!(&bytes[..8], &[3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[16..20], &[4, 3, 2, 1]);
        assert_eq!(&bytes[24..32], &[7, 0, 0, 0, 1, 0, 5, 0]);
        assert_eq!(&bytes[40..], &[0xff; 4]);
        assert_eq!(Header::decode(&bytes), header);
    }
}
