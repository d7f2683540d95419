//! The property `content_encoding`: compressions, and names that declare no compression.

use crate::text::shorten;

/// A compression of a message's body or of a batch's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950 (zlib), which HTTP calls deflate, or raw RFC 1951, which some programs send under the same name.
    Deflate,
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    #[strum(to_string = "br")]
    Brotli,
}

impl Coding {
    /// Returns the coding with this name (RFC 9110 §8.4.1), in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" | "gz" => Some(Self::Gzip),
            "deflate" | "zlib" => Some(Self::Deflate),
            "zstd" | "x-zstd" => Some(Self::Zstd),
            "br" | "brotli" => Some(Self::Brotli),
            _ => None,
        }
    }

    /// Recognises a coding by the first bytes of a body. Deflate and Brotli have no such signature. No JSON document
    /// starts with one.
    pub fn of_body(body: &[u8]) -> Option<Self> {
        match body {
            [0x1F, 0x8B, ..] => Some(Self::Gzip),
            // A frame, or a skippable frame, which may precede it.
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Returns the file name suffix of a compression that the first bytes do not identify; `None` if they do.
    pub fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Gzip | Self::Zstd => None,
            Self::Deflate => Some(".deflate"),
            Self::Brotli => Some(".br"),
        }
    }

    /// Recognises a coding by the suffix of an object's name, in upper or lower case.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        [Self::Deflate, Self::Brotli].into_iter().find(|coding| coding.suffix().is_some_and(|end| name.ends_with(end)))
    }
}

/// A `content_encoding` that the fleet cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCoding {
    /// The name is neither a supported compression nor a character set.
    #[error(
        "content_encoding {0:?}: expected gzip, zstd, deflate or br, the name of a character set, or none; leave it out where \
         the body is not compressed"
    )]
    Unknown(String),
    /// The property names several compressions.
    #[error("content_encoding {0:?} names more than one compression; compress the body once")]
    Several(String),
}

/// Returns the compression that a `content_encoding` declares: gzip for `gzip`, `GZIP`, `gzip, utf-8` and `gzip:UTF-8`;
/// `None` for `utf-8`, `binary`, `identity` and blank.
///
/// Many AMQP libraries set the name of a character set, or of a transfer encoding that changes nothing, on every
/// message. Such a name declares no compression.
///
/// # Errors
/// Fails on any other name, and on more than one compression.
pub fn content_coding(content_encoding: &str) -> Result<Option<Coding>, UnknownCoding> {
    let quoted = || shorten(content_encoding, 100).into_owned();
    let mut declared = None;
    let separates = |c: char| matches!(c, ',' | ':' | ';' | '+') || c.is_whitespace();
    for name in content_encoding.split(separates).filter(|name| !name.is_empty()) {
        match Coding::named(name) {
            Some(_) if declared.is_some() => return Err(UnknownCoding::Several(quoted())),
            Some(coding) => declared = Some(coding),
            None if is_no_compression(name) => {}
            None => return Err(UnknownCoding::Unknown(quoted())),
        }
    }
    Ok(declared)
}

/// Returns whether a name in a `content_encoding` is not a compression: a character set, or an encoding that leaves the
/// bytes unchanged.
pub fn is_no_compression(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "", "identity", "none", "null", "plain", "binary", "8bit", "7bit", "8-bit", "7-bit", "string", "text", "json",
        "bytes",
    ];
    /// Prefixes of the names of character sets (IANA's registry and the names that Python, Java and .NET use).
    const CHARACTER_SETS: [&str; 20] = [
        "utf", "us-ascii", "ascii", "ansi", "unicode", "ucs", "iso", "latin", "windows", "cp", "ibm", "mac", "koi8",
        "shift", "sjis", "euc", "gb", "big5", "hz", "tis",
    ];
    let lower = name.to_ascii_lowercase();
    let name = lower.strip_prefix("charset=").unwrap_or(&lower).trim_matches('"');
    NAMES.contains(&name) || CHARACTER_SETS.iter().any(|set| name.starts_with(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_set_declares_no_compression() {
        for name in [
            "utf-8",
            "UTF-8",
            "utf8",
            "UTF8",
            "us-ascii",
            "ASCII",
            "binary",
            "8bit",
            "7bit",
            "identity",
            "",
            " ",
            "iso-8859-1",
            "ISO8859-15",
            "latin1",
            "windows-1252",
            "cp1252",
            "utf-16le",
            "Shift_JIS",
            "charset=utf-8",
            "identity, utf-8",
        ] {
            assert_eq!(content_coding(name), Ok(None), "{name:?}");
        }
    }

    #[test]
    fn a_compression_is_recognised_in_any_case_and_beside_a_character_set() {
        for (name, coding) in [
            ("gzip", Coding::Gzip),
            ("GZIP", Coding::Gzip),
            (" x-gzip ", Coding::Gzip),
            ("gzip, utf-8", Coding::Gzip),
            ("gzip:UTF-8", Coding::Gzip),
            ("gzip;utf-8", Coding::Gzip),
            ("utf-8,gzip", Coding::Gzip),
            ("utf-8 gzip", Coding::Gzip),
            ("gzip; charset=UTF-8", Coding::Gzip),
            ("Zstd", Coding::Zstd),
            ("deflate", Coding::Deflate),
            ("br", Coding::Brotli),
        ] {
            assert_eq!(content_coding(name), Ok(Some(coding)), "{name:?}");
            assert_eq!(content_coding(&coding.to_string()), Ok(Some(coding)));
        }
    }

    #[test]
    fn unknown_names_and_two_compressions_are_refused_with_their_name() {
        for name in ["lz4", "compress", "base64", "gzip, snappy"] {
            let why = content_coding(name).unwrap_err();
            assert_eq!(why, UnknownCoding::Unknown(name.to_owned()));
            assert!(why.to_string().contains(&format!("{name:?}")) && why.to_string().contains("zstd"), "{why}");
        }
        for name in ["gzip, gzip", "gzip,zstd", "br:utf-8:gzip"] {
            assert_eq!(content_coding(name), Err(UnknownCoding::Several(name.to_owned())));
        }
        assert!(content_coding(&"x".repeat(10_000)).unwrap_err().to_string().len() < 400);
    }

    #[test]
    fn gzip_and_zstd_are_recognised_by_their_first_bytes() {
        assert_eq!(Coding::of_body(&[0x1F, 0x8B, 8]), Some(Coding::Gzip));
        assert_eq!(Coding::of_body(&[0x28, 0xB5, 0x2F, 0xFD]), Some(Coding::Zstd));
        assert_eq!(Coding::of_body(&[0x53, 0x2A, 0x4D, 0x18]), Some(Coding::Zstd));
        assert_eq!(Coding::of_body(b"[{"), None);
        assert_eq!(Coding::of_body(b""), None);
    }

    #[test]
    fn a_suffix_names_the_compressions_without_a_signature() {
        for (name, coding) in [
            ("raw/rides.json.br", Some(Coding::Brotli)),
            ("raw/rides.NDJSON.BR", Some(Coding::Brotli)),
            ("raw/x.deflate", Some(Coding::Deflate)),
            ("raw/rides.json.gz", None),
            ("raw/rides.br.json", None),
        ] {
            assert_eq!(Coding::of_name(name), coding, "{name}");
        }
    }

    proptest! {
        #[test]
        fn case_blanks_and_separators_do_not_matter(
            upper in any::<bool>(), separator in "[,:;][ ]{0,2}", set in "utf-?8|us-ascii|binary|8bit|iso-8859-1", first in any::<bool>(),
        ) {
            let set = if upper { set.to_uppercase() } else { set };
            let both = if first { format!("gzip{separator}{set}") } else { format!("{set}{separator}GZIP") };
            prop_assert_eq!(content_coding(&both), Ok(Some(Coding::Gzip)));
            prop_assert_eq!(content_coding(&set), Ok(None));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = content_coding(&text);
        }
    }
}
