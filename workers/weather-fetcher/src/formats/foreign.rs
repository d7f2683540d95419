//! Recognises the format of a text that is not weather.

/// Maximum number of control bytes at the beginning of a text.
const CONTROL_BYTES_MAX: usize = 2;

const GZIP_TWICE: &str = "gzip data within gzip data";

/// Returns how to convert a format of [`looks_like`], with a colon before it; empty if it cannot be converted.
///
/// The result completes an error message.
pub fn advice(format: &str) -> &'static str {
    match format {
        GZIP_TWICE => ": decompress it once",
        "UTF-16 text" => ": save it as UTF-8",
        "a Git LFS pointer" => ": fetch the file with `git lfs pull`",
        _ if format.ends_with(" data") && format != "binary data" => ": decompress it, or compress it with gzip",
        _ if format.ends_with(" archive") => ": unpack it",
        _ => "",
    }
}

/// Returns the name of the format that the beginning of a text has; `None` if it is unknown.
pub fn looks_like(head: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 14] = [
        (b"\x1f\x8b", GZIP_TWICE),
        (b"PK\x03\x04", "a zip archive"),
        (b"BZh", "bzip2 data"),
        (b"\xfd7zXZ\0", "xz data"),
        (b"\x28\xb5\x2f\xfd", "zstd data"),
        (b"\x1f\x9d", "compress (.Z) data"),
        (b"\x04\x22\x4d\x18", "LZ4 data"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"LZIP", "lzip data"),
        (b"PAR1", "Parquet"),
        (b"\xff\xfe", "UTF-16 text"),
        (b"\xfe\xff", "UTF-16 text"),
        (b"version https://git-lfs", "a Git LFS pointer"),
    ];
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(name);
    }
    let is_control = |byte: &&u8| matches!(**byte, 0..=8 | 14..=31 | 127);
    if head.contains(&0) || head.iter().filter(is_control).count() > CONTROL_BYTES_MAX {
        return Some("binary data");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start().to_ascii_lowercase();
    match text.first()? {
        b'<' if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") => Some("HTML"),
        b'<' => Some("XML"),
        b'{' | b'[' => Some("JSON"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_named() {
        for (head, format) in [
            (&b"<!DOCTYPE HTML PUBLIC"[..], Some("HTML")),
            (b"\xef\xbb\xbf\n <html>", Some("HTML")),
            (b"<?xml version=\"1.0\"?><Error>", Some("XML")),
            (b"{\"error\": 1}", Some("JSON")),
            (b"  [", Some("JSON")),
            (b"\x1f\x8b\x08", Some("gzip data within gzip data")),
            (b"PK\x03\x04", Some("a zip archive")),
            (b"I\0D\0,\0", Some("binary data")),
            (b"\xff\xfeI\0", Some("UTF-16 text")),
            (b"version https://git-lfs.github.com/spec/v1", Some("a Git LFS pointer")),
            (b"USW00094728,20180401,TMAX,176,,,W,2400", None),
            (b"USW00094728\t40.7789\t-73.9692", None),
            (b"", None),
        ] {
            assert_eq!(looks_like(head), format, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn a_format_that_can_be_converted_comes_with_advice() {
        for (head, words) in [
            (&b"\x28\xb5\x2f\xfd"[..], ": decompress it, or compress it with gzip"),
            (b"BZh9", ": decompress it, or compress it with gzip"),
            (b"\xfd7zXZ\0", ": decompress it, or compress it with gzip"),
            (b"\x1f\x9d\x90", ": decompress it, or compress it with gzip"),
            (b"\x1f\x8b\x08", ": decompress it once"),
            (b"7z\xbc\xaf\x27\x1c", ": unpack it"),
            (b"PK\x03\x04", ": unpack it"),
            (b"\xff\xfeI\0", ": save it as UTF-8"),
            (b"\0\x01\x02", ""),
            (b"<html>", ""),
        ] {
            assert_eq!(advice(looks_like(head).unwrap()), words, "{}", head.escape_ascii());
        }
    }
}
