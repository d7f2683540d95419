//! `export`: writes the joined dataset as one file for a notebook.

mod parquet;

use self::parquet::ParquetFile;
use crate::{
    arguments::{Export, ExportFormat},
    notebook::{
        dataset::{Datasets, FIELDS, LeftOut, Rows},
        dictionary,
    },
    output::{Output, print_json},
    session::{Failed, Session},
};
use anyhow::{Context, anyhow};
use indicatif::{HumanBytes, HumanCount};
use runtime::shutdown;
use serde_json::json;
use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

const WRITE_BYTES: usize = 256 * 1024;

/// `export`
pub(crate) async fn export(session: &Session, options: &Export) -> Result<(), Failed> {
    if options.dictionary {
        return dictionary::print(session.shared.json);
    }
    let format = format(options);
    let target = Target::of(session, options, format)?;
    let datasets = Datasets::select(session, &options.selection).await?;
    let shutdown = shutdown::on_signal()?;
    let open = target.open()?;
    let working = async {
        let mut encoder = encoder(format, open.writer()?, &datasets)?;
        let mut rides = 0;
        let left_out = datasets
            .read("exporting", session.shared.json, |batch_id, rows, kept| {
                rides += kept.len() as u64;
                encoder.write(batch_id, rows, kept)
            })
            .await?;
        encoder.finish()?;
        Ok::<_, anyhow::Error>((rides, left_out))
    };
    let (rides, left_out) = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Err(Failed::Broken(anyhow!("interrupted: nothing was exported, or not all"))),
        done = working => done.with_context(|| format!("exporting to {}", target.name()))?,
    };
    open.publish()?;
    print_result(session, &datasets, &target, format, rides, left_out)
}

/// Returns the format of the option, else the one of the file's extension.
fn format(options: &Export) -> ExportFormat {
    let extension = options.out.as_deref().and_then(Path::extension);
    let is_parquet = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    options.format.unwrap_or(if is_parquet { ExportFormat::Parquet } else { ExportFormat::Csv })
}

/// Destination of an export.
enum Target {
    Stdout,
    File { path: PathBuf, dictionary: Option<PathBuf>, force: bool },
}

/// A destination during an export: a temporary file that is removed unless it is published.
enum OpenTarget<'a> {
    Stdout,
    File { file: NamedTempFile, path: &'a Path, dictionary: Option<&'a Path>, force: bool },
}

impl Target {
    /// Checks the destination before anything is read.
    fn of(session: &Session, options: &Export, format: ExportFormat) -> Result<Self, Failed> {
        let misused = |why: String| Err(Failed::Misused(anyhow!(why)));
        if options.out.as_deref().is_some_and(|out| out.as_os_str() == "-") {
            if session.shared.json {
                return misused("with --out - the rides go to standard output: omit --json".to_owned());
            }
            if format == ExportFormat::Parquet && io::stdout().is_terminal() {
                return misused(
                    "Parquet cannot be printed to a terminal: redirect it, or name a file with --out".to_owned(),
                );
            }
            return Ok(Self::Stdout);
        }
        let path = options.out.clone().unwrap_or_else(|| match format {
            ExportFormat::Csv => "rides.csv".into(),
            ExportFormat::Parquet => "rides.parquet".into(),
        });
        let (Some(name), folder) = (path.file_name(), folder_of(&path)) else {
            return misused(format!("--out {} names no file", path.display()));
        };
        if !folder.is_dir() {
            return misused(format!("--out {}: there is no folder {}", path.display(), folder.display()));
        }
        let dictionary = (!options.no_dictionary).then(|| path.with_file_name(dictionary_name(name)));
        for file in [Some(&path), dictionary.as_ref()].into_iter().flatten() {
            let Ok(metadata) = fs::metadata(file) else { continue };
            let name = file.display();
            if !metadata.is_file() {
                return misused(format!("{name} exists and is not a regular file; --out - writes to standard output"));
            }
            let is_same_dictionary = file != &path && fs::read(file).is_ok_and(|bytes| bytes == dictionary_file());
            if !options.force && !is_same_dictionary {
                return misused(format!("{name} exists: --force replaces it, --out names another file"));
            }
        }
        Ok(Self::File { path, dictionary, force: options.force })
    }

    fn open(&self) -> anyhow::Result<OpenTarget<'_>> {
        let Self::File { path, dictionary, force } = self else { return Ok(OpenTarget::Stdout) };
        let file = temporary(path).with_context(|| format!("creating a file in {}", folder_of(path).display()))?;
        Ok(OpenTarget::File { file, path, dictionary: dictionary.as_deref(), force: *force })
    }

    fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}

impl OpenTarget<'_> {
    fn writer(&self) -> anyhow::Result<Writer> {
        Ok(match self {
            Self::Stdout => Box::new(BufWriter::with_capacity(WRITE_BYTES, Output)),
            Self::File { file, .. } => Box::new(BufWriter::with_capacity(WRITE_BYTES, file.reopen()?)),
        })
    }

    /// Gives the complete file its name, after the dictionary.
    fn publish(self) -> anyhow::Result<()> {
        let Self::File { file, path, dictionary, force } = self else { return Ok(()) };
        if let Some(dictionary) = dictionary {
            let mut file = temporary(dictionary)?;
            file.write_all(&dictionary_file())?;
            file.as_file().sync_all()?;
            file.persist(dictionary).with_context(|| format!("writing {}", dictionary.display()))?;
        }
        file.as_file().sync_all().with_context(|| format!("writing {}", path.display()))?;
        // Another export may have created the file meanwhile.
        let renamed = if force { file.persist(path) } else { file.persist_noclobber(path) };
        renamed.map(drop).with_context(|| format!("creating {}", path.display()))
    }
}

/// Creates a temporary file in the folder of `path`; it is removed unless it is renamed.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    // The permissions of any new file; the umask is applied to them.
    let permissions = Permissions::from_mode(0o666);
    tempfile::Builder::new().prefix(&prefix).suffix(".partial").permissions(permissions).tempfile_in(folder_of(path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn dictionary_name(name: &std::ffi::OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push(".dictionary.json");
    name
}

fn dictionary_file() -> Vec<u8> {
    format!("{:#}\n", dictionary::as_json()).into_bytes()
}

/// Encodes rides as the bytes of a file.
trait Encoder: Send {
    fn write(&mut self, batch_id: &str, rows: &Rows, kept: &[usize]) -> anyhow::Result<()>;

    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

type Writer = Box<dyn Write + Send>;

fn encoder(format: ExportFormat, writer: Writer, datasets: &Datasets) -> anyhow::Result<Box<dyn Encoder>> {
    Ok(match format {
        ExportFormat::Csv => {
            let mut csv = csv::Writer::from_writer(writer);
            csv.write_record(dictionary::columns().map(|column| column.name))?;
            Box::new(csv)
        }
        ExportFormat::Parquet => {
            let batches: Vec<_> = datasets.manifests.iter().map(|manifest| manifest.batch_id.as_str()).collect();
            Box::new(ParquetFile::start(writer, &batches)?)
        }
    })
}

impl Encoder for csv::Writer<Writer> {
    fn write(&mut self, batch_id: &str, rows: &Rows, kept: &[usize]) -> anyhow::Result<()> {
        for &row in kept {
            self.write_field(batch_id)?;
            for field in 0..FIELDS {
                self.write_field(rows.field(row, field))?;
            }
            self.write_record(None::<&[u8]>)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.into_inner().map_err(|error| error.into_error())?.flush()?)
    }
}

impl Encoder for ParquetFile<Writer> {
    fn write(&mut self, batch_id: &str, rows: &Rows, kept: &[usize]) -> anyhow::Result<()> {
        Ok(self.add(batch_id, rows, kept)?)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.end()?)
    }
}

fn print_result(
    session: &Session,
    datasets: &Datasets,
    target: &Target,
    format: ExportFormat,
    rides: u64,
    left_out: LeftOut,
) -> Result<(), Failed> {
    let LeftOut { unlabelled, duplicates } = left_out;
    if session.shared.json {
        let Target::File { path, dictionary, .. } = target else { return Ok(()) };
        let batches: Vec<_> = datasets.manifests.iter().map(|manifest| &manifest.batch_id).collect();
        let document = json!({
            "file": path, "format": match format { ExportFormat::Csv => "csv", ExportFormat::Parquet => "parquet" },
            "bytes": fs::metadata(path)?.len(), "rides": rides, "batches": batches, "revisions": datasets.revisions(),
            "left_out": { "unlabelled": unlabelled, "duplicates": duplicates }, "dictionary": dictionary,
        });
        return print_json(&document);
    }
    let mut lines = Vec::new();
    if let Target::File { path, dictionary, .. } = target {
        let mut batches = match datasets.manifests.len() {
            1 => "1 batch".to_owned(),
            count => format!("{} batches", HumanCount(count as u64)),
        };
        match datasets.revisions() {
            later if later.is_empty() => {}
            later => batches.push_str(&format!(" ({} refreshed: the newest revision)", HumanCount(later.len() as u64))),
        }
        let bytes = HumanBytes(fs::metadata(path)?.len());
        lines.push(format!("{}: {} rides of {batches}, {bytes}", path.display(), HumanCount(rides)));
        lines.extend(
            dictionary.iter().map(|dictionary| format!("{}: the meaning of each column", dictionary.display())),
        );
    }
    if unlabelled > 0 {
        lines.push(format!("left out: {} rides without a label", HumanCount(unlabelled)));
    }
    if duplicates > 0 {
        lines.push(format!("left out: {} rides with ids of another batch", HumanCount(duplicates)));
    }
    for line in lines {
        match target {
            Target::Stdout => eprintln!("{line}"),
            Target::File { .. } => println!("{line}"),
        }
    }
    Ok(())
}
