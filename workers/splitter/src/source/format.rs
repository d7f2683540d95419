//! Recognises the format of a document by its first bytes: a supported one, or one that is refused by name.

use common::coding::Coding;
use memchr::memmem;

/// The format of the decompressed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    /// UTF-8: JSON in any form, CSV, or an unknown text.
    Text,
    /// UTF-16 with a byte order mark.
    Utf16(Endian),
    /// Apache Parquet.
    Parquet,
    /// Compressed a second time.
    Compressed(Coding),
    /// A known but unsupported format.
    Unsupported(Unsupported),
}

/// The order of the two bytes of a UTF-16 unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endian {
    Little,
    Big,
}

/// A format that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is {name}, which is not read: {advice}")]
pub(crate) struct Unsupported {
    /// With its article: `a zip archive`.
    pub name: String,
    /// What to do instead, as an imperative.
    pub advice: &'static str,
}

impl Unsupported {
    fn new(name: impl Into<String>, advice: &'static str) -> Self {
        Self { name: name.into(), advice }
    }

    /// Returns the same format within this compression.
    pub(super) fn within(self, coding: Option<Coding>) -> Self {
        match coding {
            Some(coding) => Self { name: format!("{} within {coding}", self.name), ..self },
            None => self,
        }
    }
}

const UNPACK: &str = "unpack it and hand in the JSON, CSV or Parquet file in it";
const AS_PARQUET: &str = "hand in JSON, CSV or Parquet; pandas.read_… and DataFrame.to_parquet convert it";
const SAVE_AS_CSV: &str = "save the sheet as \"CSV UTF-8\" and hand in that file";
const RECOMPRESS: &str = "decompress it, and hand it in plain or compressed with gzip or zstd";
const DOWNLOAD: &str = "this is the answer of a web server instead of the file; download the file itself again";
const EXPORT_QUERY: &str =
    "export the table of rides as CSV, as in: sqlite3 -header -csv FILE 'SELECT * FROM rides' > rides.csv";
const PLAIN_JSON: &str = "publish the JSON itself as the bytes of the body";

/// Formats by their first bytes, with advice.
const MAGICS: [(&[u8], &str, &str); 23] = [
    (b"Rar!\x1A\x07", "a RAR archive", UNPACK),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", UNPACK),
    (b"\xFD7zXZ\0", "compressed with xz", RECOMPRESS),
    (b"\x5D\0\0", "compressed with lzma", RECOMPRESS),
    (b"\x89LZO\0", "compressed with lzop", RECOMPRESS),
    (b"\x1F\x9D", "compressed with compress (.Z)", RECOMPRESS),
    (b"\x04\x22\x4D\x18", "compressed with lz4", RECOMPRESS),
    (b"\xFF\x06\0\0sNaPpY", "compressed with snappy", RECOMPRESS),
    (b"\x82SNAPPY\0", "compressed with snappy", RECOMPRESS),
    (b"Obj\x01", "Apache Avro", AS_PARQUET),
    (b"ARROW1", "Arrow IPC (Feather)", AS_PARQUET),
    (b"\xFF\xFF\xFF\xFF", "an Arrow IPC stream", AS_PARQUET),
    (b"\x89HDF\r\n\x1A\n", "HDF5", AS_PARQUET),
    (b"\x93NUMPY", "a NumPy array", AS_PARQUET),
    (b"SQLite format 3\0", "a SQLite database", EXPORT_QUERY),
    (b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "an old Excel or Word file (xls, doc)", SAVE_AS_CSV),
    (b"%PDF", "a PDF", "hand in the data it was made of, as JSON or CSV"),
    (b"\x89PNG", "a PNG image", "hand in JSON, CSV or Parquet"),
    (b"\xFF\xD8\xFF", "a JPEG image", "hand in JSON, CSV or Parquet"),
    (b"\xAC\xED\0\x05", "a serialised Java object", "set a JSON message converter at the publisher"),
    (b"-----BEGIN", "an encrypted or signed text (PEM)", "decrypt it and hand in the JSON or CSV in it"),
    (b"{\\rtf", "a Rich Text document", "save it as plain text"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for", "fetch the file with: git lfs pull"),
];

/// Formats whose first bytes may also start a text. They apply only if control bytes follow.
const BINARY_MAGICS: [(&[u8], &str, &str); 6] = [
    (b"BZh", "compressed with bzip2", RECOMPRESS),
    (b"LZIP", "compressed with lzip", RECOMPRESS),
    (b"ORC", "Apache ORC", AS_PARQUET),
    (b"FEA1", "Feather", AS_PARQUET),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"RDX", "an R data file", "hand in CSV, as write.csv writes it"),
];

/// Returns the format of a document; `head` has its first [`super::limits::HEAD_BYTES`], or all of it.
pub(super) fn recognise(head: &[u8]) -> Format {
    if let Some(coding) = Coding::of_body(head) {
        return Format::Compressed(coding);
    }
    if head.starts_with(b"PAR1") {
        return Format::Parquet;
    }
    match unicode(head) {
        Some(Unicode::Marked(endian)) => return Format::Utf16(endian),
        Some(Unicode::Other(unsupported)) => return Format::Unsupported(unsupported),
        None => {}
    }
    binary(head).or_else(|| text(head)).map_or(Format::Text, Format::Unsupported)
}

/// Describes the beginning of bytes, for a message about a wrong declaration.
pub(super) fn starts_like(head: &[u8]) -> String {
    let start = without_mark(head).trim_ascii_start();
    match recognise(head) {
        Format::Compressed(coding) => coding.to_string(),
        Format::Parquet => "Parquet".to_owned(),
        Format::Utf16(_) => "UTF-16".to_owned(),
        Format::Unsupported(unsupported) => unsupported.name,
        Format::Text => match start.first() {
            None => "an empty document".to_owned(),
            Some(b'{' | b'[') => "JSON".to_owned(),
            Some(_) => {
                let excerpt: String = String::from_utf8_lossy(start).chars().take(16).collect();
                format!("{excerpt:?}")
            }
        },
    }
}

/// Returns whether bytes are UTF-8 without control characters; the last character may be incomplete.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let is_utf8 = std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true);
    is_utf8 && bytes.iter().all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace())
}

/// Returns the text without a byte order mark.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

enum Unicode {
    Marked(Endian),
    Other(Unsupported),
}

/// Recognises UTF-16 and UTF-32 by their byte order mark or by the positions of NUL bytes.
fn unicode(head: &[u8]) -> Option<Unicode> {
    const TO_UTF8: [&str; 4] = [
        "convert it with: iconv -f UTF-16LE -t UTF-8",
        "convert it with: iconv -f UTF-16BE -t UTF-8",
        "convert it with: iconv -f UTF-32LE -t UTF-8",
        "convert it with: iconv -f UTF-32BE -t UTF-8",
    ];
    let [utf16_le, utf16_be, utf32_le, utf32_be] = TO_UTF8;
    let other = |name: &str, advice| Some(Unicode::Other(Unsupported::new(name, advice)));
    match head {
        [0xFF, 0xFE, 0, 0, ..] => return other("UTF-32", utf32_le),
        [0, 0, 0xFE, 0xFF, ..] => return other("UTF-32", utf32_be),
        [0xFF, 0xFE, ..] => return Some(Unicode::Marked(Endian::Little)),
        [0xFE, 0xFF, ..] => return Some(Unicode::Marked(Endian::Big)),
        _ => {}
    }
    if is_utf32(head, u32::from_le_bytes) {
        other("UTF-32 without a byte order mark", utf32_le)
    } else if is_utf32(head, u32::from_be_bytes) {
        other("UTF-32 without a byte order mark", utf32_be)
    } else if is_utf16(head, u16::from_le_bytes) {
        other("UTF-16 without a byte order mark", utf16_le)
    } else if is_utf16(head, u16::from_be_bytes) {
        other("UTF-16 without a byte order mark", utf16_be)
    } else {
        None
    }
}

/// Number of bytes by which a character encoding is recognised.
const UNICODE_HEAD_BYTES: usize = 512;

/// Returns whether bytes are a text in UTF-32 without control characters.
fn is_utf32(head: &[u8], unit: fn([u8; 4]) -> u32) -> bool {
    let (units, _) = head.get(..head.len().min(UNICODE_HEAD_BYTES)).unwrap_or_default().as_chunks::<4>();
    let is_text = |bytes: &[u8; 4]| char::from_u32(unit(*bytes)).is_some_and(|c| !c.is_control() || c.is_whitespace());
    !units.is_empty() && units.iter().all(is_text)
}

/// Returns whether bytes are a text in UTF-16, in any script: without control characters and unpaired surrogates, and with a
/// share of ASCII characters that keys, digits and punctuation give.
fn is_utf16(head: &[u8], unit: fn([u8; 2]) -> u16) -> bool {
    /// With this many ASCII characters, the first character need not be ASCII.
    const ASCII_ENOUGH: usize = 8;
    let (pairs, _) = head.get(..head.len().min(UNICODE_HEAD_BYTES)).unwrap_or_default().as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
    let is_ascii = |unit: &u16| matches!(unit, 0x20..=0x7E | 0x09 | 0x0A | 0x0D);
    let is_control = |unit: &u16| *unit < 0x20 && !is_ascii(unit);
    let ascii = units.iter().filter(|unit| is_ascii(unit)).count();
    // The second half of the last pair may be beyond the head.
    let unpaired = char::decode_utf16(units.iter().copied()).filter(Result::is_err).count();
    let ends_in_pair = units.last().is_some_and(|last| (0xD800..0xDC00).contains(last));
    ascii >= 2
        && ascii * 8 >= units.len()
        && (ascii >= ASCII_ENOUGH || units.first().is_some_and(is_ascii))
        && !units.iter().any(is_control)
        && unpaired <= usize::from(ends_in_pair)
}

fn binary(head: &[u8]) -> Option<Unsupported> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") || head.starts_with(b"PK\x07\x08") {
        return Some(zip(head));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(Unsupported::new("a tar archive", UNPACK));
    }
    if let [0x80, 2..=5, opcode, ..] = head
        && matches!(opcode, 0x95 | b'c' | b'}' | b']' | b'(' | b'X' | 0x8C)
    {
        return Some(Unsupported::new("a Python pickle", "write the rides with json.dump or DataFrame.to_json"));
    }
    let is_binary = head.iter().take(1024).any(|byte| *byte < b'\t');
    let binary_magics = BINARY_MAGICS.iter().filter(|_| is_binary);
    let starts_with = |magic: &[u8]| head.starts_with(magic) || without_mark(head).starts_with(magic);
    let (_, name, advice) = MAGICS.iter().chain(binary_magics).find(|(magic, ..)| starts_with(magic))?;
    Some(Unsupported::new(*name, advice))
}

/// Names a zip archive, or the format that its content indicates.
fn zip(head: &[u8]) -> Unsupported {
    const NAME_AT: usize = 30;
    let holds = |needle: &[u8]| memmem::find(head, needle).is_some();
    let length = head.get(26..28).map_or(0, |bytes| usize::from(bytes[0]) | usize::from(bytes[1]) << 8);
    let name = head.get(NAME_AT..NAME_AT + length).unwrap_or_default();
    let is_office = name == b"[Content_Types].xml" || name.starts_with(b"_rels/") || name.starts_with(b"docProps/");
    if name.starts_with(b"xl/") || (is_office && holds(b"xl/")) {
        return Unsupported::new("an Excel workbook (xlsx)", SAVE_AS_CSV);
    }
    if name.starts_with(b"word/") || (is_office && holds(b"word/")) {
        return Unsupported::new("a Word document (docx)", "hand in the data as JSON or CSV");
    }
    if is_office {
        return Unsupported::new("an Office document (a zip archive, such as xlsx)", SAVE_AS_CSV);
    }
    if name == b"mimetype" && holds(b"opendocument.spreadsheet") {
        return Unsupported::new("an OpenDocument spreadsheet (ods)", SAVE_AS_CSV);
    }
    if name.ends_with(b".npy") {
        return Unsupported::new("a NumPy archive (npz)", AS_PARQUET);
    }
    let advice = "unzip it and hand in the JSON, CSV or Parquet file in it";
    let excerpt: String = String::from_utf8_lossy(name).chars().take(60).collect();
    if excerpt.is_empty() {
        return Unsupported::new("a zip archive", advice);
    }
    Unsupported::new(format!("a zip archive with {excerpt:?} in it"), advice)
}

/// Recognises texts that are neither JSON nor CSV.
fn text(head: &[u8]) -> Option<Unsupported> {
    let start = without_mark(head).trim_ascii_start();
    if start.first() == Some(&b'<') {
        return markup(start);
    }
    // The base64 of `{"`, of `[{` and of the magic number of gzip.
    let in_base64 = [("eyJ", "JSON in base64"), ("W3s", "JSON in base64"), ("H4sI", "gzip in base64")];
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\r\n".contains(byte);
    if let Some((_, name)) = in_base64.iter().find(|(mark, _)| start.starts_with(mark.as_bytes()))
        && start.len() > 16
        && start.iter().all(is_base64)
    {
        return Some(Unsupported::new(*name, PLAIN_JSON));
    }
    None
}

/// Recognises HTML, XML and XML error documents.
fn markup(start: &[u8]) -> Option<Unsupported> {
    let lower = start.get(..start.len().min(4096)).unwrap_or_default().to_ascii_lowercase();
    let holds = |needle: &str| memmem::find(&lower, needle.as_bytes()).is_some();
    let is_element = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphabetic() || b"!?".contains(byte));
    if !is_element(lower.get(1)) {
        return None;
    }
    if holds("<error>") && holds("<code>") {
        return Some(Unsupported::new(
            format!("an error document of an object store ({})", error_code(start)),
            DOWNLOAD,
        ));
    }
    if ["<!doctype html", "<html", "<head", "<body", "<title"].into_iter().any(holds) {
        return Some(Unsupported::new("an HTML page", DOWNLOAD));
    }
    Some(Unsupported::new("XML", "convert it to JSON or CSV"))
}

/// Returns the content of `<Code>`, such as `AccessDenied`.
fn error_code(start: &[u8]) -> String {
    let text = String::from_utf8_lossy(start.get(..start.len().min(4096)).unwrap_or_default());
    let after = text.split_once("<Code>").map_or("", |(_, rest)| rest);
    let code: String = after.chars().take_while(|c| c.is_ascii_alphanumeric()).take(60).collect();
    if code.is_empty() { "no code".to_owned() } else { code }
}

/// Returns the format of a text that is neither JSON nor CSV, if it is recognised.
pub(super) fn unknown_text(head: &[u8]) -> Option<Unsupported> {
    let text = without_mark(head);
    if is_event_stream(text) {
        let advice = "hand in the JSON behind each `data:`, as `sed -n 's/^data: *//p'` prints it";
        return Some(Unsupported::new("a stream of server-sent events", advice));
    }
    is_yaml(text).then(|| Unsupported::new("YAML", "convert it to JSON, or to CSV with a header"))
}

/// Returns whether the first lines are server-sent events with JSON as the first data.
fn is_event_stream(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let is_before_data =
        |line: &&[u8]| [&b"event:"[..], b"id:", b"retry:", b":"].iter().any(|field| line.starts_with(field));
    let first = lines.find(|line| !is_before_data(line));
    let data = first.and_then(|line| line.strip_prefix(b"data:")).unwrap_or_default().trim_ascii_start();
    matches!(data.first(), Some(b'{' | b'['))
}

/// Returns whether the first lines are YAML: a document marker, a list of mappings, or two lines of `key: value`.
fn is_yaml(text: &[u8]) -> bool {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let Some(first) = lines.next() else { return false };
    if first == b"---" || first.starts_with(b"%YAML") {
        return true;
    }
    let without_dash = |line: &[u8]| is_yaml_member(line.strip_prefix(b"- ").unwrap_or(line));
    without_dash(first) && (first.starts_with(b"- ") || lines.next().is_some_and(without_dash))
}

/// Returns whether a line is `key:` or `key: value`, with the key unquoted.
fn is_yaml_member(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let (key, rest) = line.split_at(colon);
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_- ".contains(byte);
    let ends = matches!(rest, [b':'] | [b':', b' ', ..]);
    key.first().is_some_and(u8::is_ascii_alphabetic) && key.iter().all(is_word) && ends
}

#[cfg(test)]
mod tests;
