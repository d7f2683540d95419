//! What a command prints. Whoever reads it may stop (`wildrydes topology show | head -1`): then there is nobody left to tell,
//! which is a clean end and no failure. The macros of this crate replace those of the standard library, which panic.

use crate::session::{Failed, Session};
use anyhow::{Context, anyhow};
use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal, Write},
    path::Path,
    process,
};

/// To standard output, as a line.
macro_rules! println {
    () => {
        $crate::output::print(format_args!("\n"))
    };
    ($($text:tt)*) => {
        $crate::output::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// To standard output.
macro_rules! print {
    ($($text:tt)*) => {
        $crate::output::print(format_args!($($text)*))
    };
}

/// To standard error, as a line.
macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::output::tell(format_args!($($text)*))
    };
}

pub(crate) mod progress;

/// Refuses to write to a file that exists, unless `force` is given. What is no regular file, such as a pipe, is written to.
///
/// # Errors
/// Fails as misused if the file exists.
pub(crate) fn refuse_to_replace(path: &Path, force: bool) -> Result<(), Failed> {
    if !force && std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
        let path = path.display();
        return Err(Failed::Misused(anyhow!("{path} is there already: --force replaces it; or name another file")));
    }
    Ok(())
}

/// Standard output; ends the process once nobody reads it.
pub(crate) struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_end(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        or_end(io::stdout().flush())
    }
}

/// Refuses a command that has to be asked about where nobody can be asked.
///
/// # Errors
/// When there is no terminal, with what `would` happen.
pub(crate) fn can_ask(session: &Session, would: &str) -> Result<(), Failed> {
    match session.shared.json || !io::stdin().is_terminal() {
        true => Err(Failed::Misused(anyhow!("{would}; without a terminal to ask on, say so with --yes"))),
        false => Ok(()),
    }
}

/// Whether somebody at the terminal says yes.
///
/// # Errors
/// When the terminal is gone.
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

/// See `print!`.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    if let Err(error) = Output.write_fmt(text) {
        tell(format_args!("error: writing to standard output: {error}"));
        process::exit(1);
    }
}

/// See `eprintln!`.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    // Where this cannot be written nothing can.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A text of somebody else as a terminal may have it: what would move the cursor, change colours or turn the direction of
/// writing stands there as its code. Line ends and tabs stay where `lines` is set.
pub(crate) fn legible(text: &str, lines: bool) -> Cow<'_, str> {
    let kept = |c: char| {
        let turns = matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        (lines && matches!(c, '\n' | '\t')) || !(c.is_control() || turns)
    };
    if text.chars().all(kept) {
        return Cow::Borrowed(text);
    }
    let mut told = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match kept(c) {
            true => told.push(c),
            false => told.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(told)
}

#[cfg(test)]
mod tests {
    use super::{Failed, legible, refuse_to_replace};
    use std::path::Path;

    #[test]
    fn a_file_is_replaced_only_if_forced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("score.py");
        assert!(refuse_to_replace(&file, false).is_ok());
        std::fs::write(&file, "mine").unwrap();
        let Err(Failed::Misused(refused)) = refuse_to_replace(&file, false) else { panic!("it would be replaced") };
        assert!(refused.to_string().contains("score.py is there already: --force"), "{refused}");
        assert!(refuse_to_replace(&file, true).is_ok() && refuse_to_replace(Path::new("/dev/null"), false).is_ok());
    }

    #[test]
    fn nothing_of_a_text_acts_on_the_terminal() {
        assert_eq!(legible("\u{1b}]0;owned\u{7}", false), "\\u{1b}]0;owned\\u{7}");
        assert_eq!(legible("a\u{9b}2J\u{202e}b\r\u{7f}", true), "a\\u{9b}2J\\u{202e}b\\u{d}\\u{7f}");
        assert_eq!((legible("a\n\tb", true), legible("a\n\tb", false)), ("a\n\tb".into(), "a\\u{a}\\u{9}b".into()));
        assert_eq!(legible("Ümläut 雨 🦄", false), "Ümläut 雨 🦄");
    }
}
