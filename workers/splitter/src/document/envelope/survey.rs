//! Walks through a value, complete or truncated, and records where objects with a ride's fields are.

use super::super::relaxed::string_length;
use common::{
    reading::{FIELDS, Mapping},
    text::{self, shorten},
};
use memchr::memchr2;

/// Maximum number of members, arrays and objects that are recorded by name.
const RECORDS_MAX: usize = 16;
/// Maximum number of bytes kept of a name.
const NAME_BYTES_MAX: usize = 40;
/// Maximum depth of the walk. Below it, only keys are read.
pub(super) const DEPTH_MAX: usize = 32;

/// A set of a ride's fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Fields(u16);

impl Fields {
    /// `ride_id`, `name` and `breed`, which objects other than rides have as well.
    const IDENTITY: u16 = 0b111;
    const STATUSTIME: u16 = 1 << 3;
    /// The required fields: `statustime` to `magicpoints`.
    const REQUIRED: u16 = 0b1_1111_1000;

    /// Returns the fields that a key names.
    pub fn of(key: &str, map: &Mapping) -> Self {
        let matches = |name: &str| text::trimmed(key).eq_ignore_ascii_case(name);
        let is_field = |field: &str| match map.source(field) {
            None => matches(field),
            Some(source) => matches(&source.key) || source.path().next().is_some_and(matches),
        };
        Self((0..).zip(FIELDS).filter(|(_, field)| is_field(field)).fold(0, |bits, (nth, _)| bits | 1 << nth))
    }

    /// Returns whether the set has a field that only a ride has: neither identity nor time.
    pub fn has_measurement(self) -> bool {
        self.0 & !(Self::IDENTITY | Self::STATUSTIME) != 0
    }

    pub(super) fn has_time(self) -> bool {
        self.0 & Self::STATUSTIME != 0
    }

    /// Returns whether every required field is in the set.
    pub(super) fn is_complete(self) -> bool {
        self.0 & Self::REQUIRED == Self::REQUIRED
    }

    pub(super) fn count(self) -> u32 {
        self.0.count_ones()
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Returns the same set, or an empty one if it has identity only.
    fn of_nested(self) -> Self {
        if self.0 & !Self::IDENTITY == 0 { Self::default() } else { self }
    }

    /// Orders complete sets above others, then by size.
    pub(super) fn rank(self) -> (bool, u32) {
        (self.is_complete(), self.count())
    }

    fn raise(&mut self, other: Self) {
        if other.rank() > self.rank() {
            *self = other;
        }
    }
}

/// The content of a value.
#[derive(Debug, Default)]
pub(in super::super) struct Survey {
    pub(super) is_array: bool,
    /// Number of elements, if the value is an array.
    pub(super) elements: u64,
    /// Names of the first members.
    pub(super) members: Vec<String>,
    pub(super) members_count: u64,
    /// Number of members that are objects with a ride's field.
    pub(super) rides_as_members: u64,
    /// The ride's fields that the object has itself.
    pub(super) fields: Fields,
    /// Numbers of fields whose values are arrays, objects and scalars.
    pub(super) field_arrays: u64,
    pub(super) field_objects: u64,
    pub(super) field_scalars: u64,
    /// Value of the member `type`.
    pub(super) type_text: Option<String>,
    /// Some of the arrays, preferably those with objects.
    pub(super) arrays: Vec<Array>,
    /// Some of the objects with a ride's fields outside arrays.
    pub(super) objects: Vec<Inner>,
    /// Whether an object is an element of an array, recorded or not.
    pub(super) has_array_of_objects: bool,
    /// The largest sets of fields of an object, recorded or not: in arrays, outside arrays, and outside arrays with a time.
    pub(super) in_arrays: Fields,
    pub(super) in_objects: Fields,
    pub(super) in_timed_objects: Fields,
    /// The fields of all objects below the maximum depth.
    pub(super) too_deep: Fields,
    /// Whether the value ends within the text.
    pub(super) is_whole: bool,
}

/// An array in the value.
#[derive(Debug)]
pub(super) struct Array {
    /// Names of the members that lead to the array; `None` if no path of names leads there.
    pub path: Option<Vec<String>>,
    pub elements: u64,
    /// Number of elements that are objects.
    pub objects: u64,
    /// The largest set of a ride's fields of these objects.
    pub fields: Fields,
    /// The object nested in an element with the largest set of a ride's fields.
    pub within: Option<Inner>,
    pub is_whole: bool,
}

/// An object nested in the value.
#[derive(Debug)]
pub(super) struct Inner {
    pub path: Vec<String>,
    /// The ride's fields that it has.
    pub fields: Fields,
}

/// An open bracket.
struct Frame {
    is_array: bool,
    /// Names of the members that lead here from the value, or from the enclosing element of an array.
    path: Vec<String>,
    /// Index of the record of this array, or of the enclosing one.
    array: Option<usize>,
    /// Number of elements, if it is an array.
    elements: u64,
    /// Whether it is inside an array, at any depth.
    is_in_array: bool,
    /// Whether it is an element of an array.
    is_element: bool,
    fields: Fields,
    key: String,
    key_is_next: bool,
}

impl Survey {
    /// Surveys a value that starts with a bracket. The text may be truncated.
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
        let mut survey = walk.survey;
        survey.too_deep = survey.too_deep.of_nested();
        survey.in_arrays.raise(survey.too_deep);
        survey
    }

    /// Returns whether the object has any of a ride's fields itself.
    pub fn has_fields(&self) -> bool {
        !self.fields.is_empty()
    }

    /// Returns whether the object itself has a field that only a ride has.
    pub fn has_measurement(&self) -> bool {
        self.fields.has_measurement()
    }

    /// Returns whether the object has a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.eq_ignore_ascii_case(name))
    }

    /// Returns the array that is the member of this name.
    pub(super) fn array(&self, name: &str) -> Option<&Array> {
        self.arrays.iter().find(|array| {
            array.path.as_deref().is_some_and(|path| matches!(path, [only] if only.eq_ignore_ascii_case(name)))
        })
    }

    /// Records an array, if necessary in place of one without a ride's fields. Returns the index of the record.
    fn record(&mut self, array: Array) -> Option<usize> {
        if self.arrays.len() < RECORDS_MAX {
            self.arrays.push(array);
            return Some(self.arrays.len() - 1);
        }
        let is_replaceable = |record: &Array| record.is_whole && record.fields_max().is_empty();
        let index = self.arrays.iter().position(is_replaceable)?;
        *self.arrays.get_mut(index)? = array;
        Some(index)
    }
}

impl Array {
    fn new(path: Option<Vec<String>>, elements: u64) -> Self {
        Self { path, elements, objects: 0, fields: Fields::default(), within: None, is_whole: false }
    }

    /// Returns the largest set of a ride's fields of an object in the array.
    pub(super) fn fields_max(&self) -> Fields {
        let mut most = self.fields;
        most.raise(self.within.as_ref().map(|within| within.fields).unwrap_or_default());
        most
    }
}

struct Walk<'m> {
    survey: Survey,
    frames: Vec<Frame>,
    /// Number of open brackets beyond [`DEPTH_MAX`].
    deeper: u64,
    map: &'m Mapping,
}

impl Walk<'_> {
    /// Handles the start of a value in the innermost open bracket.
    fn value(&mut self, first: u8) {
        let is_outermost = self.frames.len() == 1;
        let Some(frame) = self.frames.last_mut() else { return };
        if frame.is_array {
            frame.elements += 1;
            self.survey.elements += u64::from(is_outermost);
            if first == b'{' {
                self.survey.has_array_of_objects = true;
                if frame.array.is_none() {
                    let path = (!is_outermost && !frame.is_in_array).then(|| frame.path.clone());
                    frame.array = self.survey.record(Array::new(path, frame.elements - 1));
                }
            }
            if let Some(array) = frame.array.and_then(|array| self.survey.arrays.get_mut(array)) {
                array.elements += 1;
                array.objects += u64::from(first == b'{');
            }
        } else if is_outermost {
            let fields = Fields::of(&frame.key, self.map);
            let counted = match first {
                b'[' => &mut self.survey.field_arrays,
                b'{' => &mut self.survey.field_objects,
                _ => &mut self.survey.field_scalars,
            };
            *counted += u64::from(!fields.is_empty());
        }
    }

    fn open(&mut self, is_array: bool) -> usize {
        if self.deeper > 0 || self.frames.len() >= DEPTH_MAX {
            self.deeper += 1;
            // On the path from the outermost array to this object, some object is an element.
            self.survey.has_array_of_objects |= !is_array && self.survey.is_array;
            return 1;
        }
        self.value(if is_array { b'[' } else { b'{' });
        let parent = self.frames.last();
        self.survey.is_array |= parent.is_none() && is_array;
        let is_element = parent.is_some_and(|parent| parent.is_array);
        let mut path = parent.filter(|parent| !parent.is_array).map(|parent| parent.path.clone()).unwrap_or_default();
        path.extend(parent.filter(|parent| !parent.is_array).map(|parent| parent.key.clone()));
        self.frames.push(Frame {
            is_array,
            path,
            array: parent.and_then(|parent| parent.array).filter(|_| !is_array),
            elements: 0,
            is_in_array: parent.is_some_and(|parent| parent.is_in_array || parent.is_array),
            is_element,
            fields: Fields::default(),
            key: String::new(),
            key_is_next: !is_array,
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

    /// Leaves the innermost bracket, which is closed or truncated.
    fn leave(&mut self, is_whole: bool) {
        let Some(frame) = self.frames.pop() else { return };
        if frame.is_array {
            self.leave_array(frame, is_whole);
        } else if self.frames.is_empty() {
            self.survey.fields = frame.fields;
        } else {
            self.leave_object(frame);
        }
    }

    fn leave_array(&mut self, frame: Frame, is_whole: bool) {
        let arrays = &mut self.survey.arrays;
        if let Some(index) = frame.array {
            if let Some(array) = arrays.get_mut(index) {
                array.is_whole = is_whole;
            }
        } else if !self.frames.is_empty() && !frame.is_in_array && arrays.len() < RECORDS_MAX {
            // An array without objects is recorded if there is room.
            arrays.push(Array { is_whole, ..Array::new(Some(frame.path), frame.elements) });
        }
    }

    fn leave_object(&mut self, frame: Frame) {
        let fields = frame.fields.of_nested();
        if fields.is_empty() {
            return;
        }
        self.survey.rides_as_members += u64::from(self.frames.len() == 1 && !frame.is_element);
        if frame.is_in_array {
            self.survey.in_arrays.raise(fields);
        } else {
            self.survey.in_objects.raise(fields);
            if fields.has_time() {
                self.survey.in_timed_objects.raise(fields);
            }
        }
        let inner = Inner { path: frame.path, fields };
        match frame.array.and_then(|array| self.survey.arrays.get_mut(array)) {
            Some(array) if frame.is_element => array.fields.raise(fields),
            Some(array) if array.within.as_ref().is_none_or(|within| within.fields.rank() < fields.rank()) => {
                array.within = Some(inner);
            }
            None if !frame.is_in_array && self.survey.objects.len() < RECORDS_MAX => self.survey.objects.push(inner),
            None if !frame.is_in_array => {
                let weakest = self.survey.objects.iter_mut().min_by_key(|record| record.fields.rank());
                if let Some(record) = weakest.filter(|record| record.fields.rank() < fields.rank()) {
                    *record = inner;
                }
            }
            _ => {}
        }
    }

    fn comma(&mut self) -> usize {
        if let Some(frame) = self.frames.last_mut().filter(|_| self.deeper == 0) {
            frame.key_is_next = !frame.is_array;
        }
        1
    }

    /// Reads a key or a string; returns its length with quotes, bytes.
    fn string(&mut self, text: &[u8]) -> usize {
        let length = string_length(text);
        let written = text.get(..length).unwrap_or_default();
        if self.deeper > 0 {
            let after = text.get(length..).unwrap_or_default();
            if after.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':') {
                self.survey.too_deep.add(Fields::of(&name(written), self.map));
            }
            return length;
        }
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
        let fields = Fields::of(&key, self.map);
        if self.frames.len() == 1 {
            self.survey.members_count += 1;
            if self.survey.members.len() < RECORDS_MAX {
                self.survey.members.push(key.clone());
            }
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.fields.add(fields);
            frame.key = key;
            frame.key_is_next = false;
        }
    }

    /// Reads a number or a literal; returns its length, bytes.
    fn word(&mut self, text: &[u8]) -> usize {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:{}[]\"".contains(byte);
        if self.deeper == 0 {
            self.value(b'0');
        }
        text.iter().position(ends).unwrap_or(text.len()).max(1)
    }
}

/// Returns the content of a string, shortened.
fn name(written: &[u8]) -> String {
    let text = serde_json::from_slice::<String>(written)
        .unwrap_or_else(|_| String::from_utf8_lossy(written).trim_matches('"').to_owned());
    shorten(&text, NAME_BYTES_MAX).into_owned()
}

/// Returns whether a value may contain another object or array.
#[inline]
pub(in super::super) fn may_nest(value: &[u8]) -> bool {
    value.get(1..).is_some_and(|inner| memchr2(b'{', b'[', inner).is_some())
}
