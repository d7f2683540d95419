//! Errors of the services for people: one line, without secrets.
//!
//! A service answers with an XML document, which may repeat the session token of the request. Only its code and its message are
//! kept.

use object_store::Error;

/// Maximum length of the text of an error, characters.
const CHARS_MAX: usize = 600;
/// Hosts of the services that give a machine its credentials. The clients ask them if the environment has none.
const METADATA_HOSTS: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];

/// Shortens the text of an error. A missing bucket is not a missing object: that error becomes a general one.
pub(super) fn legible(error: Error) -> Error {
    match error {
        Error::NotFound { source, .. } if names_missing_bucket(&full_text(&*source)) => {
            Error::Generic { store: "cloud", source: format!("the bucket does not exist: {}", text(&*source)).into() }
        }
        Error::NotFound { path, source } => Error::NotFound { path, source: text(&*source).into() },
        Error::AlreadyExists { path, source } => Error::AlreadyExists { path, source: text(&*source).into() },
        Error::Precondition { path, source } => Error::Precondition { path, source: text(&*source).into() },
        Error::NotModified { path, source } => Error::NotModified { path, source: text(&*source).into() },
        Error::PermissionDenied { path, source } => Error::PermissionDenied { path, source: text(&*source).into() },
        Error::Unauthenticated { path, source } => Error::Unauthenticated { path, source: text(&*source).into() },
        Error::NotSupported { source } => Error::NotSupported { source: text(&*source).into() },
        Error::Generic { store, source } => Error::Generic { store, source: text(&*source).into() },
        other => other,
    }
}

/// Codes of S3 and Google, and of Azure.
fn names_missing_bucket(text: &str) -> bool {
    text.contains("NoSuchBucket") || text.contains("ContainerNotFound")
}

fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        // Most errors of the client repeat the text of their cause.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn text(error: &dyn std::error::Error) -> String {
    let full = full_text(error);
    let said = match full.find("<?xml").or_else(|| full.find("<Error")) {
        Some(start) => {
            let (before, document) = full.split_at(start);
            let parts = ["Code", "Message"].map(|name| element(document, name).unwrap_or_default());
            format!("{}{}", before.trim_end_matches('\u{feff}'), parts.join(": "))
        }
        None => full,
    };
    let is_unsafe = |c: char| c.is_control() || !common::text::is_printable(c);
    let mut line: String = said.chars().take(CHARS_MAX).map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
    if METADATA_HOSTS.iter().any(|host| line.contains(host)) {
        line.insert_str(0, "no credentials in the environment, and the metadata service of this machine gives none: ");
    }
    line
}

/// Returns the text of the first element of this name, which has no attributes.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn the_answer_of_a_service_becomes_one_line_without_a_token() {
        let answer = "Error performing PUT http://h/b/k in 2ms - Server returned non-2xx status code: 400 Bad Request: \
             <?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message>\
             <Token-0>shibboleth</Token-0></Error>";
        let text = legible(generic(answer)).to_string();
        assert!(text.ends_with("400 Bad Request: ExpiredToken: The provided token has expired."), "{text}");
        assert!(!text.contains("shibboleth") && !text.contains('\n'));
        let long = legible(generic(&format!("a\u{1b}b{}", "x".repeat(5_000)))).to_string();
        assert!(long.contains("a b") && long.len() < 700, "{long}");
    }

    /// Reads take a missing object for granted; a missing bucket is a mistake that they must report.
    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let missing = |body: &str| legible(Error::NotFound { path: "a".to_owned(), source: body.to_owned().into() });
        let bucket = missing("404: <Error><Code>NoSuchBucket</Code><Message>none</Message></Error>");
        assert!(matches!(&bucket, Error::Generic { .. }) && bucket.to_string().contains("the bucket does not exist"));
        assert!(matches!(missing("<Error><Code>NoSuchKey</Code></Error>"), Error::NotFound { .. }));
        assert!(matches!(
            missing("\u{feff}<?xml?><Error><Code>ContainerNotFound</Code></Error>"),
            Error::Generic { .. }
        ));
    }

    #[test]
    fn missing_credentials_are_named() {
        let text = legible(generic("Error performing PUT http://169.254.169.254/latest/api/token in 1s")).to_string();
        assert!(text.contains("no credentials in the environment"), "{text}");
    }
}
