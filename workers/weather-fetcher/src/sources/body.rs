//! Reads one text to its end: decompresses gzip, bounds the size and classifies the faults.

use crate::{
    formats::{
        gzip::{Input, READ_BYTES, gunzip, is_damage},
        lines::{Parsed, Text},
        malformed::Malformed,
    },
    sources::{http::chain, location::Location, unavailable::Unavailable},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::ReaderStream;

/// Parses a text piece by piece. Gzip is recognised by its first bytes, whatever the name of the file.
///
/// # Errors
/// Fails with [`Unavailable::Broken`] if the text cannot be read to its end, and with [`Unavailable::NotWeather`] or
/// [`Unavailable::TooLarge`] if it is not weather.
pub async fn parse_body<T: Text>(
    location: &Location,
    body: impl AsyncRead + Send + Unpin,
    text: T,
) -> Result<Parsed<T::Output>, Unavailable> {
    // The compressed bytes are bounded, too: an endless stream may decompress to nothing.
    let mut compressed = body.take(T::BYTES_MAX + 1);
    let mut input = Input::new(&mut compressed);
    let outcome = match input.is_gzip().await {
        Err(error) => Err(Fault::Unreadable(error)),
        Ok(true) => feed(gunzip(input), text).await,
        Ok(false) => feed(ReaderStream::with_capacity(input, READ_BYTES), text).await,
    };
    let (location, name, bytes_max) = (location.to_string(), T::NAME, T::BYTES_MAX);
    match outcome {
        _ if compressed.limit() == 0 => Err(Unavailable::TooLarge { location, name, bytes_max }),
        Ok(parsed) => Ok(parsed),
        Err(Fault::TooLarge) => Err(Unavailable::TooLarge { location, name, bytes_max }),
        Err(Fault::Malformed(malformed)) => Err(Unavailable::NotWeather { location, name, malformed }),
        Err(Fault::Unreadable(error)) if is_damage(&error) => {
            Err(Unavailable::NotWeather { location, name, malformed: Malformed::new(0, "", error) })
        }
        Err(Fault::Unreadable(error)) => Err(Unavailable::Broken { location, why: chain(&error) }),
    }
}

/// Why parsing stopped before the end of the text.
enum Fault {
    TooLarge,
    Malformed(Malformed),
    Unreadable(io::Error),
}

async fn feed<T: Text>(pieces: impl Stream<Item = io::Result<Bytes>>, mut text: T) -> Result<Parsed<T::Output>, Fault> {
    let mut pieces = std::pin::pin!(pieces);
    let mut total = 0u64;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(Fault::Unreadable)?;
        total += piece.len() as u64;
        if total > T::BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        text.feed(&piece).map_err(Fault::Malformed)?;
    }
    text.finish().map_err(Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{
        ghcn::{AccessAnswer, StationList},
        gzip::tests::gzip,
        lines::{Lines, Rows},
    };

    fn location() -> Location {
        Location::Url("https://noaa.test/x".to_owned())
    }

    fn year() -> AccessAnswer {
        AccessAnswer::new("USW00094728", 2018)
    }

    #[tokio::test]
    async fn an_endless_text_is_refused_compressed_or_not() {
        let beyond = usize::try_from(AccessAnswer::BYTES_MAX).unwrap() + 1;
        let blanks = vec![b' '; beyond];
        let zeros = gzip(&vec![0; 64 * 1024]).await.repeat(beyond / (64 * 1024) + 1);
        let padded = [gzip(b"[]").await, vec![0; beyond]].concat();
        for body in [&blanks, &gzip(&blanks).await, &zeros, &padded] {
            let failure = parse_body(&location(), body.as_slice(), year()).await.unwrap_err();
            let (name, bytes_max) = (AccessAnswer::NAME, AccessAnswer::BYTES_MAX);
            let expected = Unavailable::TooLarge { location: location().to_string(), name, bytes_max };
            assert_eq!(failure, expected, "{} bytes", body.len());
        }
        let list = gzip(&vec![b'\n'; usize::try_from(StationList::BYTES_MAX).unwrap() + 1]).await;
        let failure = parse_body(&location(), list.as_slice(), Lines::new(StationList::default())).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "https://noaa.test/x: more than 67108864 bytes; it is not a usable station list"
        );
        let whole = parse_body(&location(), gzip(b"[]").await.as_slice(), year()).await;
        assert!(whole.is_ok(), "{whole:?}");
    }

    /// Damage to compressed data is a fault of the text, not of the connection.
    #[tokio::test]
    async fn damaged_gzip_is_distinguished_from_a_broken_connection() {
        let packed = gzip(&[b"[", [b' '; 5000].as_slice(), b"]"].concat()).await;
        let mut damaged = packed.clone();
        damaged[20] ^= 0xff;
        let twice = gzip(&packed).await;
        let followed = [packed.as_slice(), b"\0\nmore"].concat();
        for (body, part) in [
            (&packed[..packed.len() - 5], "damaged or cut short"),
            (&packed[..12], "damaged or cut short"),
            (&damaged, "damaged or cut short"),
            (&followed, "4 bytes that are not gzip data follow"),
            (&twice, "gzip data within gzip data"),
        ] {
            let failure = parse_body(&location(), body, year()).await.unwrap_err();
            assert!(matches!(failure, Unavailable::NotWeather { .. }), "{failure:?}");
            assert!(failure.to_string().contains(part), "{failure}");
        }
    }

    #[tokio::test]
    async fn compressed_data_with_padding_is_read() {
        for padding in [&[0; 512][..], b"\n", b"\r\n", b" \0\n"] {
            let body = [&gzip(b"[]").await, padding].concat();
            let whole = parse_body(&location(), body.as_slice(), year()).await;
            assert!(whole.is_ok(), "{padding:?}: {whole:?}");
        }
    }
}
