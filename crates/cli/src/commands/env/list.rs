//! `empg env list`: tasks.

use std::io::Write;

use empg_env::{EnvOptions, Source, Split};
use serde::Serialize;

use super::lines::write_line;

#[derive(Serialize)]
struct Listed<'a> {
    task: &'a str,
    kind: &'a str,
    split: Split,
}

/// Lists tasks.
pub(super) fn run(
    source: &Source,
    options: EnvOptions,
    split: Option<Split>,
    limit: Option<u64>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let tasks = source.tasks(options)?;
    let splits = match split {
        Some(split) => vec![split],
        None => vec![Split::Train, Split::Seen, Split::Unseen],
    };
    for split in splits {
        let count = match (tasks.len(split), limit) {
            (Some(len), limit) => len.min(limit.unwrap_or(u64::MAX)),
            (None, limit) => limit.unwrap_or(10),
        };
        for index in 0..count {
            let task = tasks.task(split, index)?;
            write_line(out, &Listed { task: &task.id, kind: &task.kind, split })?;
        }
    }
    Ok(())
}
