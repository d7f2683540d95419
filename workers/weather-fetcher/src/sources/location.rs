//! Where a text is: a URL or a path.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Returns an address without user and password, which stand before the host.
pub fn redacted_url(text: &str) -> String {
    match text.split_once("://").zip(text.rsplit_once('@')) {
        Some(((scheme, _), (_, host))) => format!("{scheme}://…@{host}"),
        None => text.to_owned(),
    }
}

/// Where a text can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `http://…` or `https://…`.
    Url(String),
    /// A local file or folder.
    File(PathBuf),
}

impl Location {
    /// Parses a URL or a path; `file:///…` is a path.
    ///
    /// # Errors
    /// Returns what is expected if the text is neither.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.split_once("://") {
            // It would appear in logs and error messages.
            Some(("http" | "https", rest)) if rest.split(['/', '?', '#']).next().is_some_and(|at| at.contains('@')) => {
                Err("an address without a user or a password: weather is public and needs neither")
            }
            Some(("http" | "https", rest)) if !rest.trim_start_matches('/').is_empty() => {
                Ok(Self::Url(text.trim_end_matches('/').to_owned()))
            }
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(_) => Err("an http:// or https:// URL with a host, or a path"),
            None if text.trim().is_empty() => Err("an http:// or https:// URL, or a path"),
            None => Ok(Self::File(text.into())),
        }
    }

    pub(super) fn join(&self, name: &str) -> Self {
        match self {
            Self::Url(base) => Self::Url(format!("{base}/{name}")),
            Self::File(base) => Self::File(base.join(name)),
        }
    }

    pub(super) fn sibling(&self, name: &str) -> Self {
        match self {
            Self::Url(url) => Self::Url(format!("{}/{name}", url.rsplit_once('/').map_or("", |(folder, _)| folder))),
            Self::File(path) => Self::File(path.with_file_name(name)),
        }
    }

    /// Returns the location itself and that of the same file compressed.
    pub(super) fn or_gzipped(self) -> [Self; 2] {
        let gzipped = match &self {
            Self::Url(url) => Self::Url(format!("{url}.gz")),
            Self::File(path) => {
                let mut path = path.clone().into_os_string();
                path.push(".gz");
                Self::File(path.into())
            }
        };
        [self, gzipped]
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Returns a hint about the first of these files that exists in an unsupported compression; empty if there is none.
pub(crate) fn other_compression(locations: &[Location]) -> String {
    let plain = locations.iter().find_map(|location| match location {
        Location::File(path) if path.extension().is_none_or(|extension| extension != "gz") => Some(path),
        _ => None,
    });
    let Some(plain) = plain else { return String::new() };
    let others =
        ["zst", "bz2", "xz", "zip", "7z", "lz4", "br", "Z"].map(|suffix| format!("{}.{suffix}", plain.display()));
    match others.iter().find(|other| Path::new(other).is_file()) {
        Some(other) => format!(" ({other} exists but is not read: decompress it, or compress it with gzip)"),
        None => String::new(),
    }
}
