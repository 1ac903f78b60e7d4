//! JSON lines in, JSON lines out.

use std::io::{self, BufRead, Write};

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::output::in_line;

/// Hands each non-empty line of stdin to `each`; errors name the line.
pub(super) fn each_line(mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for (i, line) in io::stdin().lock().lines().enumerate() {
        let at = || format!("stdin, line {}", i + 1);
        let line = line.with_context(at)?;
        if !line.trim().is_empty() {
            each(&line).with_context(at)?;
        }
    }
    Ok(())
}

/// Reads one line.
pub(super) fn read<T: DeserializeOwned>(line: &str) -> anyhow::Result<T> {
    serde_json::from_str(line).map_err(|error| anyhow!(in_line(&error)))
}

/// An episode's other fields, handed through; what a replay writes itself is not among them.
pub(super) fn handed_through(rest: &mut Map<String, Value>) {
    rest.retain(|name, _| name != "steps" && name != "unplayed");
}

/// Writes one line.
pub(super) fn write_line(out: &mut impl Write, line: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}
