//! Repairs frames from the broker that lapin cannot parse, without changing their length.
//!
//! Publishers choose the bytes of AMQP names and short strings (AMQP 0-9-1 §4.2.5.3). lapin requires UTF-8 and closes
//! the connection otherwise. It also parses nested tables by recursion: the ten thousand or so that fit into one frame
//! overflow the stack and end the process. One such message would harm all other readers of the connection, and no tool
//! could display it.

/// Replaces a byte that is not UTF-8: ASCII's SUBSTITUTE character.
pub(super) const SUBSTITUTE: u8 = 0x1A;
/// Maximum depth of nested tables and arrays; deeper ones are relabelled as bytes.
const NESTED_MAX: usize = 32;
/// Size in bytes of the header and of the end of a frame (§4.2.3).
const FRAME_HEAD: usize = 7;
const FRAME_END: usize = 1;
/// Maximum size in bytes of a frame that is repaired. The negotiated maximum is 128 KiB; a larger frame passes
/// unchanged.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Number of consumed bytes at which the buffer is compacted.
const TAKEN_MAX: usize = 256 * 1024;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const DELIVER: [u8; 4] = [0, 60, 0, 60];
const RETURN: [u8; 4] = [0, 60, 0, 50];

/// Buffers a stream of frames that arrives in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Length of the consumed prefix of `bytes`.
    taken: usize,
    /// Length of the repaired prefix of `bytes`.
    repaired: usize,
    /// Number of bytes still to pass without a repair.
    passing: usize,
}

impl Frames {
    /// Appends bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            (self.taken, self.repaired) = (0, 0);
        }
        self.bytes.extend_from_slice(bytes);
        self.read_on();
    }

    /// Marks the end of the stream: an incomplete frame passes unchanged.
    pub(super) fn end(&mut self) {
        self.repaired = self.bytes.len();
    }

    /// Moves repaired bytes into `out`; returns their number.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let ready = self.bytes.get(self.taken..self.repaired).unwrap_or_default();
        let length = ready.len().min(out.len());
        out[..length].copy_from_slice(&ready[..length]);
        self.taken += length;
        length
    }

    fn read_on(&mut self) {
        loop {
            let passed = self.passing.min(self.bytes.len() - self.repaired);
            self.repaired += passed;
            self.passing -= passed;
            let rest = self.bytes.get_mut(self.repaired..).unwrap_or_default();
            let Some(&[kind, _, _, a, b, c, d]) = rest.first_chunk::<FRAME_HEAD>() else { break };
            let payload = u32::from_be_bytes([a, b, c, d]) as usize;
            let length = FRAME_HEAD.saturating_add(payload).saturating_add(FRAME_END);
            let repair: fn(&mut [u8]) -> Option<()> = match kind {
                METHOD => repair_method,
                CONTENT_HEADER => repair_properties,
                _ => |_| None,
            };
            if matches!(kind, METHOD | CONTENT_HEADER) && length <= FRAME_BYTES_MAX {
                let Some(frame) = rest.get_mut(FRAME_HEAD..length - FRAME_END) else { break };
                // lapin reports a frame that cannot be parsed.
                let _ = repair(frame);
            }
            self.passing = length;
        }
        // Not for every frame, because moving bytes is expensive.
        if self.taken > TAKEN_MAX {
            self.bytes.drain(..self.taken);
            self.repaired -= self.taken;
            self.taken = 0;
        }
    }
}

/// Splits off and returns the first `length` bytes.
fn cut<'a>(bytes: &mut &'a mut [u8], length: usize) -> Option<&'a mut [u8]> {
    bytes.split_off_mut(..length)
}

fn long(bytes: &mut &mut [u8]) -> Option<usize> {
    Some(u32::from_be_bytes(cut(bytes, 4)?.try_into().ok()?) as usize)
}

/// Repairs a short string: a length byte and its text.
fn repair_short(bytes: &mut &mut [u8]) -> Option<()> {
    let length = cut(bytes, 1)?.first().copied()?;
    let mut text = cut(bytes, length.into())?;
    while let Err(error) = std::str::from_utf8(text) {
        let from = error.valid_up_to();
        let until = error.error_len().map_or(text.len(), |length| from + length);
        text.get_mut(from..until)?.fill(SUBSTITUTE);
        text = text.get_mut(until..)?;
    }
    Some(())
}

/// Repairs the names in the method of a delivery or of a returned message (§1.8.3.13, §1.8.3.10).
fn repair_method(mut payload: &mut [u8]) -> Option<()> {
    let bytes = &mut payload;
    let method = cut(bytes, 4)?;
    if method == DELIVER {
        repair_short(bytes)?;
        // Delivery tag, redelivered.
        cut(bytes, 8 + 1)?;
    } else if method == RETURN {
        cut(bytes, 2)?;
        repair_short(bytes)?;
    } else {
        return None;
    }
    repair_short(bytes)?;
    repair_short(bytes)
}

/// Repairs the properties of a message (§4.2.6.1, in the order of §1.8.1).
fn repair_properties(mut payload: &mut [u8]) -> Option<()> {
    enum Property {
        Short,
        Table,
        Bytes(usize),
    }
    use Property::{Bytes, Short, Table};
    /// Types of the properties, from the highest bit of the flags on.
    const ORDER: [Property; 14] =
        [Short, Short, Table, Bytes(1), Bytes(1), Short, Short, Short, Short, Bytes(8), Short, Short, Short, Short];
    let bytes = &mut payload;
    // Class, weight, size of the body.
    cut(bytes, 2 + 2 + 8)?;
    let flags = u16::from_be_bytes(cut(bytes, 2)?.try_into().ok()?);
    for (bit, property) in (2..16).rev().zip(ORDER) {
        if flags & (1 << bit) == 0 {
            continue;
        }
        match property {
            Short => repair_short(bytes)?,
            Table => {
                let length = long(bytes)?;
                repair_fields(cut(bytes, length)?, true, 1)?;
            }
            Bytes(length) => drop(cut(bytes, length)?),
        }
    }
    Some(())
}

/// Repairs the fields of a table (`named`) or of an array (§4.2.5.5, with RabbitMQ's errata).
fn repair_fields(mut fields: &mut [u8], named: bool, depth: usize) -> Option<()> {
    let bytes = &mut fields;
    while !bytes.is_empty() {
        if named {
            repair_short(bytes)?;
        }
        let kind = cut(bytes, 1)?.first_mut()?;
        let length = match *kind {
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'V' => 0,
            b'S' | b'x' | b'A' | b'F' => long(bytes)?,
            _ => return None,
        };
        let value = cut(bytes, length)?;
        match *kind {
            b'A' | b'F' if depth >= NESTED_MAX => *kind = b'x',
            b'A' => repair_fields(value, false, depth + 1)?,
            b'F' => repair_fields(value, true, depth + 1)?,
            _ => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn short(text: &[u8]) -> Vec<u8> {
        [&[text.len() as u8], text].concat()
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 1][..], &long(payload), &[0xCE]].concat()
    }

    fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
        frame(CONTENT_HEADER, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &flags.to_be_bytes(), properties].concat())
    }

    /// Passes a stream through [`Frames`]: pushed in pieces of `size` bytes, taken in pieces of at most `room` bytes.
    fn through(stream: &[u8], size: usize, room: usize) -> Vec<u8> {
        let (mut frames, mut out, mut buffer) = (Frames::default(), Vec::new(), vec![0; room]);
        let mut drain = |frames: &mut Frames| {
            loop {
                match frames.take(&mut buffer) {
                    0 => break,
                    length => out.extend_from_slice(&buffer[..length]),
                }
            }
        };
        for piece in stream.chunks(size) {
            frames.push(piece);
            drain(&mut frames);
        }
        frames.end();
        drain(&mut frames);
        out
    }

    #[test]
    fn short_strings_become_utf_8_and_other_bytes_stay() {
        let fields = |name: &[u8]| {
            let inner = [short(name), b"t\x01".to_vec()].concat();
            let bytes = [&b"S"[..], &long(b"\xFF\xFE")].concat();
            [short(b"kept"), bytes, short("\u{e9}".as_bytes()), b"F".to_vec(), long(&inner)].concat()
        };
        // Headers, correlation id, timestamp and type.
        let flags = 1 << 13 | 1 << 10 | 1 << 6 | 1 << 5;
        let message = |name: &[u8], id: &[u8], kind: &[u8]| {
            header(flags, &[long(&fields(name)), short(id), vec![0xFF; 8], short(kind)].concat())
        };
        let body = frame(3, b"\xFF\xFFbody");
        let deliver = |key: &[u8]| {
            let tag = [0, 0, 0, 0, 0, 0, 0, 0xFF, 1];
            frame(METHOD, &[&DELIVER[..], &short(b"tag"), &tag, &short(b"work"), &short(key)].concat())
        };
        let received = [deliver(b"k\xC3"), message(b"\xFFn", b"a\xE2\x82z", b"\xFF\xFE"), body.clone()].concat();
        let repaired = [deliver(b"k\x1A"), message(b"\x1An", b"a\x1A\x1Az", b"\x1A\x1A"), body].concat();
        for size in [1, 7, 1_000] {
            assert_eq!(through(&received, size, 5), repaired);
        }
    }

    #[test]
    fn a_table_nested_too_deep_becomes_bytes() {
        let mut nested = Vec::new();
        for _ in 0..26_000 {
            nested = [&b"A"[..], &long(&nested)].concat();
            if nested.len() > 130_000 {
                break;
            }
        }
        let headers = [short(b"deep"), nested].concat();
        let received = header(1 << 13, &long(&headers));
        let repaired = through(&received, 4_096, 4_096);
        let changed: Vec<usize> = (0..received.len()).filter(|at| received[*at] != repaired[*at]).collect();
        let [at] = changed[..] else { panic!("{} bytes changed", changed.len()) };
        assert_eq!((received[at], repaired[at], received.len()), (b'A', b'x', repaired.len()));
    }

    proptest! {
        #[test]
        fn a_stream_keeps_its_length_and_does_not_depend_on_its_pieces(
            frames in proptest::collection::vec((0u8..5, proptest::collection::vec(any::<u8>(), 0..80)), 0..8),
            rest in proptest::collection::vec(any::<u8>(), 0..20), size in 1usize..50
        ) {
            let mut stream: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            stream.extend(rest);
            let whole = through(&stream, usize::MAX, 1 << 16);
            prop_assert_eq!(whole.len(), stream.len());
            prop_assert_eq!(through(&whole, size, 3), whole.clone(), "a repaired stream stays unchanged");
            prop_assert_eq!(through(&stream, size, 64), whole);
        }
    }
}
