//! Lines packed into passes of about as many tokens, several passes side by side.

use std::thread;

use anyhow::anyhow;
use empg::TokenScore;
use empg_llm::{EngineError, Model, PackedBatch, Target, Workspace};

use super::line::Line;

/// Scores of a line's tokens but the first.
type LineScores = Vec<TokenScore>;

/// A model with a workspace for every pass that runs at the same time.
pub(super) struct Packs<'m> {
    model: &'m Model,
    temperature: f32,
    workspaces: Vec<Workspace>,
}

impl<'m> Packs<'m> {
    pub(super) fn new(model: &'m Model, temperature: f32, workers: usize, threads: usize) -> Self {
        let workspaces = (0..workers.max(1)).map(|_| Workspace::with_threads(threads)).collect();
        Self { model, temperature, workspaces }
    }

    /// Scores of every line, in order. What a line gets does not depend on the others.
    pub(super) fn score(
        &mut self,
        lines: &[Line],
        budget: usize,
    ) -> anyhow::Result<Vec<LineScores>> {
        let packs = cut(lines, budget);
        let (model, temperature) = (self.model, self.temperature);
        let share = packs.len().div_ceil(self.workspaces.len()).max(1);
        let shares = packs.chunks(share).zip(&mut self.workspaces);
        let scored: Vec<anyhow::Result<Vec<LineScores>>> = thread::scope(|scope| {
            let running: Vec<_> = shares
                .map(|(packs, workspace)| {
                    scope.spawn(move || {
                        let mut all = Vec::new();
                        for pack in packs {
                            all.extend(pass(model, temperature, pack, workspace)?);
                        }
                        Ok(all)
                    })
                })
                .collect();
            let join = |handle: thread::ScopedJoinHandle<'_, _>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running.into_iter().map(join).collect()
        });
        let mut all = Vec::with_capacity(lines.len());
        for part in scored {
            all.extend(part?);
        }
        Ok(all)
    }
}

/// Runs of lines of at most `budget` tokens each; a longer line goes alone.
fn cut(lines: &[Line], budget: usize) -> Vec<&[Line]> {
    let mut packs = Vec::new();
    let (mut first, mut tokens) = (0, 0);
    for (i, line) in lines.iter().enumerate() {
        if i > first && tokens + line.tokens.len() > budget {
            packs.push(&lines[first..i]);
            (first, tokens) = (i, 0);
        }
        tokens += line.tokens.len();
    }
    if first < lines.len() {
        packs.push(&lines[first..]);
    }
    packs
}

fn pass(
    model: &Model,
    temperature: f32,
    lines: &[Line],
    workspace: &mut Workspace,
) -> anyhow::Result<Vec<LineScores>> {
    let mut batch = PackedBatch::default();
    // Which line a target is of.
    let mut owners = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        // The last token's row predicts nothing that is asked for.
        let Some(inputs) = line.tokens.len().checked_sub(1).filter(|n| *n > 0) else { continue };
        let start = batch.tokens.len();
        batch.push(&line.tokens[..inputs], None);
        for (row, &token) in (start..).zip(&line.tokens[1..]) {
            batch.targets.push(Target { row, token });
            owners.push(i);
        }
    }
    let mut all = vec![LineScores::new(); lines.len()];
    if batch.tokens.is_empty() {
        return Ok(all);
    }
    let scores = model.score(&batch, temperature, workspace).map_err(|error| match error {
        EngineError::NonFinite { target, what, value, .. } => {
            let line = owners.get(target).map_or(0, |i| lines[*i].number);
            anyhow!("line {line}: the model's {what} is {value}; its weights have diverged")
        }
        other => other.into(),
    })?;
    for (owner, score) in owners.into_iter().zip(scores) {
        all[owner].push(score);
    }
    Ok(all)
}
