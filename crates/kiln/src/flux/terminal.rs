//! Writing to standard output, where nobody may be reading any more.

use std::{
    fmt,
    io::{self, Write},
};

/// As `println!`, but a reader who has gone ends the command quietly: a broken pipe is no error.
macro_rules! say {
    ($($part:tt)*) => { $crate::flux::terminal::line(format_args!($($part)*)) };
}
pub(super) use say;

/// Prints a line.
pub(super) fn line(text: fmt::Arguments<'_>) {
    written(&writeln!(io::stdout().lock(), "{text}"));
}

/// Prints text that has its own line ends.
pub(super) fn text(text: &str) {
    written(&io::stdout().lock().write_all(text.as_bytes()));
}

fn written(result: &io::Result<()>) {
    if result.is_err() {
        std::process::exit(0);
    }
}
