//! Where a value ends, by its brackets and strings alone.

/// Finds the end of one value, fed in pieces of any size, in constant memory. What stands between brackets and strings is
/// not looked at, so that a value that breaks the grammar may still have an end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Skim {
    depth: u64,
    in_string: bool,
    is_escaped: bool,
    /// The last byte outside of strings that is no white space; `"` for a string.
    last: u8,
    seam: Seam,
    has_array_of_objects: bool,
    is_misaligned: bool,
}

/// How much was seen of the bytes `}`, an optional comma and `{`, whether in strings or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Seam {
    #[default]
    None,
    Closed,
    Seen,
}

/// Where a feed stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The value ends before this index.
    Balanced(usize),
    /// At the line feed with this index, before which the value has no end.
    LineEnd(usize),
    /// At this index a string stands where none can, or holds a control character: a quote is missing or too many before.
    Misaligned(usize),
    /// The bytes ended first.
    Open,
}

/// What ends the search before the value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Nothing.
    Balanced,
    /// The end of the line.
    LineEnd,
    /// A misaligned string.
    Misaligned,
}

impl Skim {
    /// Looks at the next bytes of a value that starts with a bracket or a quote.
    pub fn feed(&mut self, bytes: &[u8], until: Until) -> Stop {
        for (at, byte) in bytes.iter().copied().enumerate() {
            if byte == b'\n' && until == Until::LineEnd {
                return Stop::LineEnd(at);
            }
            self.look_for_seam(byte);
            if self.in_string {
                self.within_string(byte);
            } else if !byte.is_ascii_whitespace() {
                self.outside(byte);
            }
            if self.is_misaligned && until == Until::Misaligned {
                return Stop::Misaligned(at);
            }
            if self.depth == 0 && !self.in_string && !byte.is_ascii_whitespace() {
                return Stop::Balanced(at + 1);
            }
        }
        Stop::Open
    }

    /// Whether two objects seem to stand one after the other, in strings or not.
    pub fn has_seam(&self) -> bool {
        self.seam == Seam::Seen
    }

    /// Whether an array with an object in it was seen.
    pub fn has_array_of_objects(&self) -> bool {
        self.has_array_of_objects
    }

    /// Whether a string stands where none can or holds a control character: a quote is missing or too many before.
    pub fn is_misaligned(&self) -> bool {
        self.is_misaligned
    }

    /// Looks at bytes whose end is known otherwise, for a seam alone.
    pub fn look_for_seams(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.look_for_seam(*byte));
    }

    fn look_for_seam(&mut self, byte: u8) {
        self.seam = match (self.seam, byte) {
            (Seam::Seen, _) | (Seam::Closed, b'{') => Seam::Seen,
            (_, b'}') | (Seam::Closed, b',' | b' ' | b'\t' | b'\r' | b'\n') => Seam::Closed,
            _ => Seam::None,
        };
    }

    fn within_string(&mut self, byte: u8) {
        if self.is_escaped {
            self.is_escaped = false;
            return;
        }
        match byte {
            b'\\' => self.is_escaped = true,
            b'"' => {
                self.in_string = false;
                self.last = b'"';
            }
            byte => self.is_misaligned |= byte < 0x20,
        }
    }

    fn outside(&mut self, byte: u8) {
        let may_precede_string = matches!(self.last, 0 | b'{' | b'[' | b',' | b':');
        let may_follow_string = matches!(byte, b':' | b',' | b']' | b'}');
        self.is_misaligned |= (byte == b'"' && !may_precede_string) || (self.last == b'"' && !may_follow_string);
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.has_array_of_objects |= byte == b'{' && self.last == b'[';
        self.last = byte;
    }
}
