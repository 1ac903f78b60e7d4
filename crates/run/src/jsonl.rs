//! Lines of `metrics.jsonl` and `timings.jsonl`.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Result, RunError};

/// A line with `"step"` first and its newline.
pub(crate) fn line(step: u64, values: &Map<String, Value>) -> Vec<u8> {
    let mut line = format!("{{\"step\":{step}");
    for (key, value) in values.iter().filter(|(key, _)| *key != "step") {
        line.push(',');
        line.push_str(&Value::from(key.as_str()).to_string());
        line.push(':');
        line.push_str(&value.to_string());
    }
    line.push_str("}\n");
    line.into_bytes()
}

/// The objects of complete lines; an unfinished last line is left out.
///
/// # Errors
/// A line that is no JSON object.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Map<String, Value>>> {
    complete_lines(bytes)
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|e| RunError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason: e.to_string(),
            })
        })
        .collect()
}

/// How many bytes of complete lines stand before the first line that has no step or one after
/// `last` (`None`: before every step).
pub(crate) fn prefix_up_to(bytes: &[u8], last: Option<u64>) -> u64 {
    let mut length = 0;
    for line in complete_lines(bytes) {
        let step = serde_json::from_slice::<Value>(line).ok().and_then(|v| v["step"].as_u64());
        match (step, last) {
            (Some(step), Some(last)) if step <= last => length += line.len() as u64 + 1,
            _ => break,
        }
    }
    length
}

/// A file's bytes; none where there is no file.
pub(crate) fn read_or_empty(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(RunError::io("read", path, 0, error)),
    }
}

fn complete_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    bytes[..end].split_inclusive(|&b| b == b'\n').map(|line| &line[..line.len() - 1])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_line_has_its_step_first_and_once() {
        let line = line(7, &object(&json!({"a\"": 1.5, "step": 3, "b": {"c": null}})));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"step\":7,\"a\\\"\":1.5,\"b\":{\"c\":null}}\n"
        );
    }

    #[test]
    fn the_prefix_ends_before_later_torn_and_foreign_lines() {
        let bytes = b"{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st";
        assert_eq!(prefix_up_to(bytes, None), 0);
        assert_eq!(prefix_up_to(bytes, Some(0)), 0);
        assert_eq!(prefix_up_to(bytes, Some(2)), 22);
        assert_eq!(prefix_up_to(bytes, Some(9)), 33);
        assert_eq!(prefix_up_to(b"nonsense\n{\"step\":1}\n", Some(9)), 0);
    }

    #[test]
    fn a_bad_line_is_named_and_a_torn_one_left_out() {
        let path = Path::new("metrics.jsonl");
        assert_eq!(parse(path, b"{\"step\":1}\n{\"st").unwrap().len(), 1);
        let error = parse(path, b"{\"step\":1}\n[]\n").unwrap_err();
        assert!(matches!(error, RunError::Line { line: 2, .. }), "{error}");
    }
}
