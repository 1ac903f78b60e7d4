//! Whole lines in batches, shared out over threads.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::thread;

use anyhow::Context as _;

/// Lines are read, and shared out over threads, about this many bytes at a time.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// A reader that keeps what it reads.
pub(super) struct Tee<'a> {
    pub(super) from: &'a mut dyn Read,
    pub(super) to: &'a mut File,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to
            .write_all(&buffer[..count])
            .map_err(|e| io::Error::new(e.kind(), format!("cannot spool the pipe: {e}")))?;
        Ok(count)
    }
}

/// Hands on whole lines, about [`BATCH_BYTES`] at a time; a longer line comes alone.
pub(super) fn read_batches(
    source: &mut dyn Read,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; 2 * BATCH_BYTES];
    let mut filled = 0;
    loop {
        let before = filled;
        while filled < buffer.len() {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("cannot read the input"),
            }
            if filled - before >= BATCH_BYTES {
                break;
            }
        }
        if filled == before {
            return if filled == 0 { Ok(()) } else { take(&buffer[..filled]) };
        }
        match buffer[before..filled].iter().rposition(|&b| b == b'\n') {
            Some(newline) => {
                let end = before + newline + 1;
                take(&buffer[..end])?;
                buffer.copy_within(end..filled, 0);
                filled -= end;
            }
            None if filled == buffer.len() => buffer.resize(2 * filled, 0),
            None => {}
        }
    }
}

/// A batch in at most `parts` runs of whole lines.
pub(super) fn cut(batch: &[u8], parts: usize) -> Vec<&[u8]> {
    let mut rest = batch;
    let mut out = Vec::with_capacity(parts);
    for left in (1..=parts).rev() {
        let goal = rest.len() / left;
        let end =
            rest[goal..].iter().position(|&b| b == b'\n').map_or(rest.len(), |n| goal + n + 1);
        let (part, after) = rest.split_at(end);
        if !part.is_empty() {
            out.push(part);
        }
        rest = after;
    }
    out
}

/// The lines that hold something.
pub(super) fn lines(part: &[u8]) -> impl Iterator<Item = &[u8]> {
    part.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

pub(super) fn parallel<'a, T: Send>(
    parts: &[&'a [u8]],
    work: impl Fn(usize, &'a [u8]) -> T + Sync,
) -> Vec<T> {
    let Some((first, others)) = parts.split_first() else { return Vec::new() };
    thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = others
            .iter()
            .enumerate()
            .map(|(index, part)| scope.spawn(move || work(index + 1, part)))
            .collect();
        let mut done = vec![work(0, first)];
        for other in others {
            done.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}
