//! Rows of tokens shared out over threads.

use std::ops::Range;
use std::sync::OnceLock;
use std::thread;

use crate::rows::TokenRows;

/// Fewer tokens than this are not worth another thread.
const TOKENS_PER_THREAD: usize = 1 << 16;

/// Cores that this process may use. Asking takes longer than a small batch.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Rows shared out over threads, in order, by tokens.
pub(crate) struct Shards(Vec<Range<usize>>);

impl Shards {
    /// `threads` = 0 means all cores.
    pub(crate) fn new(rows: &TokenRows, threads: usize) -> Self {
        let wanted = if threads == 0 { cores() } else { threads };
        let count = wanted.min(rows.tokens() / TOKENS_PER_THREAD).clamp(1, rows.len().max(1));
        let mut shards = Vec::with_capacity(count);
        let mut from = 0;
        for shard in 1..=count {
            let tokens = (rows.tokens() as u128 * shard as u128 / count as u128) as usize;
            let mut to = from;
            while to < rows.len() && (shard == count || rows.range(to).end <= tokens) {
                to += 1;
            }
            shards.push(from..to);
            from = to;
        }
        Self(shards)
    }

    /// The value of every shard of rows, in order.
    pub(crate) fn map<R: Send>(&self, part: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
        let (own, others) = self.0.split_first().expect("at least one shard");
        if others.is_empty() {
            return vec![part(own.clone())];
        }
        thread::scope(|scope| {
            let part = &part;
            let handles: Vec<_> =
                others.iter().map(|rows| scope.spawn(move || part(rows.clone()))).collect();
            let mut parts = vec![part(own.clone())];
            for handle in handles {
                parts.push(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            parts
        })
    }

    /// Calls `row(index, tokens of the row in out)` for every row.
    pub(crate) fn write<T: Send>(
        &self,
        rows: &TokenRows,
        mut out: &mut [T],
        row: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let write = |shard: Range<usize>, mut out: &mut [T]| {
            for index in shard {
                let (own, rest) = out.split_at_mut(rows.range(index).len());
                row(index, own);
                out = rest;
            }
        };
        if let [all] = &self.0[..] {
            return write(all.clone(), out);
        }
        thread::scope(|scope| {
            let mut own = None;
            for shard in &self.0 {
                let tokens = shard.clone().map(|row| rows.range(row).len()).sum();
                let (part, rest) = std::mem::take(&mut out).split_at_mut(tokens);
                out = rest;
                let shard = shard.clone();
                if own.is_none() {
                    own = Some((shard, part));
                } else {
                    let write = &write;
                    scope.spawn(move || write(shard, part));
                }
            }
            if let Some((shard, part)) = own {
                write(shard, part);
            }
        });
    }
}
