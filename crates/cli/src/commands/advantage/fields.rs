//! Where the fields of a line lie.

use std::ops::Range;

use super::line::{Fault, fault};

/// Where the known fields of a line lie.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) group: Option<&'a [u8]>,
    pub(super) reward: Option<&'a [u8]>,
    pub(super) mask: Option<&'a [u8]>,
    pub(super) steps: Option<&'a [u8]>,
    pub(super) entropy: Option<&'a [u8]>,
    pub(super) advantage: Option<&'a [u8]>,
    /// Fields of an earlier run, with the comma before or after them.
    pub(super) stale: Vec<Range<usize>>,
}

const NAMES: [&str; 6] = ["group", "reward", "mask", "steps", "entropy", "advantage"];

/// Finds the known fields of an object; the others must be JSON.
pub(super) fn fields(line: &[u8]) -> Result<Fields<'_>, Fault> {
    let mut found = Fields::default();
    let mut at = 0;
    if line[0] != b'{' {
        return fault("", "not a JSON object");
    }
    loop {
        let before = at;
        at = blank(line, at + 1);
        if before == 0 && line.get(at) == Some(&b'}') {
            break;
        }
        let (key, after) = key(line, at)?;
        at = blank(line, after);
        if line.get(at) != Some(&b':') {
            return fault("", format!("byte {at}: expected ':' after a key"));
        }
        let start = blank(line, at + 1);
        let name = NAMES.iter().position(|name| name.as_bytes() == key);
        let end = match (name, line.get(start)) {
            // Arrays of numbers, where NaN is allowed: their end is the next bracket.
            (Some(known @ (2 | 4 | 5)), Some(b'[')) => {
                match line[start..].iter().position(|&b| b == b']') {
                    Some(close) => start + close + 1,
                    None => return fault(NAMES[known], "the array does not end"),
                }
            }
            (Some(1 | 5), _) => line[start..]
                .iter()
                .position(|b| matches!(b, b',' | b'}' | b' ' | b'\t' | b'\r'))
                .map_or(line.len(), |n| start + n),
            _ => {
                let mut value = serde_json::Deserializer::from_slice(&line[start..])
                    .into_iter::<serde::de::IgnoredAny>();
                match value.next() {
                    Some(Ok(_)) => start + value.byte_offset(),
                    Some(Err(error)) => {
                        let key = String::from_utf8_lossy(key);
                        return fault("", format!("field \"{key}\": {error}"));
                    }
                    None => return fault("", "the line ends before its value"),
                }
            }
        };
        let value = &line[start..end];
        let slot = match name {
            Some(0) => Some(&mut found.group),
            Some(1) => Some(&mut found.reward),
            Some(2) => Some(&mut found.mask),
            Some(3) => Some(&mut found.steps),
            Some(4) => Some(&mut found.entropy),
            Some(5) => Some(&mut found.advantage),
            _ => None,
        };
        if let (Some(slot), Some(name)) = (slot, name)
            && slot.replace(value).is_some()
        {
            return fault(NAMES[name], "given twice");
        }
        at = blank(line, end);
        let stale = key == b"advantages" || key == b"credit";
        match line.get(at) {
            Some(b',') => {
                if stale {
                    found.stale.push(before + 1..at + 1);
                }
            }
            Some(b'}') => {
                if stale {
                    found.stale.push(before.max(1)..at);
                }
                break;
            }
            _ => return fault("", format!("byte {at}: expected ',' or '}}' after a value")),
        }
    }
    if blank(line, at + 1) != line.len() {
        return fault("", "text after the JSON object");
    }
    Ok(found)
}

fn blank(line: &[u8], at: usize) -> usize {
    line.get(at..)
        .and_then(|rest| rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\r')))
        .map_or(line.len(), |n| at + n)
}

fn key(line: &[u8], at: usize) -> Result<(&[u8], usize), Fault> {
    if line.get(at) == Some(&b'"') {
        let mut end = at + 1;
        while let Some(&b) = line.get(end) {
            match b {
                b'"' => return Ok((&line[at + 1..end], end + 1)),
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
    }
    fault("", format!("byte {at}: expected a key in double quotes"))
}
