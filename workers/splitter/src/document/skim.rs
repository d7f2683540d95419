//! Finds the end of a value by its brackets and strings alone.

/// Finds the end of one value that arrives in pieces of any size, in constant memory. Bytes between brackets and strings are
/// ignored, so that a value with a syntax error may still have an end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Skim {
    depth: u64,
    in_string: bool,
    is_escaped: bool,
    /// The last byte outside strings that is not white space; `"` for a string.
    last: u8,
    seam: Seam,
    has_array_of_objects: bool,
    is_misaligned: bool,
}

/// The progress of a match of `}`, an optional comma and `{`, in strings or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Seam {
    #[default]
    None,
    Closed,
    Complete,
}

/// Where the search stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The value ends before this index.
    Balanced(usize),
    /// At the line feed with this index, before the end of the value.
    LineEnd(usize),
    /// At this index, where a string is misplaced or has a control character: an earlier quote is missing or superfluous.
    Misaligned(usize),
    /// At the end of the bytes.
    Open,
}

/// What ends the search before the end of the value.
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
    /// Reads the next bytes of a value that starts with a bracket or a quote.
    pub fn feed(&mut self, bytes: &[u8], until: Until) -> Stop {
        for (at, byte) in bytes.iter().copied().enumerate() {
            if byte == b'\n' && until == Until::LineEnd {
                return Stop::LineEnd(at);
            }
            self.find_seam(byte);
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

    /// Returns whether one object seems to follow another, in strings or not.
    pub fn has_seam(&self) -> bool {
        self.seam == Seam::Complete
    }

    /// Returns whether the value has an array with an object.
    pub fn has_array_of_objects(&self) -> bool {
        self.has_array_of_objects
    }

    /// Returns whether a string is misplaced or has a control character: a quote is missing or superfluous.
    pub fn is_misaligned(&self) -> bool {
        self.is_misaligned
    }

    /// Searches bytes for a seam only.
    pub fn find_seams(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.find_seam(*byte));
    }

    fn find_seam(&mut self, byte: u8) {
        self.seam = match (self.seam, byte) {
            (Seam::Complete, _) | (Seam::Closed, b'{') => Seam::Complete,
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
