//! Search by embeddings: the inner product with every passage.

use std::cmp::Ordering;

use super::npy::Matrix;
use super::search::Hit;

/// Passages as vectors.
#[derive(Clone, Debug)]
pub struct Dense {
    passages: Matrix,
}

/// A query whose vector has another length than those of the passages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queries have {queries} numbers and passages {passages}: embed both with one model")]
pub struct DifferentLengths {
    /// Numbers of a query.
    pub queries: usize,
    /// Numbers of a passage.
    pub passages: usize,
}

/// Passages that are looked at before the next query is: their vectors stay in the cache.
const BLOCK: usize = 32;

impl Dense {
    /// Takes the passages' vectors, one row each.
    pub fn new(passages: Matrix) -> Self {
        Self { passages }
    }

    /// The passages' vectors.
    pub fn passages(&self) -> &Matrix {
        &self.passages
    }

    /// The best `top` passages for a query, best first; of equal ones the first.
    ///
    /// # Errors
    /// A query of another length.
    pub fn search(&self, query: &[f32], top: usize) -> Result<Vec<Hit>, DifferentLengths> {
        let mut lists = self.search_rows(query, top, 1)?;
        Ok(lists.pop().unwrap_or_default())
    }

    /// As [`Dense::search`] for every row of a matrix. `threads` share the passages among them; the
    /// result does not depend on their number.
    ///
    /// # Errors
    /// Queries of another length.
    pub fn search_all(
        &self,
        queries: &Matrix,
        top: usize,
        threads: usize,
    ) -> Result<Vec<Vec<Hit>>, DifferentLengths> {
        if queries.columns() != self.passages.columns() {
            let (queries, passages) = (queries.columns(), self.passages.columns());
            return Err(DifferentLengths { queries, passages });
        }
        self.search_rows(queries.values(), top, threads)
    }

    fn search_rows(
        &self,
        queries: &[f32],
        top: usize,
        threads: usize,
    ) -> Result<Vec<Vec<Hit>>, DifferentLengths> {
        let columns = self.passages.columns();
        if !queries.len().is_multiple_of(columns) {
            return Err(DifferentLengths { queries: queries.len(), passages: columns });
        }
        let share = self.passages.rows().div_ceil(threads.max(1)).max(1) * columns;
        let parts = self.passages.values().chunks(share).enumerate();
        let mut found: Vec<Vec<Best>> = std::thread::scope(|scope| {
            let mut parts: Vec<_> = parts
                .map(|(part, passages)| {
                    let first = part * share / columns;
                    scope.spawn(move || search_part(queries, passages, columns, first, top))
                })
                .collect();
            parts
                .drain(..)
                .map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let rows = queries.len() / columns;
        let list = |row: usize| {
            let mut all = Best::new(top);
            for part in &mut found {
                all.hits.append(&mut part[row].hits);
            }
            all.finish()
        };
        Ok((0..rows).map(list).collect())
    }
}

/// The best of some passages, the first of which has the number `first`, for every query.
fn search_part(
    queries: &[f32],
    passages: &[f32],
    columns: usize,
    first: usize,
    top: usize,
) -> Vec<Best> {
    let mut best = vec![Best::new(top); queries.len() / columns];
    for (block, rows) in passages.chunks(BLOCK * columns).enumerate() {
        for (query, best) in queries.chunks_exact(columns).zip(&mut best) {
            for (row, passage) in rows.chunks_exact(columns).enumerate() {
                best.add((first + block * BLOCK + row) as u32, inner(query, passage));
            }
        }
    }
    best
}

/// The inner product, summed in sixteen lanes and these in order, so that it is always the same.
fn inner(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Keeps the best of many.
#[derive(Clone, Debug)]
struct Best {
    top: usize,
    /// What a score must exceed once `top` are known.
    least: f32,
    hits: Vec<Hit>,
}

impl Best {
    fn new(top: usize) -> Self {
        let least = if top == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
        Self { top, least, hits: Vec::new() }
    }

    #[inline]
    fn add(&mut self, doc: u32, score: f32) {
        if score > self.least || (self.hits.len() < self.top && score >= self.least) {
            self.hits.push(Hit { doc, score });
            if self.hits.len() >= self.top.saturating_mul(2).saturating_add(32) {
                self.cut();
                // Of equal ones the first: they come in order.
                self.least = self.hits.iter().map(|hit| hit.score).fold(f32::INFINITY, f32::min);
            }
        }
    }

    fn cut(&mut self) {
        if self.top < self.hits.len() {
            if self.top > 0 {
                self.hits.select_nth_unstable_by(self.top - 1, |a, b| order(*a, *b));
            }
            self.hits.truncate(self.top);
        }
    }

    fn finish(mut self) -> Vec<Hit> {
        self.cut();
        self.hits.sort_unstable_by(|a, b| order(*a, *b));
        self.hits
    }
}

fn order(a: Hit, b: Hit) -> Ordering {
    b.score.total_cmp(&a.score).then(a.doc.cmp(&b.doc))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers: exact in any order of summation, and often equal.
    fn matrix(rows: usize, columns: usize, seed: u32) -> Matrix {
        let mut state = seed;
        let values = (0..rows * columns)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 29) as f32 - 3.0
            })
            .collect();
        Matrix::new(columns, values).unwrap()
    }

    #[test]
    fn equals_sorting_every_product() {
        let (passages, queries) = (matrix(501, 21, 1), matrix(7, 21, 2));
        let dense = Dense::new(passages.clone());
        for top in [0, 1, 5, 100, 1000] {
            let expected: Vec<Vec<Hit>> = (0..7)
                .map(|q| {
                    let score = |p: usize| -> f32 {
                        queries
                            .row(q)
                            .unwrap()
                            .iter()
                            .zip(passages.row(p).unwrap())
                            .map(|(a, b)| a * b)
                            .sum()
                    };
                    let mut all: Vec<Hit> =
                        (0..501).map(|p| Hit { doc: p as u32, score: score(p) }).collect();
                    all.sort_by(|a, b| order(*a, *b));
                    all.truncate(top);
                    all
                })
                .collect();
            for threads in [1, 2, 3, 1000] {
                assert_eq!(
                    dense.search_all(&queries, top, threads).unwrap(),
                    expected,
                    "{top} {threads}"
                );
            }
            assert_eq!(dense.search(queries.row(3).unwrap(), top).unwrap(), expected[3]);
        }
    }

    #[test]
    fn lengths_must_agree() {
        let dense = Dense::new(matrix(3, 4, 1));
        assert!(dense.search(&[1.0; 5], 1).is_err());
        assert!(dense.search_all(&matrix(2, 8, 1), 1, 1).is_err());
        let none = Dense::new(Matrix::new(4, Vec::new()).unwrap());
        assert_eq!(none.search(&[1.0; 4], 3).unwrap(), []);
    }
}
