//! JSON lines from a file, plain or gzip, one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::EnvError;

/// Hands each line that is not blank to `each`, with its number from 1, until it says `false`.
///
/// # Errors
/// A file that cannot be read, a damaged archive, bytes that are no UTF-8, whatever `each` refuses:
/// always with file and line.
pub(super) fn each_line(
    path: &Path,
    mut each: impl FnMut(usize, &str) -> Result<bool, String>,
) -> Result<(), EnvError> {
    let file = File::open(path).map_err(|e| refused(path, None, &e))?;
    let file = BufReader::with_capacity(1 << 16, file);
    let zipped = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    let reader: Box<dyn Read> =
        if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    read_lines(BufReader::with_capacity(1 << 18, reader), zipped, &mut each)
        .map_err(|(line, what)| refused(path, Some(line), &what))
}

/// The lines of any reader; errors carry the line's number.
pub(super) fn read_lines(
    mut reader: impl BufRead,
    zipped: bool,
    each: &mut dyn FnMut(usize, &str) -> Result<bool, String>,
) -> Result<(), (usize, String)> {
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(|e| {
            let hint = if zipped { ": the archive is damaged or incomplete" } else { "" };
            (number + 1, format!("{e}{hint}"))
        })?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        let line = std::str::from_utf8(&bytes).map_err(|e| {
            let at = e.valid_up_to() + 1;
            (number, format!("byte {at} of the line is no valid UTF-8; save the file as UTF-8"))
        })?;
        // A byte order mark before the first line is no part of it.
        let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if !line.trim().is_empty() && !each(number, line).map_err(|what| (number, what))? {
            return Ok(());
        }
    }
}

/// What is wrong with the JSON of one line; the file's line is told elsewhere.
pub(super) fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", error.column())
}

/// The error of a file and a line.
pub(super) fn refused(path: &Path, line: Option<usize>, what: &dyn std::fmt::Display) -> EnvError {
    EnvError::Data { path: path.display().to_string(), line, what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(bytes: &[u8]) -> Result<Vec<(usize, String)>, (usize, String)> {
        let mut lines = Vec::new();
        read_lines(bytes, false, &mut |n, line| {
            lines.push((n, line.trim_end().to_owned()));
            Ok(true)
        })?;
        Ok(lines)
    }

    #[test]
    fn numbers_count_blank_lines() {
        let lines = collect(b"\xef\xbb\xbfa\n\n \r\nb").unwrap();
        assert_eq!(lines, [(1, "a".to_owned()), (4, "b".to_owned())]);
    }

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_place() {
        let (line, what) = collect(b"ok\nab\xff\n").unwrap_err();
        assert_eq!(line, 2);
        assert!(what.contains("byte 3"), "{what}");
    }
}
