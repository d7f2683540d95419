//! A walk through a value, whole or cut, that notes where objects with a ride's fields are.

use common::contract::{
    outcome::shorten,
    reading::{FIELDS, Mapping},
    text,
};
use memchr::memchr2;

/// Most members that are named in a refusal, and most arrays and objects that are noted.
const NOTED_MAX: usize = 16;
/// Bytes of a name that are kept.
const NAME_BYTES_MAX: usize = 40;
/// How deep the walk goes; what lies deeper is passed over.
const DEPTH_MAX: usize = 32;
/// Bits of a set of fields: `statustime`, and the fields that identify a ride, which other objects have as well.
const STATUSTIME: u16 = 1 << 3;
const IDENTITY: u16 = 0b111;

/// What a value holds.
#[derive(Debug, Default)]
pub(in super::super) struct Survey {
    pub(super) is_array: bool,
    /// Names of the first members.
    pub(super) members: Vec<String>,
    pub(super) members_count: u64,
    /// Members that are objects with a ride's field.
    pub(super) rides_as_members: u64,
    /// Which fields of a ride the object has itself.
    fields: u16,
    /// It has a `statustime` that is neither an array nor an object.
    pub(super) has_time: bool,
    /// Of the members that are fields: how many are arrays, objects, anything else.
    pub(super) field_arrays: u64,
    pub(super) field_objects: u64,
    pub(super) field_scalars: u64,
    /// The text of its member `type`.
    pub(super) type_text: Option<String>,
    pub(super) arrays: Vec<Array>,
    /// Objects with a ride's fields that are in no array.
    pub(super) objects: Vec<Inner>,
    /// The value ends within the text.
    pub(super) is_whole: bool,
}

/// An array somewhere in the value.
#[derive(Debug)]
pub(super) struct Array {
    /// Names of the members that lead to the array; `None` where a path of names cannot lead there.
    pub path: Option<Vec<String>>,
    pub elements: u64,
    /// How many of the elements are objects.
    pub objects: u64,
    /// The largest number of a ride's fields that one of the objects has.
    pub fields: u32,
    /// The object nested in an element that has the most of a ride's fields.
    pub within: Option<Inner>,
    pub is_whole: bool,
}

/// An object nested in the value.
#[derive(Debug)]
pub(super) struct Inner {
    pub path: Vec<String>,
    /// How many of a ride's fields it has.
    pub fields: u32,
}

/// An open bracket.
struct Frame {
    is_array: bool,
    /// Members that lead here from the value, or from the element of the array it is in.
    path: Vec<String>,
    /// The array it is, or is in.
    array: Option<usize>,
    /// It is inside an array, at any depth.
    is_in_array: bool,
    /// It is an element of its array.
    is_element: bool,
    fields: u16,
    key: String,
    key_is_next: bool,
}

impl Survey {
    /// Surveys a value that starts with a bracket. The text may be cut anywhere.
    pub fn of(text: &[u8], map: &Mapping) -> Self {
        let mut walk = Walk { survey: Self::default(), frames: Vec::new(), deeper: 0, map };
        let mut at = 0;
        while let Some(byte) = text.get(at).copied() {
            at += match byte {
                b'"' => walk.string(text.get(at..).unwrap_or_default()),
                b'{' | b'[' => walk.open(byte == b'['),
                b'}' | b']' => walk.close(),
                b',' => walk.comma(),
                b':' => 1,
                byte if byte.is_ascii_whitespace() => 1,
                _ => walk.word(text.get(at..).unwrap_or_default()),
            };
            if walk.frames.is_empty() {
                walk.survey.is_whole = true;
                break;
            }
        }
        while !walk.frames.is_empty() {
            walk.leave(false);
        }
        walk.survey
    }

    /// Whether the object has any of a ride's fields itself.
    pub fn has_fields(&self) -> bool {
        self.fields != 0
    }

    /// How many of a ride's fields the object has itself.
    pub(super) fn fields(&self) -> u32 {
        self.fields.count_ones()
    }

    /// The object has a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.eq_ignore_ascii_case(name))
    }

    /// The array directly below this name.
    pub(super) fn array(&self, name: &str) -> Option<&Array> {
        self.arrays.iter().find(|array| {
            array.path.as_deref().is_some_and(|path| matches!(path, [only] if only.eq_ignore_ascii_case(name)))
        })
    }
}

struct Walk<'m> {
    survey: Survey,
    frames: Vec<Frame>,
    /// Brackets that are open beyond [`DEPTH_MAX`].
    deeper: u64,
    map: &'m Mapping,
}

impl Walk<'_> {
    /// Which fields a key stands for.
    fn fields_of(&self, key: &str) -> u16 {
        let matches = |name: &str| text::trimmed(key).eq_ignore_ascii_case(name);
        let is_field = |field: &str| match self.map.source(field) {
            None => matches(field),
            Some(source) => matches(&source.key) || source.path().next().is_some_and(matches),
        };
        (0..).zip(FIELDS).filter(|(_, field)| is_field(field)).fold(0, |bits, (nth, _)| bits | 1 << nth)
    }

    /// A value starts in the innermost open bracket.
    fn value(&mut self, first: u8) {
        let Some(frame) = self.frames.last() else { return };
        if frame.is_array {
            if let Some(array) = frame.array.and_then(|array| self.survey.arrays.get_mut(array)) {
                array.elements += 1;
                array.objects += u64::from(first == b'{');
            }
        } else if self.frames.len() == 1 {
            let fields = self.fields_of(&frame.key);
            let is_mapped = self.map.iter().next().is_some();
            let counted = match first {
                b'[' => &mut self.survey.field_arrays,
                b'{' => &mut self.survey.field_objects,
                _ => &mut self.survey.field_scalars,
            };
            *counted += u64::from(fields != 0);
            self.survey.has_time |= fields & STATUSTIME != 0 && (is_mapped || !matches!(first, b'{' | b'['));
        }
    }

    fn open(&mut self, is_array: bool) -> usize {
        if self.deeper > 0 || self.frames.len() >= DEPTH_MAX {
            self.deeper += 1;
            return 1;
        }
        self.value(if is_array { b'[' } else { b'{' });
        let parent = self.frames.last();
        self.survey.is_array |= parent.is_none() && is_array;
        let is_element = parent.is_some_and(|parent| parent.is_array);
        let mut path = parent.filter(|parent| !parent.is_array).map(|parent| parent.path.clone()).unwrap_or_default();
        path.extend(parent.filter(|parent| !parent.is_array).map(|parent| parent.key.clone()));
        let is_in_array = parent.is_some_and(|parent| parent.is_in_array || parent.is_array);
        let array = match parent.and_then(|parent| parent.array) {
            _ if is_array && self.survey.arrays.len() < NOTED_MAX => {
                self.survey.arrays.push(Array {
                    path: (parent.is_some() && !is_in_array).then(|| path.clone()),
                    elements: 0,
                    objects: 0,
                    fields: 0,
                    within: None,
                    is_whole: false,
                });
                Some(self.survey.arrays.len() - 1)
            }
            _ if is_array => None,
            around => around,
        };
        let key_is_next = !is_array;
        self.frames.push(Frame {
            is_array,
            path,
            array,
            is_in_array,
            is_element,
            fields: 0,
            key: String::new(),
            key_is_next,
        });
        1
    }

    fn close(&mut self) -> usize {
        if self.deeper > 0 {
            self.deeper -= 1;
        } else {
            self.leave(true);
        }
        1
    }

    /// Leaves the innermost bracket, which is closed or cut off.
    fn leave(&mut self, is_whole: bool) {
        let Some(frame) = self.frames.pop() else { return };
        // A nested object with identifying fields alone is not a ride.
        let fields = if frame.fields & !IDENTITY == 0 { 0 } else { frame.fields.count_ones() };
        let array = frame.array.and_then(|array| self.survey.arrays.get_mut(array));
        if frame.is_array {
            if let Some(array) = array {
                array.is_whole = is_whole;
            }
        } else if self.frames.is_empty() {
            self.survey.fields = frame.fields;
        } else if fields > 0 {
            self.survey.rides_as_members += u64::from(self.frames.len() == 1 && !frame.is_element);
            match array {
                Some(array) if frame.is_element => array.fields = array.fields.max(fields),
                Some(array) if array.within.as_ref().is_none_or(|within| within.fields < fields) => {
                    array.within = Some(Inner { path: frame.path, fields });
                }
                None if !frame.is_in_array && self.survey.objects.len() < NOTED_MAX => {
                    self.survey.objects.push(Inner { path: frame.path, fields });
                }
                _ => {}
            }
        }
    }

    fn comma(&mut self) -> usize {
        if let Some(frame) = self.frames.last_mut().filter(|_| self.deeper == 0) {
            frame.key_is_next = !frame.is_array;
        }
        1
    }

    /// A key, or a text; returns its bytes, quotes included.
    fn string(&mut self, text: &[u8]) -> usize {
        let length = string_length(text);
        if self.deeper > 0 {
            return length;
        }
        let written = text.get(..length).unwrap_or_default();
        let depth = self.frames.len();
        match self.frames.last() {
            Some(frame) if frame.key_is_next => self.key(written),
            frame => {
                let is_type = depth == 1 && frame.is_some_and(|frame| frame.key.eq_ignore_ascii_case("type"));
                if is_type {
                    self.survey.type_text = Some(name(written));
                }
                self.value(b'"');
            }
        }
        length
    }

    fn key(&mut self, written: &[u8]) {
        let key = name(written);
        let fields = self.fields_of(&key);
        if self.frames.len() == 1 {
            self.survey.members_count += 1;
            if self.survey.members.len() < NOTED_MAX {
                self.survey.members.push(key.clone());
            }
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.fields |= fields;
            frame.key = key;
            frame.key_is_next = false;
        }
    }

    /// A number or a literal; returns its bytes.
    fn word(&mut self, text: &[u8]) -> usize {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:{}[]\"".contains(byte);
        if self.deeper == 0 {
            self.value(b'0');
        }
        text.iter().position(ends).unwrap_or(text.len()).max(1)
    }
}

/// Bytes of the string that `text` starts with, quotes included; all of them where it has no end.
fn string_length(text: &[u8]) -> usize {
    let mut next = 1;
    while let Some(found) = memchr2(b'"', b'\\', text.get(next..).unwrap_or_default()) {
        let is_escape = text.get(next + found) == Some(&b'\\');
        next += found + 1 + usize::from(is_escape);
        if !is_escape {
            return next;
        }
    }
    text.len()
}

/// What a string says, shortened.
fn name(written: &[u8]) -> String {
    let text = serde_json::from_slice::<String>(written)
        .unwrap_or_else(|_| String::from_utf8_lossy(written).trim_matches('"').to_owned());
    shorten(&text, NAME_BYTES_MAX).into_owned()
}
