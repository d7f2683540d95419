//! The states of the parser.

use super::{
    element::Content,
    refusal::Refusal,
    skim::{Skim, Until},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    ItemOrEnd,
    Item,
    CommaOrEnd,
}

/// The context of an array of rides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    /// The document itself, or a sequence.
    Sequence,
    /// A member of an object document.
    Members,
    /// The end of the path `rides_at`.
    Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Start,
    Members(Expect),
    Elements {
        expect: Expect,
        around: Around,
    },
    Sequence {
        /// Whether a comma may follow.
        comma: bool,
    },
    Path(Expect),
    /// Skips an element or a member that is too large for the window.
    Large,
    /// The first value is unreadable; the second line may show that the document is a sequence of lines.
    Undecided,
    Trailing,
    Refused,
}

pub(super) enum Step<T> {
    Again,
    Wait,
    Found { raw: Raw, content: Content<T> },
}

pub(super) enum Raw {
    Window(usize, usize),
    Head,
}

/// The result of reading a value in the window.
pub(super) enum Scan<T> {
    /// The value ends before this index of the window.
    Done(usize, T),
    More,
    Broken(Refusal),
}

/// A value that is too large for the window and whose end is searched.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) skim: Skim,
    pub(super) until: Until,
    /// The form to return to after it.
    pub(super) back: Form,
    /// A refusal at the start of the value.
    pub(super) origin: Refusal,
    /// Whether the value has no brackets and no quotes, so that only the end of the line ends it.
    pub(super) is_word: bool,
    /// Whether the window has a field that only a ride has.
    pub(super) has_measurement: bool,
}

/// The position on the path `rides_at`.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Number of open objects on the path.
    pub(super) depth: usize,
    /// Whether the array was found in the current outermost object.
    pub(super) has_array: bool,
    /// Whether the array was found in any outermost object.
    pub(super) has_any_array: bool,
    /// Names of the members skipped in the innermost object.
    pub(super) names: Vec<String>,
}
