//! stdout is data: lines that may fail to be written, instead of a panic. stderr is talk: a reader
//! that has gone does not end a run.

use std::io::{self, Write as _};

/// Writes text to stdout.
///
/// # Errors
/// A reader that has gone, a disk that is full.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`text`].
pub(crate) fn line(line: &str) -> io::Result<()> {
    text(&format!("{line}\n"))
}

/// Writes a line to stderr; nobody listening is no error.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}

/// Writes text to stderr; nobody listening is no error.
#[macro_export]
macro_rules! say_part {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($part)*);
    }};
}
