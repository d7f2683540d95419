//! Standard output and error, and questions to the user. Depends on `session`.
//!
//! A reader that stops reading (`wildrydes topology show | head -1`) ends the process successfully. The macros of this crate
//! replace those of the standard library, which panic.

use crate::session::{Failed, Session};
use anyhow::{Context, anyhow};
use common::text::is_printable;
use serde::Serialize;
use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal, Write},
    path::Path,
    process,
};

/// Prints a line to standard output.
macro_rules! println {
    () => {
        $crate::output::print(format_args!("\n"))
    };
    ($($text:tt)*) => {
        $crate::output::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// Prints to standard output.
macro_rules! print {
    ($($text:tt)*) => {
        $crate::output::print(format_args!($($text)*))
    };
}

/// Prints a line to standard error.
macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::output::eprint_line(format_args!($($text)*))
    };
}

pub(crate) mod progress;

/// Refuses to replace an existing regular file unless `force` is set.
///
/// # Errors
/// Fails as misused if the file exists.
pub(crate) fn refuse_to_replace(path: &Path, force: bool) -> Result<(), Failed> {
    if !force && std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        let path = path.display();
        return Err(Failed::Misused(anyhow!("{path} exists: --force replaces it; or name another file")));
    }
    Ok(())
}

/// Standard output; ends the process once its reader is gone.
pub(crate) struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_end(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        or_end(io::stdout().flush())
    }
}

/// Wraps a text at blanks into lines of at most `width` characters.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Prints a document as indented JSON.
///
/// # Errors
/// Fails if it cannot be written as JSON.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failed> {
    println!("{}", serde_json::to_string_pretty(document)?);
    Ok(())
}

/// Checks that a question can be asked. `effect` describes what the command would do.
///
/// # Errors
/// Fails as misused if there is no terminal to ask on.
pub(crate) fn can_ask(session: &Session, effect: &str) -> Result<(), Failed> {
    match session.shared.json || !io::stdin().is_terminal() {
        true => Err(Failed::Misused(anyhow!("{effect}; there is no terminal to ask on: confirm with --yes"))),
        false => Ok(()),
    }
}

/// Asks a question; returns whether the answer is yes.
///
/// # Errors
/// Fails if the terminal cannot be read.
pub(crate) fn ask(question: &str) -> Result<bool, Failed> {
    print(format_args!("{question} [y/N] "));
    Output.flush().context("asking")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("asking")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn or_end<T>(result: io::Result<T>) -> io::Result<T> {
    if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        process::exit(0);
    }
    result
}

/// Implements `print!`.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    if let Err(error) = Output.write_fmt(text) {
        eprint_line(format_args!("error: writing to standard output: {error}"));
        process::exit(1);
    }
}

/// Implements `eprintln!`.
pub(crate) fn eprint_line(text: fmt::Arguments<'_>) {
    // A failure to write to standard error cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Makes an untrusted text safe for a terminal: escapes characters that are not printable. Keeps line ends and tabs if `lines`
/// is set.
pub(crate) fn legible(text: &str, lines: bool) -> Cow<'_, str> {
    let is_safe = |c: char| is_printable(c) || (lines && matches!(c, '\n' | '\t'));
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_safe(c) {
            true => escaped.push(c),
            false => escaped.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::{Failed, legible, refuse_to_replace};
    use std::path::Path;

    #[test]
    fn file_is_replaced_only_if_forced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("score.py");
        assert!(refuse_to_replace(&file, false).is_ok());
        std::fs::write(&file, "mine").unwrap();
        let Err(Failed::Misused(error)) = refuse_to_replace(&file, false) else { panic!("it would be replaced") };
        assert!(error.to_string().contains("score.py exists: --force"), "{error}");
        assert!(refuse_to_replace(&file, true).is_ok() && refuse_to_replace(Path::new("/dev/null"), false).is_ok());
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(legible("\u{1b}]0;owned\u{7}", false), "\\u{1b}]0;owned\\u{7}");
        assert_eq!(legible("a\u{9b}2J\u{202e}b\r\u{7f}", true), "a\\u{9b}2J\\u{202e}b\\u{d}\\u{7f}");
        assert_eq!((legible("a\n\tb", true), legible("a\n\tb", false)), ("a\n\tb".into(), "a\\u{a}\\u{9}b".into()));
        assert_eq!(legible("Ümläut 雨 🦄", false), "Ümläut 雨 🦄");
    }
}
