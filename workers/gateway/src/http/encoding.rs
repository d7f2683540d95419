//! The header `Content-Encoding` of a request's body (RFC 9110 §8.4).

use super::problem::{CODINGS, Problem};
use axum::http::{HeaderMap, header};
use common::coding::{Coding, is_no_compression};
use runtime::compression::BadCompression;

/// Maximum number of codings of a body that the gateway reads.
const READ_MAX: usize = 2;
/// Maximum number of codings of a batch, which the splitter reads.
const BATCH_MAX: usize = 1;

/// Returns the codings of a body in the order in which they were applied; empty if it is not compressed. Names of character
/// sets are skipped.
///
/// # Errors
/// 415 on an unknown coding, or on too many.
pub(crate) fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, Problem> {
    read(headers, READ_MAX)
}

/// Returns the coding that the header of a batch names.
///
/// # Errors
/// 415 on an unknown coding, or on more than one.
pub(crate) fn coding_of_batch(headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
    read(headers, BATCH_MAX).map(|codings| codings.first().copied())
}

fn read(headers: &HeaderMap, most: usize) -> Result<Vec<Coding>, Problem> {
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        for name in value.split([',', ';', ':']).map(str::trim).filter(|name| !is_no_compression(name)) {
            let coding = Coding::named(name).ok_or_else(|| {
                let excerpt: String = name.chars().take(40).collect();
                let detail = format!("Content-Encoding is {excerpt:?}: expected one of {CODINGS}, or no such header");
                Problem::unsupported_coding(detail)
            })?;
            codings.push(coding);
        }
    }
    if codings.len() > most {
        let detail = format!("Content-Encoding names {} compressions: expected at most {most}", codings.len());
        return Err(Problem::unsupported_coding(detail));
    }
    Ok(codings)
}

impl From<BadCompression> for Problem {
    fn from(bad: BadCompression) -> Self {
        match &bad {
            BadCompression::TooLarge { .. } | BadCompression::Expands { .. } => Self::too_large(bad.to_string()),
            BadCompression::Other { coding, actual } => Self::unreadable(format!(
                "Content-Encoding is {coding}, but the body starts like {actual}: leave the header out, or name the body's \
                 compression"
            )),
            BadCompression::Broken { .. } | BadCompression::Trailing { .. } => {
                Self::unreadable(format!("the body cannot be decompressed: {bad}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, StatusCode};

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::CONTENT_ENCODING, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn codings_are_read_in_order_and_character_sets_are_skipped() {
        use Coding::{Brotli, Deflate, Gzip, Zstd};
        for (values, expected) in [
            (vec![], vec![]),
            (vec![""], vec![]),
            (vec!["identity"], vec![]),
            (vec!["utf-8"], vec![]),
            (vec!["UTF-8"], vec![]),
            (vec!["gzip"], vec![Gzip]),
            (vec!["X-GZIP"], vec![Gzip]),
            (vec!["deflate"], vec![Deflate]),
            (vec!["br"], vec![Brotli]),
            (vec![" Zstd "], vec![Zstd]),
            (vec!["gzip, utf-8"], vec![Gzip]),
            (vec!["gzip:UTF-8"], vec![Gzip]),
            (vec!["deflate, gzip"], vec![Deflate, Gzip]),
            (vec!["br", "gzip"], vec![Brotli, Gzip]),
            (vec!["gzip,,identity"], vec![Gzip]),
        ] {
            assert_eq!(codings(&headers(&values)), Ok(expected), "{values:?}");
        }
        for value in ["compress", "lzma", "gzip, snappy", "aws-chunked", "*", "gzip, gzip, gzip"] {
            let problem = codings(&headers(&[value])).unwrap_err();
            assert_eq!(problem.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{value}");
            assert!(problem.detail().starts_with("Content-Encoding "), "{value}: {}", problem.detail());
        }
    }

    #[test]
    fn a_batch_has_at_most_one_coding() {
        for (value, expected) in [
            ("gzip", Some(Coding::Gzip)),
            ("ZSTD", Some(Coding::Zstd)),
            ("br", Some(Coding::Brotli)),
            ("deflate", Some(Coding::Deflate)),
            ("utf-8", None),
            ("identity", None),
            ("gzip, utf-8", Some(Coding::Gzip)),
            ("binary", None),
        ] {
            assert_eq!(coding_of_batch(&headers(&[value])), Ok(expected), "{value}");
        }
        for (value, part) in [("compress", "gzip, deflate, zstd, br"), ("gzip, gzip", "at most 1")] {
            let problem = coding_of_batch(&headers(&[value])).unwrap_err();
            assert!(problem.detail().contains(part), "{value}: {}", problem.detail());
        }
    }
}
