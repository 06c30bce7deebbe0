//! Counts the frames that a client sends: the WebSocket library puts the pieces of a message together without a word,
//! and pieces that carry next to nothing make as much work as messages do.

/// A piece of a message with so many bytes or more is no flood: the message may not be longer than its limit.
const WORTH: u64 = 1024;
/// FIN: the last frame of its message.
const LAST: u8 = 0x80;
/// The opcodes of control frames have this bit; those frames are messages by themselves.
const CONTROL: u8 = 0x08;
/// The longest header: two bytes, eight of length, four of the mask.
const HEADER: usize = 14;

/// Walks along the bytes of a connection. What breaks the protocol is the library's business; it ends the connection.
#[derive(Default)]
pub struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that are here.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
    /// Pieces that carry next to nothing, since they were last asked for.
    scraps: u32,
}

impl Frames {
    /// The next bytes of the client.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == header_length(&self.header, self.have) {
                self.left = self.begin();
                self.have = 0;
            }
        }
    }

    /// A header is complete: notes what it begins, and gives the length of its payload.
    fn begin(&mut self) -> u64 {
        let length = match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => u64::from_be_bytes(std::array::from_fn(|at| self.header[2 + at])),
            short => u64::from(short),
        };
        let is_piece = self.header[0] & (LAST | CONTROL) == 0;
        if is_piece && length < WORTH {
            self.scraps = self.scraps.saturating_add(1);
        }
        length
    }

    /// How many pieces that carry next to nothing came since the last call. The last piece of a message is not among
    /// them: with it the message comes, and counts.
    pub fn take_scraps(&mut self) -> u32 {
        std::mem::take(&mut self.scraps)
    }

    /// As many as [`Self::take_scraps`] would give.
    pub fn scraps(&self) -> u32 {
        self.scraps
    }
}

/// How long a header is of which so many bytes are here.
fn header_length(header: &[u8; HEADER], have: usize) -> usize {
    if have < 2 {
        return 2;
    }
    let mask = if header[1] & 0x80 == 0 { 0 } else { 4 };
    mask + match header[1] & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    fn piece(length: usize, code: Data, is_last: bool) -> Vec<u8> {
        bytes_of(Frame::message(vec![b'x'; length], OpCode::Data(code), is_last))
    }

    fn bytes_of(mut frame: Frame) -> Vec<u8> {
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        let mut bytes = Vec::new();
        frame.header().format(frame.payload().len() as u64, &mut bytes).expect("into memory");
        bytes.extend_from_slice(frame.payload());
        bytes
    }

    fn scraps(bytes: &[u8], at_once: usize) -> u32 {
        let mut frames = Frames::default();
        bytes.chunks(at_once).for_each(|some| frames.feed(some));
        assert_eq!((frames.have, frames.left), (0, 0), "frames are complete");
        frames.take_scraps()
    }

    #[test]
    fn pieces_that_carry_little_count_and_whole_messages_and_large_pieces_do_not() {
        let ping = bytes_of(Frame::ping(vec![b'x'; 9]));
        let cases: [(Vec<Vec<u8>>, u32); 5] = [
            (vec![piece(0, Data::Text, true), piece(5, Data::Text, true), piece(70_000, Data::Text, true)], 0),
            (vec![piece(0, Data::Text, false), piece(0, Data::Continue, false), piece(0, Data::Continue, true)], 2),
            (vec![piece(1, Data::Text, false), ping, piece(1023, Data::Continue, false)], 2),
            (vec![piece(1024, Data::Text, false), piece(70_000, Data::Continue, false)], 0),
            (vec![piece(4_000, Data::Text, false), piece(1, Data::Continue, true)], 0),
        ];
        for (frames, count) in cases {
            let bytes = frames.concat();
            for at_once in [1, 2, 3, 7, 512, bytes.len()] {
                assert_eq!(scraps(&bytes, at_once), count, "{} bytes at once", at_once);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked_along(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..500)) {
            let mut frames = Frames::default();
            bytes.chunks(7).for_each(|some| frames.feed(some));
        }
    }
}
