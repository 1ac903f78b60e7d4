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

/// What is wrong with the JSON of one line; which line it is of a file is told beside it.
pub(crate) fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match error.column() {
        0 => what.to_owned(),
        column => format!("{what} (column {column})"),
    }
}

/// A path or name as a shell reads it back from a line that is copied.
pub(crate) fn quoted(name: impl std::fmt::Display) -> String {
    let name = name.to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:=@%,".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        return name;
    }
    format!("'{}'", name.replace('\'', "'\\''"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_a_shell_would_take_them_apart() {
        for (name, expected) in [
            ("runs/a-b_1.5", "runs/a-b_1.5"),
            ("runs/grün", "runs/grün"),
            ("my runs/a", "'my runs/a'"),
            ("it's", r"'it'\''s'"),
            ("a;b", "'a;b'"),
            ("~/a", "'~/a'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }

    #[test]
    fn faults_of_a_line_name_no_line() {
        let fault = |text| in_line(&serde_json::from_str::<Vec<u8>>(text).unwrap_err());
        assert_eq!(fault("[1"), "EOF while parsing a list (column 2)");
        assert_eq!(fault("{}"), "invalid type: map, expected a sequence");
    }
}
