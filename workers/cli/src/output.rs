//! What a command prints. Whoever reads it may stop (`wildrydes topology show | head -1`): then there is nobody left to tell,
//! which is a clean end and no failure. The macros of this crate replace those of the standard library, which panic.

use std::{
    fmt,
    io::{self, Write},
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
