//! The header `Content-Encoding` of a request's body (RFC 9110 §8.4).

use crate::problem::Problem;
use axum::http::{HeaderMap, header};
use common::{
    contract::coding::{Coding, is_no_compression},
    runtime::compression::BadCompression,
};

/// Compressions of one body at most.
const CODINGS_MAX: usize = 2;

/// Where a body is read, which decides the accepted codings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Read by the gateway.
    Here,
    /// Stored as it comes, and read by the splitter.
    BySplitter,
}

impl Taken {
    /// Names of the accepted codings, as a header lists them.
    pub(crate) fn names(self) -> &'static str {
        match self {
            Self::Here => "gzip, deflate, zstd, br, identity",
            Self::BySplitter => "gzip, zstd, identity",
        }
    }

    fn has(self, coding: Coding) -> bool {
        self == Self::Here || matches!(coding, Coding::Gzip | Coding::Zstd)
    }
}

/// How a body is compressed, in the order in which the codings were applied; empty if it is not. Names of character
/// sets say nothing about compression and are skipped.
///
/// # Errors
/// Fails with 415 on an unknown coding, or on too many.
pub(crate) fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, Problem> {
    read(headers, Taken::Here)
}

/// Checks that a batch is compressed in a way that the splitter recognises by its first bytes.
///
/// # Errors
/// Fails with 415 on another coding, or on too many.
pub(crate) fn check_of_batch(headers: &HeaderMap) -> Result<(), Problem> {
    read(headers, Taken::BySplitter).map(drop)
}

fn read(headers: &HeaderMap, taken: Taken) -> Result<Vec<Coding>, Problem> {
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        for name in value.split([',', ';', ':']).map(str::trim).filter(|name| !is_no_compression(name)) {
            let coding = Coding::named(name).filter(|coding| taken.has(*coding)).ok_or_else(|| {
                let shown: String = name.chars().take(40).collect();
                let detail =
                    format!("Content-Encoding is {shown:?}: expected one of {}, or no such header", taken.names());
                Problem::unsupported_coding(detail, taken)
            })?;
            codings.push(coding);
        }
    }
    if codings.len() > CODINGS_MAX {
        let detail = format!("Content-Encoding names {} compressions: expected at most {CODINGS_MAX}", codings.len());
        return Err(Problem::unsupported_coding(detail, taken));
    }
    Ok(codings)
}

impl From<BadCompression> for Problem {
    fn from(bad: BadCompression) -> Self {
        match &bad {
            BadCompression::TooLarge { .. } | BadCompression::Expands { .. } => Self::too_large(bad.to_string()),
            BadCompression::Other { coding, found } => Self::unreadable(format!(
                "Content-Encoding is {coding}, but the body starts like {found}: leave the header out, or make it say how the body \
                 is compressed"
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
    fn codings_are_read_in_order_and_character_sets_are_none() {
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
    fn a_batch_may_come_in_what_the_splitter_reads() {
        for value in ["gzip", "ZSTD", "utf-8", "identity", "gzip, utf-8", "binary"] {
            assert_eq!(check_of_batch(&headers(&[value])), Ok(()), "{value}");
        }
        for value in ["br", "deflate", "compress"] {
            let problem = check_of_batch(&headers(&[value])).unwrap_err();
            assert!(
                problem.detail().contains(value) && problem.detail().contains("gzip, zstd"),
                "{}",
                problem.detail()
            );
        }
    }
}
