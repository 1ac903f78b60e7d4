//! One pass of new tokens through the model's blocks and its head, shared among a team of threads.
#![allow(unsafe_code)]

use empg::{TokenId, TokenScore};

use crate::cache::{BLOCK, BlockId, BlockPool, NewRows};
use crate::cached_attention::{self, AttendScratch};
use crate::decode_rows::{RowBuffers, by_rows, norm_rows};
use crate::decode_weights::DecodeWeights;
use crate::distributions::Draw;
use crate::large_pages::Floats;
use crate::ops::embedding;
use crate::ops::panels::Precision;
use crate::ops::rope::RopeTable;
use crate::pair_attention::{self, PairScratch};
use crate::query_tile::{Heads, Span, tiles};
use crate::sampling::{SamplingParams, TurnRng, sample};
use crate::share::Disjoint;
use crate::strips::Output;
use crate::tape::{Tape, TapeRow};
use crate::team::Team;

/// Rows whose logits exist at the same time.
const HEAD_ROWS: usize = 64;

/// New tokens of one context.
pub(crate) struct Run<'a> {
    /// Its blocks, those of the new tokens included.
    pub(crate) table: &'a [BlockId],
    /// Position of the first new token.
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// The logits behind the last new token are wanted, with these numbers.
    pub(crate) draw: Option<usize>,
}

/// How tokens are drawn from the logits, and for every request its stream of numbers.
pub(crate) struct Draws<'a> {
    pub(crate) params: &'a SamplingParams,
    pub(crate) rngs: &'a mut [TurnRng],
}

/// Where the new tokens of a pass are kept.
pub(crate) struct Taping<'a> {
    pub(crate) tape: &'a mut Tape,
    pub(crate) rows: Vec<TapeRow>,
}

/// A request and what was drawn for it; `None` if the distribution is not finite.
pub(crate) type Drawn = (usize, Option<(TokenId, TokenScore)>);

/// Buffers of one pass.
#[derive(Default)]
pub(crate) struct Buffers {
    positions: Vec<u32>,
    x: Floats,
    qkv: Floats,
    att: Floats,
    logits: Floats,
    rows: Floats,
    /// Of rows that all threads share.
    shared: RowBuffers,
    /// Of rows that are a thread's own.
    own: Vec<RowBuffers>,
    /// One per thread.
    threads: Vec<ThreadBuffers>,
}

#[derive(Default)]
struct ThreadBuffers {
    attend: AttendScratch,
    pairs: PairScratch,
    sampling: Vec<f32>,
}

/// What every pass reads.
pub(crate) struct Engine<'a, 'm> {
    pub(crate) weights: &'a DecodeWeights<'m>,
    pub(crate) team: &'a Team,
    pub(crate) rope: &'a RopeTable,
}

impl Engine<'_, '_> {
    /// Computes keys and values of `tokens` (those of the runs, in order) and draws what the runs
    /// want drawn, in their order. The tokens' passes are kept on a tape if there is one.
    pub(crate) fn pass(
        &self,
        tokens: &[TokenId],
        runs: &[Run<'_>],
        draws: Option<Draws<'_>>,
        mut taping: Option<Taping<'_>>,
        pool: &mut BlockPool,
        b: &mut Buffers,
    ) -> Vec<Drawn> {
        let Self { weights, team, rope } = *self;
        let model = weights.model;
        let config = &model.config;
        let hidden = config.hidden_size;
        let (q_size, qkv_size) = (config.attention_size(), config.qkv_size());
        let heads = Heads {
            queries: config.num_heads,
            keys: config.num_kv_heads,
            dim: config.head_dim,
            row: qkv_size,
        };
        b.threads.resize_with(team.threads(), ThreadBuffers::default);
        let mut rows = tokens.len();
        b.positions.clear();
        for run in runs {
            b.positions.extend((run.first..run.first + run.count).map(|p| p as u32));
        }
        let places: Vec<(BlockId, usize)> = runs
            .iter()
            .flat_map(|run| {
                let positions = run.first..run.first + run.count;
                positions.map(|position| (run.table[position / BLOCK], position % BLOCK))
            })
            .collect();
        b.x.fit(rows * hidden);
        embedding::forward(tokens, model.part(&model.layout.embed()), hidden, &mut b.x);
        let last_layer = weights.layers.len() - 1;
        let outputs = runs.iter().filter(|r| r.draw.is_some()).count();
        for l in 0..weights.layers.len() {
            b.qkv.fit(rows * qkv_size);
            let (x, positions) = (&b.x, &b.positions);
            let qkv = Disjoint::new(&mut b.qkv);
            let tape = taping.as_mut().map(|t| t.tape.block(l, &t.rows));
            by_rows(team, weights.precision, rows, &mut b.own, &mut b.shared, &|team, part, b| {
                // SAFETY: the parts do not overlap.
                let qkv = unsafe { qkv.part(part.start * qkv_size..part.end * qkv_size) };
                let x = &x[part.start * hidden..part.end * hidden];
                let tape = tape.map(|tape| tape.part(part.clone()));
                weights.project(rope, team, l, x, &positions[part], qkv, tape, b);
            });
            let new = NewRows { data: &b.qkv, width: qkv_size, keys: q_size };
            pool.write(team, l, &places, new);
            // Behind the last layer's keys and values only rows whose logits are wanted matter.
            let narrow = l == last_layer && outputs < rows;
            if narrow {
                if outputs == 0 {
                    return Vec::new();
                }
                keep_last_rows(runs, hidden, &mut b.x, &mut b.rows);
                keep_last_rows(runs, qkv_size, &mut b.qkv, &mut b.rows);
                if let Some(taping) = &mut taping {
                    taping.rows = last_rows(runs).map(|row| taping.rows[row]).collect();
                }
                rows = outputs;
            }
            b.att.fit(rows * q_size);
            self.attend(runs, narrow, l, heads, pool, b);
            let (att, x) = (&b.att, Disjoint::new(&mut b.x));
            let tape = taping.as_mut().map(|t| t.tape.block(l, &t.rows));
            by_rows(team, weights.precision, rows, &mut b.own, &mut b.shared, &|team, part, b| {
                // SAFETY: the parts do not overlap.
                let x = unsafe { x.part(part.start * hidden..part.end * hidden) };
                let att = &att[part.start * q_size..part.end * q_size];
                weights.feed(team, l, att, x, tape.map(|tape| tape.part(part)), b);
            });
        }
        if let Some(taping) = &mut taping {
            taping.tape.keep_outputs(&taping.rows, &b.x);
        }
        let Some(mut draws) = draws else { return Vec::new() };
        let norm = model.part(&model.layout.final_norm());
        norm_rows(team, &b.x, norm, config.rms_norm_eps, None, &mut b.shared);
        self.draw(runs, &mut draws, rows, taping, b)
    }

    /// att from the queries in qkv and everything cached; `narrow`: rows are the last ones of the
    /// runs that draw.
    fn attend(
        &self,
        runs: &[Run<'_>],
        narrow: bool,
        layer: usize,
        heads: Heads,
        pool: &BlockPool,
        b: &mut Buffers,
    ) {
        let mut spans = Vec::with_capacity(runs.len());
        let mut row = 0;
        for run in runs {
            let (first, count) = match (narrow, run.draw) {
                (false, _) => (run.first, run.count),
                (true, Some(_)) => (run.first + run.count - 1, 1),
                (true, None) => continue,
            };
            spans.push(Span { table: run.table, row, first, count });
            row += count;
        }
        let (qkv, out) = (&b.qkv, Disjoint::new(&mut b.att));
        let buffers = Disjoint::new(&mut b.threads);
        let precision = self.weights.precision;
        let most = match precision {
            Precision::F32 => cached_attention::QUERIES,
            Precision::Bf16 => pair_attention::most_queries(heads.dim),
        };
        let (tiles, threads) = (tiles(&spans, heads, most), self.team.threads());
        self.team.run(&|thread| {
            // SAFETY: every thread has its own.
            let buffers = unsafe { &mut buffers.part(thread..thread + 1)[0] };
            for tile in tiles.iter().skip(thread).step_by(threads) {
                match precision {
                    Precision::F32 => {
                        let scratch = &mut buffers.attend;
                        cached_attention::attend(pool, layer, tile, heads, qkv, &out, scratch);
                    }
                    Precision::Bf16 => {
                        let scratch = &mut buffers.pairs;
                        pair_attention::attend(pool, layer, tile, heads, qkv, &out, scratch);
                    }
                }
            }
        });
    }

    /// Logits of the rows in h, and what is drawn from them; a tape keeps the distributions.
    fn draw(
        &self,
        runs: &[Run<'_>],
        draws: &mut Draws<'_>,
        rows: usize,
        taping: Option<Taping<'_>>,
        b: &mut Buffers,
    ) -> Vec<Drawn> {
        let config = &self.weights.model.config;
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let requests: Vec<usize> = runs.iter().filter_map(|r| r.draw).collect();
        let mut drawn: Vec<Drawn> = requests.iter().map(|r| (*r, None)).collect();
        let params = draws.params;
        let rngs = Disjoint::new(&mut *draws.rngs);
        // Of the most probable token there is no distribution.
        let mut taping = taping.filter(|_| params.temperature > 0.0);
        let sites = match &mut taping {
            Some(taping) => taping.tape.sites(&taping.rows),
            None => vec![None; rows],
        };
        let writer = taping.as_mut().map(|taping| taping.tape.distributions().writer());
        for first in (0..rows).step_by(HEAD_ROWS) {
            let chunk = first..(first + HEAD_ROWS).min(rows);
            b.logits.fit(chunk.len() * vocab);
            let h = &b.shared.h[chunk.start * hidden..chunk.end * hidden];
            let into = Output::Set;
            self.weights.head.apply(self.team, h, &mut b.logits, into, &mut b.shared.linear);
            let (logits, threads) = (&b.logits, self.team.threads());
            let buffers = Disjoint::new(&mut b.threads);
            let (sites, writer) = (&sites[chunk.clone()], &writer);
            let results = Disjoint::new(&mut drawn[chunk]);
            self.team.run(&|thread| {
                // SAFETY: every thread has its own.
                let scratch = unsafe { &mut buffers.part(thread..thread + 1)[0].sampling };
                for row in (thread..results.len()).step_by(threads) {
                    // SAFETY: one thread has a row, and a request is drawn once in a pass.
                    let (result, rng) = unsafe {
                        let result = &mut results.part(row..row + 1)[0];
                        let request = result.0;
                        (result, &mut rngs.part(request..request + 1)[0])
                    };
                    let logits = &logits[row * vocab..(row + 1) * vocab];
                    result.1 = sample(logits, params, rng, scratch);
                    if let (Some(writer), Some(site), Some(_)) = (writer, sites[row], result.1) {
                        // SAFETY: a site is one row's.
                        unsafe { writer.put(site, scratch) };
                    }
                }
            });
        }
        if let Some(Taping { tape, rows }) = taping {
            let inv_t = params.score_temperature().recip();
            for ((row, site), (_, drawn)) in rows.into_iter().zip(sites).zip(&drawn) {
                match (site, *drawn) {
                    (Some(site), Some((token, score))) => {
                        tape.drew(row, Draw { token, score, inv_t, site });
                    }
                    (Some(site), None) => tape.distributions().give_back(site),
                    (None, _) => {}
                }
            }
        }
        drawn
    }
}

/// Keeps the last row of every run that draws.
fn keep_last_rows(runs: &[Run<'_>], width: usize, rows: &mut Floats, spare: &mut Floats) {
    spare.fit(runs.iter().filter(|run| run.draw.is_some()).count() * width);
    for (kept, row) in spare.chunks_exact_mut(width).zip(last_rows(runs)) {
        kept.copy_from_slice(&rows[row * width..(row + 1) * width]);
    }
    std::mem::swap(rows, spare);
}

/// The last row of every run that draws.
fn last_rows<'a>(runs: &'a [Run<'_>]) -> impl Iterator<Item = usize> + 'a {
    let ends = runs.iter().scan(0, |end, run| {
        *end += run.count;
        Some((run, *end - 1))
    });
    ends.filter(|(run, _)| run.draw.is_some()).map(|(_, last)| last)
}
