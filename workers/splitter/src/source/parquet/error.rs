//! The refusals of a Parquet file.

/// Why a Parquet file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidParquet {
    /// The footer at the end of the file is missing.
    #[error("the Parquet file has no footer at its end: it was cut short on its way, after {0} bytes; copy it again")]
    CutShort(u64),
    /// The file contradicts itself or the format.
    #[error("the Parquet file is broken: {0}; write it again")]
    Broken(String),
    /// The file uses an unsupported part of the format.
    #[error("the Parquet file has {what}, which is not read: {advice}")]
    Unsupported {
        /// With its article.
        what: String,
        /// What to do instead, as an imperative.
        advice: &'static str,
    },
    /// The file is larger than the limit for spooling.
    #[error(
        "the Parquet file is larger than splitter.decompressed_bytes_max ({0} bytes); split it, or raise the setting"
    )]
    TooLarge(u64),
    /// The file system of the temporary folder is smaller than the file.
    #[error(
        "the Parquet file is larger than the temporary folder {folder} can hold ({capacity} bytes); split it, or give the splitter a larger one (TMPDIR)"
    )]
    LargerThanFolder {
        /// The temporary folder.
        folder: String,
        /// Size of its file system, bytes.
        capacity: u64,
    },
}

impl InvalidParquet {
    /// Returns the stable code of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CutShort(_) => "cut_short",
            Self::Broken(_) => "invalid_parquet",
            Self::Unsupported { .. } => "unsupported_format",
            Self::TooLarge(_) | Self::LargerThanFolder { .. } => "expands_too_much",
        }
    }
}
