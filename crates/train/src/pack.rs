//! From groups and credit to packed micro-batches: the first place that knows rows of a tensor.

use empg::loss::{Aggregation, MinibatchSize};
use empg::{Batch, Credit, TokenId, Trajectory};
use empg_llm::{PackedBatch, PackedSegment, TapeRow, Target};

/// What the loss needs to know about one sampled token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossTarget {
    /// log π_old, recorded while sampling.
    pub old_logprob: f32,
    /// log π_ref of the frozen reference; equals `old_logprob` where none was computed.
    pub ref_logprob: f32,
    /// The step's final advantage.
    pub advantage: f32,
    /// Weight of the token in the minibatch's loss; the weights of a minibatch sum to 1.
    pub weight: f32,
}

/// A packed part of a minibatch.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// Tokens, attention structure and targets.
    pub packed: PackedBatch,
    /// One entry per target.
    pub targets: Vec<LossTarget>,
    /// For every target: group, rollout, step, token within the step.
    pub origin: Vec<[usize; 4]>,
    /// Where a tape has every row; `None` where a forward pass is needed.
    pub taped: Option<Vec<TapeRow>>,
}

/// Rows that packing saved by sharing prompts, and rows in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackStats {
    /// Rows of the packs.
    pub rows: usize,
    /// Rows that separate sequences would have had on top of them.
    pub rows_saved: usize,
    /// Rows that need no forward pass, of `rows`.
    pub rows_taped: usize,
}

/// Log-probabilities under the reference, per group, rollout and step.
pub(crate) type ReferenceLogprobs = Vec<Vec<Vec<Vec<f32>>>>;

/// Where a tape has tokens, per group, rollout and segment.
pub(crate) type TapedRows = Vec<Vec<Vec<Vec<TapeRow>>>>;

/// Packs the groups `members` of a batch into micro-batches of at most `budget` rows (a single
/// segment that is longer gets one of its own). The weights are those of the whole minibatch, so
/// that the summed gradient does not depend on the budget.
pub fn pack(
    batch: &Batch,
    members: &[usize],
    credit: &Credit,
    reference: Option<&ReferenceLogprobs>,
    aggregation: Aggregation,
    budget: usize,
) -> (Vec<MicroBatch>, PackStats) {
    pack_on_tape(batch, members, credit, reference, None, aggregation, budget)
}

/// The same; a group that a tape has as a whole goes into micro-batches of its own kind.
pub(crate) fn pack_on_tape(
    batch: &Batch,
    members: &[usize],
    credit: &Credit,
    reference: Option<&ReferenceLogprobs>,
    taped: Option<&TapedRows>,
    aggregation: Aggregation,
    budget: usize,
) -> (Vec<MicroBatch>, PackStats) {
    let mut size = MinibatchSize::default();
    for rollout in members.iter().flat_map(|&g| &batch.groups[g].rollouts) {
        size.add(rollout.steps().iter().map(|s| s.sampled().len()));
    }
    let mut stats = PackStats::default();
    let mut done = Vec::new();
    let mut open = Builder::default();
    for &g in members {
        let group = &batch.groups[g];
        let prompt = shared_prompt(batch, g);
        let taped = taped.map(|taped| &taped[g]).filter(|taped| is_whole(&group.rollouts, taped));
        if !open.packed.tokens.is_empty() && open.taped.is_some() != taped.is_some() {
            done.push(std::mem::take(&mut open));
        }
        let mut parent: Option<usize> = None;
        for (r, rollout) in group.rollouts.iter().enumerate() {
            let sampled = sampled_tokens(rollout);
            for (s, segment) in rollout.segments().iter().enumerate() {
                let steps: Vec<usize> = (0..rollout.steps().len())
                    .filter(|&t| rollout.steps()[t].segment() == s)
                    .collect();
                // Nothing after the last sampled token bears on the loss.
                let Some(end) = steps.last().map(|&t| rollout.steps()[t].sampled().end) else {
                    continue;
                };
                // Nor does that token as an input, which sampling has not computed.
                let rows = taped.map(|taped| &taped[r][s]);
                let tokens = &segment.tokens[..end - usize::from(rows.is_some())];
                let share = if s == 0 { prompt } else { 0 };
                let need = tokens.len() - share + if parent.is_none() { share } else { 0 };
                if !open.packed.tokens.is_empty() && open.packed.tokens.len() + need > budget {
                    done.push(std::mem::take(&mut open));
                    parent = None;
                }
                if let Some(rows) = rows {
                    let kept = open.taped.get_or_insert_default();
                    let from = if parent.is_some() { share } else { 0 };
                    kept.extend_from_slice(&rows[from..tokens.len()]);
                }
                if share > 0 {
                    if parent.is_some() {
                        stats.rows_saved += share;
                    } else {
                        parent = Some(open.push(&tokens[..share], 0, None));
                    }
                }
                let root = if share > 0 { parent } else { None };
                let first_row = open.packed.tokens.len();
                if tokens.len() > share {
                    open.push(&tokens[share..], share, root);
                }
                let row_of = |position: usize| {
                    // The row whose hidden state predicts the token at `position`.
                    if position == share {
                        root.map(|p| open.packed.segments[p].range.end - 1)
                    } else {
                        Some(first_row + position - 1 - share)
                    }
                };
                let mut targets = Vec::new();
                for &t in &steps {
                    let step = &rollout.steps()[t];
                    let advantage = credit.step(g, r, t).advantage as f32;
                    let weight = aggregation.weight(size, step.sampled().len(), sampled) as f32;
                    for (j, position) in step.sampled().enumerate() {
                        // A token without any context has no distribution to learn.
                        let Some(row) = (if position == 0 { None } else { row_of(position) })
                        else {
                            continue;
                        };
                        let old_logprob = step.scores()[j].logprob;
                        let ref_logprob = reference.map_or(old_logprob, |all| all[g][r][t][j]);
                        targets.push((
                            Target { row, token: segment.tokens[position] },
                            LossTarget { old_logprob, ref_logprob, advantage, weight },
                            [g, r, t, j],
                        ));
                    }
                }
                for (target, loss, origin) in targets {
                    open.packed.targets.push(target);
                    open.targets.push(loss);
                    open.origin.push(origin);
                }
            }
        }
    }
    if !open.packed.tokens.is_empty() {
        done.push(open);
    }
    stats.rows = done.iter().map(|b| b.packed.tokens.len()).sum();
    stats.rows_taped = done.iter().flat_map(|b| &b.taped).map(Vec::len).sum();
    let micro = done
        .into_iter()
        .map(|b| {
            let Builder { packed, targets, origin, taped } = b;
            MicroBatch { packed, targets, origin, taped }
        })
        .collect();
    (micro, stats)
}

/// Length of the prompt that all rollouts of a group begin with, up to the first sampled token;
/// 0 where there is nothing to share.
fn shared_prompt(batch: &Batch, group: usize) -> usize {
    let rollouts = &batch.groups[group].rollouts;
    let prompts: Vec<&[TokenId]> = rollouts
        .iter()
        .filter_map(|r| {
            let first = r.steps().first().filter(|s| s.segment() == 0)?;
            Some(&r.segments()[0].tokens[..first.sampled().start])
        })
        .collect();
    if prompts.len() < 2 || prompts.len() < rollouts.len() {
        return 0;
    }
    if prompts.iter().all(|p| *p == prompts[0]) { prompts[0].len() } else { 0 }
}

/// Whether a tape has every row that a group learns from.
fn is_whole(rollouts: &[Trajectory], taped: &[Vec<Vec<TapeRow>>]) -> bool {
    rollouts.iter().zip(taped).all(|(rollout, taped)| {
        rollout.steps().iter().all(|step| {
            taped.get(step.segment()).is_some_and(|rows| rows.len() + 1 >= step.sampled().end)
        })
    })
}

fn sampled_tokens(rollout: &Trajectory) -> usize {
    rollout.steps().iter().map(|s| s.sampled().len()).sum()
}

#[derive(Default)]
struct Builder {
    packed: PackedBatch,
    targets: Vec<LossTarget>,
    origin: Vec<[usize; 4]>,
    taped: Option<Vec<TapeRow>>,
}

impl Builder {
    fn push(&mut self, tokens: &[TokenId], offset: usize, parent: Option<usize>) -> usize {
        let start = self.packed.tokens.len();
        self.packed.tokens.extend_from_slice(tokens);
        self.packed.positions.extend((0..tokens.len()).map(|i| (offset + i) as u32));
        self.packed.segments.push(PackedSegment {
            range: start..self.packed.tokens.len(),
            parent,
            parent_len: if parent.is_some() { offset } else { 0 },
        });
        self.packed.segments.len() - 1
    }
}
