use super::*;
use async_compression::tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

pub(super) const LIMITS: Limits = Limits { piece_bytes: 4096, decompressed_bytes_max: 1 << 30, expansion_max: 1000 };

/// The concatenated pieces, and whether their lines are records.
pub(super) type Text = (String, bool);

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Reads an inline body to its end and checks its fingerprint.
pub(super) async fn read_in(body: &[u8], coding: Option<Coding>, limits: Limits) -> Result<Text, ReadError> {
    let source = Source::Inline { body: Bytes::copy_from_slice(body), coding };
    let mut reading = source.open(limits).await?;
    let mut text = Vec::new();
    while let Some(piece) = reading.next().await? {
        assert!(!piece.is_empty());
        text.extend_from_slice(&piece);
    }
    let records = reading.records();
    assert_eq!(reading.finish().await?.sha256, hex::encode(Sha256::digest(body)), "of the raw bytes");
    Ok((String::from_utf8_lossy(&text).into_owned(), records))
}

/// Reads a body in pieces of several sizes, which must give the same result.
pub(super) async fn read(body: &[u8]) -> Result<Text, String> {
    declared(body, None).await
}

async fn declared(body: &[u8], coding: Option<Coding>) -> Result<Text, String> {
    let in_pieces = async |piece_bytes| {
        let limits = Limits { piece_bytes, ..LIMITS };
        read_in(body, coding, limits).await.map_err(|error| error.to_string())
    };
    let whole = in_pieces(1 << 20).await;
    for piece_bytes in [1, 2, 3, 7, 64, 4096] {
        let read = in_pieces(piece_bytes).await;
        match (&whole, &read) {
            // The message includes the position of the decoder, which depends on the pieces.
            (Err(whole), Err(read)) if whole.contains("compressed bytes") => {
                assert_eq!(whole.get(..30), read.get(..30));
            }
            _ => assert_eq!(whole, read, "in pieces of {piece_bytes}"),
        }
    }
    whole
}

async fn encoded<W: AsyncWrite + Unpin>(mut encoder: W, plain: &[u8]) -> W {
    encoder.write_all(plain).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder
}

pub(super) async fn gzip(plain: &[u8]) -> Vec<u8> {
    encoded(GzipEncoder::new(Vec::new()), plain).await.into_inner()
}

async fn zstd(plain: &[u8]) -> Vec<u8> {
    encoded(ZstdEncoder::new(Vec::new()), plain).await.into_inner()
}

async fn zlib(plain: &[u8]) -> Vec<u8> {
    encoded(ZlibEncoder::new(Vec::new()), plain).await.into_inner()
}

async fn deflate(plain: &[u8]) -> Vec<u8> {
    encoded(DeflateEncoder::new(Vec::new()), plain).await.into_inner()
}

async fn brotli(plain: &[u8]) -> Vec<u8> {
    encoded(BrotliEncoder::new(Vec::new()), plain).await.into_inner()
}

pub(super) fn utf16(text: &str, little: bool) -> Vec<u8> {
    let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
    units.flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
}

const JSON: &str = "[{\"a\": 1}, {\"b\": \"Qilin ü\"}]\n";

fn json() -> Result<Text, String> {
    Ok((JSON.to_owned(), false))
}

#[tokio::test]
async fn padding_after_a_member_is_skipped() {
    let (head, tail) = JSON.as_bytes().split_at(9);
    for (first, second) in [(gzip(head).await, gzip(tail).await), (zstd(head).await, zstd(tail).await)] {
        for padding in [&b""[..], b"\n", b"\r\n", b" \t\n", &[0; 512], &[0; 70_000], b"\0\n\0"] {
            let after = [&first, &second, padding].concat();
            assert_eq!(read(&after).await, json(), "{} bytes after", padding.len());
            let between = [&first, padding, &second, padding].concat();
            assert_eq!(read(&between).await, json(), "{} bytes between", padding.len());
        }
    }
}

#[tokio::test]
async fn other_bytes_after_a_complete_stream_are_counted() {
    let bodies = [
        (gzip(JSON.as_bytes()).await, "gzip", None),
        (zstd(JSON.as_bytes()).await, "zstd", None),
        (zlib(JSON.as_bytes()).await, "deflate", Some(Coding::Deflate)),
        (brotli(JSON.as_bytes()).await, "br", Some(Coding::Brotli)),
    ];
    for (body, name, coding) in bodies {
        for after in [&b"x"[..], b"\0\0\0more", b"{\"a\": 1}\n"] {
            let why = declared(&[&body[..], after].concat(), coding).await.unwrap_err();
            let expected = format!(
                "{} bytes follow after a complete {name} stream, which ends at byte {}",
                after.len(),
                body.len()
            );
            assert!(why.starts_with(&expected), "{why}");
        }
    }
    // A member of another compression does not count.
    let mixed = [gzip(JSON.as_bytes()).await, zstd(JSON.as_bytes()).await].concat();
    assert!(read(&mixed).await.unwrap_err().contains("bytes follow after a complete gzip stream"));
}

#[tokio::test]
async fn a_skippable_frame_of_zstd_is_skipped() {
    let skippable = [&[0x53, 0x2A, 0x4D, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
    let frame = zstd(JSON.as_bytes()).await;
    for body in [[&skippable[..], &frame].concat(), [&frame[..], &skippable].concat()] {
        assert_eq!(read(&body).await, json());
    }
}

#[tokio::test]
async fn deflate_and_brotli_are_read_if_declared() {
    for body in [zlib(JSON.as_bytes()).await, deflate(JSON.as_bytes()).await] {
        assert_eq!(declared(&body, Some(Coding::Deflate)).await, json());
        assert_eq!(declared(&[&body[..], b"\n"].concat(), Some(Coding::Deflate)).await, json());
    }
    assert_eq!(declared(&brotli(JSON.as_bytes()).await, Some(Coding::Brotli)).await, json());
}

#[tokio::test]
async fn a_wrong_declaration_is_refused_with_the_actual_format() {
    let zipped = gzip(JSON.as_bytes()).await;
    for (body, coding, actual) in [
        (JSON.as_bytes(), Coding::Gzip, "JSON"),
        (b"\xEF\xBB\xBF\n{}", Coding::Zstd, "JSON"),
        (JSON.as_bytes(), Coding::Deflate, "JSON"),
        (JSON.as_bytes(), Coding::Brotli, "JSON"),
        (b"name,latitude", Coding::Gzip, "\"name,latitude\""),
        (&zipped, Coding::Zstd, "gzip"),
        (&zipped, Coding::Brotli, "gzip"),
        (&zipped, Coding::Deflate, "gzip"),
        (b"PK\x03\x04", Coding::Gzip, "a zip archive"),
    ] {
        let why = declared(body, Some(coding)).await.unwrap_err();
        let expected = format!("content_encoding declares {coding}, but the body starts like {actual}: leave");
        assert!(why.starts_with(&expected), "{why}");
    }
    assert_eq!(declared(b"", Some(Coding::Gzip)).await, Ok((String::new(), false)), "an empty document");
}

#[tokio::test]
async fn double_compression_is_refused_by_name() {
    let (once, other) = (gzip(JSON.as_bytes()).await, zstd(JSON.as_bytes()).await);
    for (body, expected) in [
        (gzip(&once).await, "compressed twice: gzip within gzip;"),
        (gzip(&other).await, "compressed twice: zstd within gzip;"),
        (zstd(&once).await, "compressed twice: gzip within zstd;"),
        (zstd(&gzip(&once).await).await, "compressed twice: gzip within zstd;"),
    ] {
        let why = read(&body).await.unwrap_err();
        assert!(why.starts_with(expected), "{why}");
    }
    assert!(read(&gzip(b"PK\x03\x04").await).await.unwrap_err().starts_with("this is a zip archive within gzip,"));
}

#[tokio::test]
async fn cut_and_corrupt_streams_are_refused() {
    let noise: Vec<u8> = (0..9_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
    let bodies = [
        (gzip(&noise).await, None),
        (zstd(&noise).await, None),
        (zlib(&noise).await, Some(Coding::Deflate)),
        (brotli(&noise).await, Some(Coding::Brotli)),
    ];
    for (body, coding) in bodies {
        for length in [body.len() / 2, body.len() - 1] {
            let cut = read_in(&body[..length], coding, LIMITS).await;
            assert!(matches!(cut, Err(ReadError::CutShort(_))), "{coding:?}: {cut:?}");
        }
    }
    let mut corrupt = gzip(&noise).await;
    let crc = corrupt.len() - 6;
    corrupt[crc] ^= 1;
    assert!(matches!(read_in(&corrupt, None, LIMITS).await, Err(ReadError::Corrupt { .. })));
}

#[tokio::test]
async fn utf_16_with_a_mark_is_read_compressed_or_not() {
    for little in [true, false] {
        let body = utf16(JSON, little);
        let marked = Ok((format!("\u{FEFF}{JSON}"), false));
        assert_eq!(read(&body).await, marked);
        assert_eq!(read(&gzip(&body).await).await, marked);
        let long = "[{\"a\": \"é🦄\"}]\n".repeat(9_000);
        assert_eq!(read(&utf16(&long, little)).await, Ok((format!("\u{FEFF}{long}"), false)), "longer than the head");
    }
    let half = [&utf16(JSON, true)[..], &[0x3E, 0xD8]].concat();
    let why = read(&half).await.unwrap_err();
    assert!(why.contains("half a surrogate pair at byte 60 (line 2)"), "{why}");
    assert!(read(&[&utf16(JSON, true)[..], b"x"].concat()).await.unwrap_err().contains("ends in the middle"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(
        start in prop::sample::select(vec![
            &b""[..], b"\x1F\x8B\x08\0", b"\x28\xB5\x2F\xFD", b"\xFF\xFE", b"\xFE\xFF", b"PAR1", b"PK\x03\x04", b"name,latitude\n",
            b"sep=;\n", b"<", b"- a: ",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let body = [start, &bytes].concat();
        block_on(async {
            for coding in [None, Some(Coding::Gzip), Some(Coding::Deflate), Some(Coding::Zstd), Some(Coding::Brotli)] {
                let whole = read_in(&body, coding, LIMITS).await.map_err(|_| ());
                let in_pieces = read_in(&body, coding, Limits { piece_bytes: 3, ..LIMITS }).await.map_err(|_| ());
                assert_eq!(whole, in_pieces);
            }
        });
    }
}

/// A service returns an object in several answers. If the object is replaced in between, the next attempt reads it anew.
#[test]
fn an_object_that_is_replaced_while_it_is_read_is_a_transient_failure() {
    let replaced = object_store::Error::Precondition { path: "raw/x".to_owned(), source: "412".into() };
    let error = super::error::read_error(std::io::Error::other(replaced), 7);
    assert!(matches!(&error, ReadError::Replaced(path) if path == "raw/x"), "{error}");
    assert!(matches!(crate::failure::read_failure(error), common::outcome::Failure::Transient { .. }));
}
