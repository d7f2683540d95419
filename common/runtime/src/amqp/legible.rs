//! What came from the broker, made legible to the AMQP library, byte for byte of the same length.
//!
//! AMQP's names and short texts are bytes that any publisher chooses (AMQP 0-9-1 §4.2.5.3). The library takes them for UTF-8
//! and gives the connection up where they are none; and it reads tables within tables by recursion, which some ten
//! thousand of them, as many as fit into one frame, bring to the end of its thread's stack and with it the process. One
//! such message would harm all that read beside it, and could never be looked at.

/// Stands for a byte that is no UTF-8: ASCII's own sign for "something invalid stood here".
pub(super) const SUBSTITUTE: u8 = 0x1A;
/// Tables and arrays in one another at most; what is nested deeper is taken for bytes.
const NESTED_MAX: usize = 32;
/// Bytes before the payload of a frame, and after it (§4.2.3).
const FRAME_HEAD: usize = 7;
const FRAME_END: usize = 1;
/// A frame is never larger than what was negotiated, 128 KiB; what claims to be is passed on as it is.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes that are gone before room is made.
const TAKEN_MAX: usize = 256 * 1024;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const DELIVER: [u8; 4] = [0, 60, 0, 60];
const RETURN: [u8; 4] = [0, 60, 0, 50];

/// A stream of frames on its way, cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Of `bytes`, from the start: gone already.
    taken: usize,
    /// Of `bytes`, from the start: legible.
    legible: usize,
    /// Bytes still to come of a frame that is passed on as it is.
    passing: usize,
}

impl Frames {
    /// More of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            (self.taken, self.legible) = (0, 0);
        }
        self.bytes.extend_from_slice(bytes);
        self.read_on();
    }

    /// The stream has ended: what is left of a frame is passed on as it is.
    pub(super) fn end(&mut self) {
        self.legible = self.bytes.len();
    }

    /// Moves what is legible into `out`; the number of bytes.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let legible = self.bytes.get(self.taken..self.legible).unwrap_or_default();
        let length = legible.len().min(out.len());
        out[..length].copy_from_slice(&legible[..length]);
        self.taken += length;
        length
    }

    fn read_on(&mut self) {
        loop {
            let passed = self.passing.min(self.bytes.len() - self.legible);
            self.legible += passed;
            self.passing -= passed;
            let rest = self.bytes.get_mut(self.legible..).unwrap_or_default();
            let Some(&[kind, _, _, a, b, c, d]) = rest.first_chunk::<FRAME_HEAD>() else { break };
            let payload = u32::from_be_bytes([a, b, c, d]) as usize;
            let length = FRAME_HEAD.saturating_add(payload).saturating_add(FRAME_END);
            let mend: fn(&mut [u8]) -> Option<()> = match kind {
                METHOD => mend_method,
                CONTENT_HEADER => mend_properties,
                _ => |_| None,
            };
            if matches!(kind, METHOD | CONTENT_HEADER) && length <= FRAME_BYTES_MAX {
                let Some(frame) = rest.get_mut(FRAME_HEAD..length - FRAME_END) else { break };
                // Where it cannot be read it is the library's to complain.
                let _ = mend(frame);
            }
            self.passing = length;
        }
        // Not for every frame: moving costs.
        if self.taken > TAKEN_MAX {
            self.bytes.drain(..self.taken);
            self.legible -= self.taken;
            self.taken = 0;
        }
    }
}

/// The first `length` bytes, which `bytes` then goes on after.
fn cut<'a>(bytes: &mut &'a mut [u8], length: usize) -> Option<&'a mut [u8]> {
    bytes.split_off_mut(..length)
}

fn long(bytes: &mut &mut [u8]) -> Option<usize> {
    Some(u32::from_be_bytes(cut(bytes, 4)?.try_into().ok()?) as usize)
}

/// A short text: its length, its bytes.
fn mend_short(bytes: &mut &mut [u8]) -> Option<()> {
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

/// The names a delivery or a returned message came by (§1.8.3.13, §1.8.3.10).
fn mend_method(mut payload: &mut [u8]) -> Option<()> {
    let bytes = &mut payload;
    let method = cut(bytes, 4)?;
    if method == DELIVER {
        mend_short(bytes)?;
        // Delivery tag, redelivered.
        cut(bytes, 8 + 1)?;
    } else if method == RETURN {
        cut(bytes, 2)?;
        mend_short(bytes)?;
    } else {
        return None;
    }
    mend_short(bytes)?;
    mend_short(bytes)
}

/// The properties of a message (§4.2.6.1, in the order of §1.8.1).
fn mend_properties(mut payload: &mut [u8]) -> Option<()> {
    enum Property {
        Short,
        Table,
        Bytes(usize),
    }
    use Property::{Bytes, Short, Table};
    /// From the highest bit of the flags on.
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
            Short => mend_short(bytes)?,
            Table => {
                let length = long(bytes)?;
                mend_fields(cut(bytes, length)?, true, 1)?;
            }
            Bytes(length) => drop(cut(bytes, length)?),
        }
    }
    Some(())
}

/// The fields of a table, which have names, or of an array (§4.2.5.5, with RabbitMQ's errata).
fn mend_fields(mut fields: &mut [u8], named: bool, depth: usize) -> Option<()> {
    let bytes = &mut fields;
    while !bytes.is_empty() {
        if named {
            mend_short(bytes)?;
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
            b'A' => mend_fields(value, false, depth + 1)?,
            b'F' => mend_fields(value, true, depth + 1)?,
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

    /// All of a stream that comes in pieces of `size` bytes, read in pieces of `room`.
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
    fn names_and_short_texts_become_utf_8_and_all_else_stays() {
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
        let came = [deliver(b"k\xC3"), message(b"\xFFn", b"a\xE2\x82z", b"\xFF\xFE"), body.clone()].concat();
        let legible = [deliver(b"k\x1A"), message(b"\x1An", b"a\x1A\x1Az", b"\x1A\x1A"), body].concat();
        for size in [1, 7, 1_000] {
            assert_eq!(through(&came, size, 5), legible);
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_taken_for_bytes() {
        let mut nested = Vec::new();
        for _ in 0..26_000 {
            nested = [&b"A"[..], &long(&nested)].concat();
            if nested.len() > 130_000 {
                break;
            }
        }
        let headers = [short(b"deep"), nested].concat();
        let came = header(1 << 13, &long(&headers));
        let legible = through(&came, 4_096, 4_096);
        let changed: Vec<usize> = (0..came.len()).filter(|at| came[*at] != legible[*at]).collect();
        let [at] = changed[..] else { panic!("{} bytes changed", changed.len()) };
        assert_eq!((came[at], legible[at], came.len()), (b'A', b'x', legible.len()));
    }

    proptest! {
        #[test]
        fn any_stream_keeps_its_length_and_reads_the_same_however_it_is_cut(
            frames in proptest::collection::vec((0u8..5, proptest::collection::vec(any::<u8>(), 0..80)), 0..8),
            rest in proptest::collection::vec(any::<u8>(), 0..20), size in 1usize..50
        ) {
            let mut stream: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            stream.extend(rest);
            let whole = through(&stream, usize::MAX, 1 << 16);
            prop_assert_eq!(whole.len(), stream.len());
            prop_assert_eq!(through(&whole, size, 3), whole.clone(), "what is legible is left alone");
            prop_assert_eq!(through(&stream, size, 64), whole);
        }
    }
}
