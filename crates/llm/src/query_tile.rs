//! Which queries attend together to cached keys and values: those of one key/value head that belong to
//! rows of one context, or to the newest tokens of contexts that begin with the same blocks, which are
//! then read once for all of them.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::cache::{BLOCK, BlockId};
use crate::share::Disjoint;
use crate::vector::Lane32;

/// Head counts and widths.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) queries: usize,
    /// Key and value heads.
    pub(crate) keys: usize,
    /// Channels of a head.
    pub(crate) dim: usize,
    /// Width of a row that begins with the queries.
    pub(crate) row: usize,
}

/// New tokens of one context that attend: consecutive positions and rows.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    /// Blocks of the context.
    pub(crate) table: &'a [BlockId],
    /// Row of the first token.
    pub(crate) row: usize,
    /// Its position.
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// A query: its row of the pass, its head, and how many positions it sees.
#[derive(Clone, Copy)]
pub(crate) struct Query {
    pub(crate) row: usize,
    pub(crate) head: usize,
    pub(crate) limit: usize,
}

/// Queries of a tile that belong to one context.
pub(crate) struct Member<'a> {
    pub(crate) queries: Range<usize>,
    pub(crate) table: &'a [BlockId],
}

/// Queries of one key/value head that read keys and values together.
pub(crate) struct Tile<'a> {
    pub(crate) key_head: usize,
    pub(crate) queries: Vec<Query>,
    /// In the order of the queries.
    pub(crate) members: Vec<Member<'a>>,
    /// Blocks that all members' tables begin with and every query sees in full, or all blocks of
    /// the only member.
    pub(crate) shared: usize,
}

/// Queries and the blocks that they read together.
pub(crate) struct Part<'a> {
    pub(crate) queries: Range<usize>,
    pub(crate) table: &'a [BlockId],
    pub(crate) blocks: Range<usize>,
}

/// The queries of all spans in tiles of at most `most`.
pub(crate) fn tiles<'a>(spans: &[Span<'a>], heads: Heads, most: usize) -> Vec<Tile<'a>> {
    let group = heads.queries / heads.keys;
    let mut tiles = Vec::new();
    let mut at = 0;
    while let Some(&Span { table, row, first, count }) = spans.get(at) {
        if count == 1 {
            let (end, shared) = alike(&spans[at..], (most / group).max(1));
            for key_head in 0..heads.keys {
                for offset in (0..group).step_by(most) {
                    let take = (group - offset).min(most);
                    let mut tile =
                        Tile { key_head, queries: Vec::new(), members: Vec::new(), shared };
                    for span in &spans[at..at + end] {
                        let start = tile.queries.len();
                        tile.queries.extend((offset..offset + take).map(|q| Query {
                            row: span.row,
                            head: key_head * group + q,
                            limit: span.first + 1,
                        }));
                        let queries = start..tile.queries.len();
                        tile.members.push(Member { queries, table: span.table });
                    }
                    tiles.push(tile);
                }
            }
            at += end;
            continue;
        }
        for key_head in 0..heads.keys {
            let all: Vec<Query> = (0..count * group)
                .map(|q| Query {
                    row: row + q / group,
                    head: key_head * group + q % group,
                    limit: first + q / group + 1,
                })
                .collect();
            for queries in all.chunks(most) {
                let limit = queries.last().map_or(0, |q| q.limit);
                tiles.push(Tile {
                    key_head,
                    members: vec![Member { queries: 0..queries.len(), table }],
                    shared: limit.div_ceil(BLOCK),
                    queries: queries.to_vec(),
                });
            }
        }
        at += 1;
    }
    tiles
}

/// How many of the first spans, at most `most`, are newest tokens of contexts that begin alike, and how
/// many blocks they share. The first is one token.
fn alike(spans: &[Span<'_>], most: usize) -> (usize, usize) {
    let Span { table, first, .. } = spans[0];
    let full = first / BLOCK;
    let mut shared = table.len().min((first + 1).div_ceil(BLOCK));
    let mut end = 1;
    while let Some(&Span { table: other, first: position, count: 1, .. }) = spans.get(end) {
        let common = table
            .iter()
            .zip(&other[..(position / BLOCK).min(other.len())])
            .take(shared.min(full))
            .take_while(|(a, b)| a == b)
            .count();
        // Half of what is shared may get lost for another member, not more.
        if end >= most || 2 * common <= shared.min(full) || common == 0 {
            break;
        }
        shared = common;
        end += 1;
    }
    (end, shared)
}

impl Tile<'_> {
    /// The shared blocks with all queries, then each context's own.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let shared = self.members.first().map(|member| Part {
            queries: 0..self.queries.len(),
            table: member.table,
            blocks: 0..self.shared,
        });
        let own = self.members.iter().map(|member| {
            let blocks = self.blocks(member.queries.clone());
            Part {
                queries: member.queries.clone(),
                table: member.table,
                blocks: self.shared.min(blocks)..blocks,
            }
        });
        shared.into_iter().chain(own).filter(|part| !part.blocks.is_empty())
    }

    /// Blocks that some queries see.
    pub(crate) fn blocks(&self, queries: Range<usize>) -> usize {
        self.queries[queries].iter().map(|q| q.limit.div_ceil(BLOCK)).max().unwrap_or(0)
    }

    /// The queries beside each other, scaled by dim^-½ and `scale`: (count, dim).
    pub(crate) fn gather(&self, heads: Heads, rows: &[f32], scale: f32, gathered: &mut Vec<f32>) {
        let dim = heads.dim;
        let scale = scale / (dim as f32).sqrt();
        gathered.clear();
        for q in &self.queries {
            let row = &rows[q.row * heads.row + q.head * dim..][..dim];
            gathered.extend(row.iter().map(|x| x * scale));
        }
    }
}

/// Queries by chunks that a kernel takes: first and count.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn chunks(queries: Range<usize>, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = queries.start;
    std::iter::from_fn(move || {
        let take = match (queries.end - first).min(most) {
            0 => return None,
            12.. => 12,
            8.. => 8,
            6.. => 6,
            few => few,
        };
        first += take;
        Some((first - take, take))
    })
}

/// Writes a query's weighted sums, (⌈dim/32⌉) lanes that lie `stride` apart.
pub(crate) fn put(
    query: Query,
    heads: Heads,
    sums: &[Lane32],
    stride: usize,
    inverse: f32,
    out: &Disjoint<'_, f32>,
) {
    let start = (query.row * heads.queries + query.head) * heads.dim;
    // SAFETY: no other thread has this row of this head.
    let out = unsafe { out.part(start..start + heads.dim) };
    for (out, sums) in out.chunks_mut(BLOCK).zip(sums.iter().step_by(stride)) {
        for (out, sum) in out.iter_mut().zip(&sums.0) {
            *out = sum * inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { queries: 6, keys: 2, dim: 4, row: 40 };

    #[test]
    fn contexts_that_begin_alike_read_their_shared_blocks_together() {
        // Two full blocks of a prompt, then a block of each context's own; the last begins otherwise.
        let tables: Vec<[BlockId; 3]> =
            (0..6).map(|i| if i < 5 { [0, 1, 10 + i] } else { [7, 1, 20] }).collect();
        let spans: Vec<Span<'_>> = tables
            .iter()
            .enumerate()
            .map(|(row, table)| Span { table, row, first: 2 * BLOCK + row, count: 1 })
            .collect();
        // Twelve queries are four contexts of three queries a key/value head.
        let tiles = tiles(&spans, HEADS, 12);
        let found: Vec<_> = tiles.iter().map(|t| (t.key_head, t.members.len(), t.shared)).collect();
        assert_eq!(found, [(0, 4, 2), (1, 4, 2), (0, 1, 3), (1, 1, 3), (0, 1, 3), (1, 1, 3)]);
        let parts: Vec<_> = tiles[0].parts().map(|p| (p.queries, p.blocks, p.table[2])).collect();
        let own = |i: usize| (3 * i..3 * i + 3, 2..3, 10 + i as BlockId);
        assert_eq!(parts, [(0..12, 0..2, 10), own(0), own(1), own(2), own(3)]);
        // Every head of every row once, over all that its row sees.
        let mut seen: Vec<_> =
            tiles.iter().flat_map(|t| t.queries.iter().map(|q| (q.row, q.head, q.limit))).collect();
        seen.sort_unstable();
        let all: Vec<_> = (0..6)
            .flat_map(|row| (0..6).map(move |head| (row, head, 2 * BLOCK + row + 1)))
            .collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn rows_of_one_context_see_as_far_as_they_stand() {
        let spans = [Span { table: &[3, 4], row: 2, first: 30, count: 5 }];
        let tiles = tiles(&spans, HEADS, 8);
        let sizes: Vec<_> = tiles.iter().map(|t| (t.key_head, t.queries.len(), t.shared)).collect();
        // Fifteen queries a head; the first eight belong to rows at 30, 31 and 32.
        assert_eq!(sizes, [(0, 8, 2), (0, 7, 2), (1, 8, 2), (1, 7, 2)]);
        let last = tiles[3].queries[6];
        assert_eq!((last.row, last.head, last.limit), (6, 5, 35));
    }
}
