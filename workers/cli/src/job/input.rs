//! The ride files of a command. Anything other than a regular file (a pipe, a terminal, `<(…)`) can be read only once,
//! so it is copied to a temporary file, which has no name and ends with the process.

use super::waits::Throttle;
use crate::{
    output::progress::{Step, Unit},
    session::Failed,
};
use anyhow::{Context, anyhow};
use indicatif::HumanBytes;
use std::{
    fs::{File, Metadata},
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

/// Name of standard input in messages, and the `source` of its batch.
const STDIN: &str = "stdin";
/// Names of standard input on the command line.
const NAMES_OF_STDIN: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
/// Time without a first byte from a pipe after which the command reports what it waits for.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// A file of rides that can be read from its start as often as needed.
#[derive(Debug)]
pub(crate) struct Input {
    /// As on the command line; `stdin` for standard input.
    pub(crate) shown: PathBuf,
    /// The `source` of its batch: the file's name, `stdin`, or the path of an unnamed pipe.
    pub(crate) source: String,
    file: File,
    /// Where its first byte is in `file`.
    start: u64,
    /// Bytes from there on.
    pub(crate) size: u64,
}

impl Input {
    /// Opens a reader at the first byte. Use one reader at a time: all share one position.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(crate) fn reader(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(self.start))?;
        Ok(file)
    }
}

/// Kind of file that a path leads to.
enum Kind {
    Regular,
    /// A pipe or a device, which can be read once.
    Stream,
}

/// Opens every file of a command before any is used, and reads pipes to their end. `patience`: time without a byte from a
/// pipe after which the command reports that it waits.
///
/// # Errors
/// Fails if a file cannot be read (the error says what to do), if standard input is given twice, or if a pipe ends without
/// a byte.
pub(crate) async fn open_all(paths: &[PathBuf], patience: Duration, quiet: bool) -> Result<Vec<Input>, Failed> {
    let stdin = |path: &&PathBuf| is_stdin(path);
    if paths.iter().filter(stdin).count() > 1 {
        let given: Vec<_> = paths.iter().filter(stdin).map(|path| path.display().to_string()).collect();
        let given = given.join(", ");
        return Err(Failed::Misused(anyhow!("{given}: standard input can be read only once: give it once")));
    }
    let kinds = paths.iter().map(|path| kind(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut inputs = Vec::new();
    for (path, kind) in paths.iter().zip(kinds) {
        inputs.push(match kind {
            Kind::Regular => regular(path)?,
            Kind::Stream => spool(path, patience, quiet).await?,
        });
    }
    Ok(inputs)
}

fn is_stdin(path: &Path) -> bool {
    NAMES_OF_STDIN.iter().any(|name| Path::new(name) == path)
}

fn shown(path: &Path) -> PathBuf {
    if is_stdin(path) { PathBuf::from(STDIN) } else { path.to_owned() }
}

/// Returns the last part of a path, or the whole path of an unnamed pipe, whose last part is a number.
fn source(path: &Path) -> String {
    let shown = shown(path);
    let unnamed = ["/dev/fd", "/proc/self/fd"].iter().any(|folder| shown.parent() == Some(Path::new(folder)));
    match shown.file_name() {
        Some(name) if !unnamed => name.to_string_lossy().into_owned(),
        _ => shown.to_string_lossy().into_owned(),
    }
}

fn stdin_file() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn kind(path: &Path) -> anyhow::Result<Kind> {
    let about = path.display();
    let found = match is_stdin(path) {
        true => {
            stdin_file().and_then(|file| file.metadata()).context("standard input cannot be read; it may be closed")?
        }
        false => match std::fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => anyhow::bail!("{about}: there is no such file"),
            Err(error) => return Err(error).with_context(|| format!("{about}: cannot be inspected")),
        },
    };
    readable(&found).map_err(|why| anyhow!("{about} {why}"))
}

/// Returns how a file can be read. The error describes a file that cannot be read, and what to do.
fn readable(found: &Metadata) -> Result<Kind, &'static str> {
    let what = found.file_type();
    if what.is_dir() {
        Err("is a folder: name the files in it, as in folder/*.json")
    } else if what.is_socket() {
        Err("is a socket, which cannot be opened as a file: pipe what it sends into `-`")
    } else if what.is_file() {
        Ok(Kind::Regular)
    } else {
        Ok(Kind::Stream)
    }
}

fn regular(path: &Path) -> anyhow::Result<Input> {
    let about = || format!("{}: cannot be read", path.display());
    let mut file = if is_stdin(path) { stdin_file() } else { File::open(path) }.with_context(about)?;
    // The caller may have read part of standard input already.
    let start = if path == Path::new("-") { file.stream_position().with_context(about)? } else { 0 };
    let size = file.metadata().with_context(about)?.len().saturating_sub(start);
    Ok(Input { shown: shown(path), source: source(path), file, start, size })
}

/// State of a pipe that is being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PipeState {
    /// Whether a process has opened the pipe for writing.
    opened: bool,
    bytes: u64,
}

/// Why a pipe could not be copied.
#[derive(Debug)]
enum SpoolError {
    Read(io::Error),
    /// The temporary file.
    Write(io::Error),
}

/// Reads a pipe to its end into a temporary file.
async fn spool(path: &Path, patience: Duration, quiet: bool) -> Result<Input, Failed> {
    let (shown, source) = (shown(path), source(path));
    let name = shown.display().to_string();
    let terminal = is_stdin(path) && io::stdin().is_terminal();
    if terminal {
        eprintln!("reading rides from the terminal; Ctrl-D ends the input");
    }
    let (state, pipe_state) = watch::channel(PipeState::default());
    let (done, ended) = oneshot::channel();
    let opened = path.to_owned();
    // A separate thread: a pipe without a writer blocks its thread for ever, and the runtime would wait for it at its end.
    std::thread::spawn(move || {
        let _ = done.send(copy(&opened, &state));
    });
    let silence = Silence { name: &name, patience, terminal };
    let copied = silence.watch(pipe_state, ended, Step::start(format!("reading {name}"), Unit::Bytes, 0, quiet)).await;
    let (file, size) = copied.map_err(|error| unreadable(&name, error))?;
    if size == 0 {
        return Err(Failed::Broken(anyhow!(
            "{name} is empty: the pipe ended before its first byte; the command that writes to it may have failed"
        )));
    }
    Ok(Input { shown, source, file, start: 0, size })
}

fn copy(path: &Path, state: &watch::Sender<PipeState>) -> Result<(File, u64), SpoolError> {
    const PIECE_BYTES: usize = 256 * 1024;
    let mut from = if is_stdin(path) { stdin_file() } else { File::open(path) }.map_err(SpoolError::Read)?;
    state.send_modify(|pipe_state| pipe_state.opened = true);
    let mut file = tempfile::tempfile().map_err(SpoolError::Write)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok((file, bytes)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Read(error)),
        };
        file.write_all(&piece[..read]).map_err(SpoolError::Write)?;
        bytes += read as u64;
        state.send_modify(|pipe_state| pipe_state.bytes = bytes);
    }
}

fn unreadable(name: &str, error: SpoolError) -> Failed {
    let folder = std::env::temp_dir();
    Failed::Broken(match error {
        SpoolError::Read(error) => anyhow!("{name}: cannot be read: {error}"),
        SpoolError::Write(error) => anyhow!(
            "{name}: cannot be copied to the folder {}: {error}. Set TMPDIR to a folder with enough room for {name}",
            folder.display()
        ),
    })
}

/// Reports what the command waits for while a pipe sends no bytes.
struct Silence<'a> {
    name: &'a str,
    patience: Duration,
    terminal: bool,
}

impl Silence<'_> {
    async fn watch(
        &self,
        mut pipe_state: watch::Receiver<PipeState>,
        mut ended: oneshot::Receiver<Result<(File, u64), SpoolError>>,
        step: Step,
    ) -> Result<(File, u64), SpoolError> {
        let mut throttle = Throttle::default();
        let mut moved = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        loop {
            tokio::select! {
                biased;
                done = &mut ended => {
                    let lost = |_| Err(SpoolError::Read(io::Error::other("the reading thread ended")));
                    let done = done.unwrap_or_else(lost);
                    if let Ok((_, size)) = &done {
                        step.done(*size);
                    }
                    return done;
                }
                Ok(()) = pipe_state.changed() => {
                    step.at(pipe_state.borrow_and_update().bytes);
                    moved = Instant::now();
                }
                _ = tick.tick() => {
                    let now = *pipe_state.borrow();
                    if let Some(text) = self.text(now, moved.elapsed()) && throttle.is_due(text) {
                        let so_far = if now.bytes > 0 { format!(" ({} so far)", HumanBytes(now.bytes)) } else { String::new() };
                        step.say(&format!("{}: {text}{so_far}", self.name));
                    }
                }
            }
        }
    }

    /// Returns the message after `silent` without a byte; `None` if it is too early for one.
    fn text(&self, pipe_state: PipeState, silent: Duration) -> Option<&'static str> {
        match pipe_state {
            // A person is typing.
            _ if self.terminal => None,
            PipeState { opened: false, .. } if silent >= REPORT_AFTER => {
                Some("waits for a writer: no process has opened this pipe for writing yet")
            }
            PipeState { opened: true, bytes: 0 } if silent >= REPORT_AFTER => {
                Some("waits for the first byte: the command that writes to this pipe has sent nothing yet")
            }
            PipeState { bytes: 1.., .. } if silent >= self.patience.max(REPORT_AFTER) => {
                Some("waits for more: the command that writes to this pipe pauses, and has not closed it")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_named_stdin_and_an_unnamed_pipe_by_its_path() {
        for (path, expected_name, expected_source) in [
            ("-", "stdin", "stdin"),
            ("/dev/stdin", "stdin", "stdin"),
            ("/dev/fd/63", "/dev/fd/63", "/dev/fd/63"),
            ("/proc/self/fd/11", "/proc/self/fd/11", "/proc/self/fd/11"),
            ("folder/rides.json.gz", "folder/rides.json.gz", "rides.json.gz"),
            ("./-", "./-", "-"),
        ] {
            assert_eq!(
                (shown(Path::new(path)), source(Path::new(path)).as_str()),
                (expected_name.into(), expected_source),
                "{path}"
            );
        }
    }

    #[test]
    fn silent_pipe_is_reported_with_its_cause() {
        let silence = Silence { name: "p", patience: Duration::from_secs(10), terminal: false };
        let text = |opened, bytes, secs| silence.text(PipeState { opened, bytes }, Duration::from_secs(secs));
        assert_eq!((text(false, 0, 0), text(true, 0, 0), text(true, 7, 9)), (None, None, None));
        assert!(text(false, 0, 1).unwrap().contains("a writer"));
        assert!(text(true, 0, 1).unwrap().contains("first byte"));
        assert!(text(true, 7, 10).unwrap().contains("more"));
        let typed = Silence { terminal: true, ..silence };
        assert_eq!(typed.text(PipeState { opened: true, bytes: 0 }, Duration::from_secs(60)), None);
    }

    #[test]
    fn unreadable_file_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, expected) in [
            (folder.path().to_owned(), "is a folder: name the files in it"),
            (socket, "is a socket"),
            (folder.path().join("nothing"), "there is no such file"),
        ] {
            let why = kind(&path).err().unwrap().to_string();
            assert!(why.contains(expected) && why.contains(path.to_str().unwrap()), "{why}");
        }
    }

    #[tokio::test]
    async fn standard_input_is_accepted_once() {
        let paths = ["-", "/dev/stdin"].map(PathBuf::from);
        let Err(Failed::Misused(error)) = open_all(&paths, Duration::ZERO, true).await else { panic!("taken twice") };
        assert!(error.to_string().contains("once"), "{error}");
    }

    #[tokio::test]
    async fn file_can_be_read_repeatedly_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rides.json");
        std::fs::write(&path, "[1]").unwrap();
        let inputs = open_all(&[path], Duration::ZERO, true).await.unwrap();
        for _ in 0..2 {
            let mut text = String::new();
            inputs[0].reader().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), inputs[0].size), ("[1]", 3));
        }
    }
}
