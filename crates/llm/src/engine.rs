//! Passes over a packed batch: scores, and scores with gradients.

use empg::TokenScore;

use crate::{
    block::Pass,
    distributions::Draw,
    error::EngineError,
    large_pages::Floats,
    lora::{Grads, LoraPass},
    ops::{
        embedding,
        head::{self, RowScore},
        linear::Linear,
        matmul::{MatMut, Write, multiply},
        panels::{Mat, apart},
        rms_norm, thirds,
    },
    packed::{PackedBatch, Target},
    params::Model,
    sampling::LEAST_TEMPERATURE,
    share::{in_pool, run},
    tape::{Tape, TapeRow},
    workspace::{BlockActivations, Tile, Workspace, part},
};

/// Rows whose logits exist at the same time, on one thread and on several: the head's weights and
/// gradients are read once per so many rows.
const HEAD_ROWS: (usize, usize) = (96, 768);
/// Fewest and most rows of the head that one thread takes at a time.
const HEAD_SHARE: (usize, usize) = (24, 96);

/// How the loss changes with what was scored at one target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TargetGrad {
    /// dLoss/d ln p(token)
    pub dlogprob: f32,
    /// dLoss/dH
    pub dentropy: f32,
}

/// Targets by row.
struct RowTargets {
    /// Rows with a target, ascending.
    rows: Vec<u32>,
    /// Indices of targets by row, and by index within a row.
    order: Vec<u32>,
    /// Where in `order` the targets of the i-th row are; one more entry than rows.
    starts: Vec<usize>,
}

impl RowTargets {
    fn new(targets: &[Target]) -> Self {
        let mut order: Vec<u32> = (0..targets.len() as u32).collect();
        order.sort_by_key(|&i| targets[i as usize].row);
        let (mut rows, mut starts) = (Vec::new(), Vec::new());
        for (at, &i) in order.iter().enumerate() {
            let row = targets[i as usize].row as u32;
            if rows.last() != Some(&row) {
                rows.push(row);
                starts.push(at);
            }
        }
        starts.push(order.len());
        Self { rows, order, starts }
    }

    /// Targets of the i-th row.
    fn of(&self, i: usize) -> &[u32] {
        &self.order[self.starts[i]..self.starts[i + 1]]
    }
}

/// What a forward pass leaves for the backward pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// The input of every block.
    Inputs,
    /// The same and every block's activations.
    All,
}

/// Where the backward pass finds activations.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// Every block kept its own.
    Kept,
    /// They are computed again from every block's input.
    Inputs,
    /// Sampling kept them: a row for every row of the pack.
    Tape(&'a Tape, &'a [TapeRow]),
}

impl<'a> Source<'a> {
    /// By target row, what was sampled from it, if its distribution was kept and no other token is a
    /// target there.
    fn kept(self, batch: &PackedBatch, targets: &RowTargets, inv_t: f32) -> Option<Kept<'a>> {
        let Source::Tape(tape, rows) = self else { return None };
        let drawn = targets.rows.iter().enumerate().map(|(i, &row)| {
            let draw = tape.draw(rows[row as usize], inv_t)?;
            let mut tokens = targets.of(i).iter().map(|&t| batch.targets[t as usize].token);
            tokens.all(|token| token == draw.token).then_some(draw)
        });
        Some(Kept { tape, draws: drawn.collect() })
    }
}

/// Distributions that need no product with the head.
struct Kept<'a> {
    tape: &'a Tape,
    /// By target row.
    draws: Vec<Option<Draw>>,
}

/// The callback that turns a score into gradients.
type Loss<'a> = &'a mut dyn FnMut(usize, TokenScore) -> TargetGrad;

impl Model {
    /// Log-probability and full-vocabulary entropy (nats, of softmax(z / `temperature`)) of
    /// every target, in the order of `batch.targets`.
    ///
    /// # Errors
    /// The batch does not fit the model, the temperature is not positive, or the model's output
    /// is not finite.
    pub fn score(
        &self,
        batch: &PackedBatch,
        temperature: f32,
        ws: &mut Workspace,
    ) -> Result<Vec<TokenScore>, EngineError> {
        self.check(batch, temperature)?;
        let targets = RowTargets::new(&batch.targets);
        if targets.rows.is_empty() {
            return Ok(Vec::new());
        }
        in_pool(ws.threads, || self.forward_blocks(batch, &targets.rows, Keep::Nothing, ws));
        self.run_head(batch, &targets, temperature, None, None, ws)
    }

    /// Scores every target, asks `loss` for the gradient at each and adds the gradients of all
    /// parameters into `grads` (flat, in the order of [`Layout`](crate::Layout)). Returns the
    /// scores, in the order of `batch.targets`.
    ///
    /// `loss` gets the index of a target and its score. It is called once per target, by
    /// ascending row, and by ascending index within a row.
    ///
    /// # Errors
    /// As [`score`](Self::score); `grads` of another length; a gradient from `loss` that is not
    /// finite. `grads` may have been added to in part when a number is not finite.
    pub fn forward_backward(
        &self,
        batch: &PackedBatch,
        temperature: f32,
        loss: &mut dyn FnMut(usize, TokenScore) -> TargetGrad,
        grads: &mut [f32],
        ws: &mut Workspace,
    ) -> Result<Vec<TokenScore>, EngineError> {
        let source = if ws.checkpointing { Source::Inputs } else { Source::Kept };
        self.pull(source, batch, temperature, loss, grads, ws)
    }

    /// The same from what sampling kept: `rows` are the tape's rows of the batch's, as
    /// [`Decoder::tape_rows`](crate::Decoder::tape_rows) names them. The last block must have gone on
    /// with every row that has a target, which it has where a token was sampled from it.
    ///
    /// # Errors
    /// As [`forward_backward`](Self::forward_backward); a tape of other weights, of another number
    /// type than the workspace's, or with another token in a row.
    pub fn backward_from_tape(
        &self,
        (tape, rows): (&Tape, &[TapeRow]),
        batch: &PackedBatch,
        temperature: f32,
        loss: &mut dyn FnMut(usize, TokenScore) -> TargetGrad,
        grads: &mut [f32],
        ws: &mut Workspace,
    ) -> Result<Vec<TokenScore>, EngineError> {
        tape.check(self, ws.precision, batch, rows)?;
        self.pull(Source::Tape(tape, rows), batch, temperature, loss, grads, ws)
    }

    fn pull(
        &self,
        source: Source<'_>,
        batch: &PackedBatch,
        temperature: f32,
        loss: Loss<'_>,
        grads: &mut [f32],
        ws: &mut Workspace,
    ) -> Result<Vec<TokenScore>, EngineError> {
        self.check(batch, temperature)?;
        if grads.len() != self.trainable().len() {
            return Err(EngineError::BufferLength {
                what: "the gradient buffer",
                got: grads.len(),
                expected: self.trainable().len(),
            });
        }
        let mut grads = match &self.adapters {
            Some(_) => Grads::Adapters(grads),
            None => Grads::Weights(grads),
        };
        let targets = RowTargets::new(&batch.targets);
        if targets.rows.is_empty() {
            return Ok(Vec::new());
        }
        match source {
            Source::Kept | Source::Inputs => {
                let keep = if ws.checkpointing { Keep::Inputs } else { Keep::All };
                in_pool(ws.threads, || self.forward_blocks(batch, &targets.rows, keep, ws));
            }
            Source::Tape(tape, rows) => {
                if ws.streams.is_empty() {
                    ws.streams.push(Floats::default());
                }
                let taped = targets.rows.iter().map(|&row| rows[row as usize]);
                let len = targets.rows.len() * self.config.hidden_size;
                tape.outputs(taped, part(&mut ws.streams[0], len));
            }
        }
        let kept = source.kept(batch, &targets, 1.0 / temperature);
        let pull = Some((loss, &mut grads));
        let scores = self.run_head(batch, &targets, temperature, kept.as_ref(), pull, ws)?;
        in_pool(ws.threads, || self.backward_blocks(source, batch, &targets.rows, &mut grads, ws));
        Ok(scores)
    }

    fn check(&self, batch: &PackedBatch, temperature: f32) -> Result<(), EngineError> {
        if !(temperature >= LEAST_TEMPERATURE && temperature.is_finite()) {
            return Err(EngineError::Temperature(temperature));
        }
        if self.params.len() != self.layout.len() {
            return Err(EngineError::BufferLength {
                what: "the parameter buffer",
                got: self.params.len(),
                expected: self.layout.len(),
            });
        }
        batch.validate(&self.config)
    }

    fn lora_pass(&self, dropout: Option<u64>, threads: usize) -> Option<LoraPass<'_>> {
        self.adapters.as_ref().map(|adapters| LoraPass { adapters, dropout, threads })
    }

    /// Who attends to whom, and the angles of positions.
    fn plan(&self, batch: &PackedBatch, ws: &mut Workspace) {
        let last_position = batch.positions.iter().max().map_or(0, |&p| p as usize);
        ws.rope.ensure(last_position + 1, &self.config);
        ws.plan.fill(&batch.segments);
    }

    /// Runs all blocks. What is not kept shares one set of buffers. The last block goes on with
    /// `target_rows` only.
    fn forward_blocks(
        &self,
        batch: &PackedBatch,
        target_rows: &[u32],
        keep: Keep,
        ws: &mut Workspace,
    ) {
        let c = &self.config;
        let (n, hidden) = (batch.tokens.len(), c.hidden_size);
        self.plan(batch, ws);
        let layers = self.layout.layers();
        let streams = if keep == Keep::Nothing { 2 } else { layers.len() + 1 };
        let blocks = if keep == Keep::All { layers.len() } else { 1 };
        if ws.streams.len() < streams {
            ws.streams.resize_with(streams, Floats::default);
        }
        if ws.blocks.len() < blocks {
            ws.blocks.resize_with(blocks, Default::default);
        }
        let Workspace { rope, plan, attention, blocks, streams, tile, .. } = ws;
        let (threads, precision) = (ws.threads, ws.precision);
        let (positions, params) = (&batch.positions, &self.params);
        let lora = self.lora_pass(if keep == Keep::Nothing { None } else { ws.dropout }, threads);
        let (config, tape) = (c, None);
        let pass = Pass { config, params, positions, plan, rope, threads, precision, lora, tape };

        let table = self.part(&self.layout.embed());
        embedding::forward(&batch.tokens, table, hidden, part(&mut streams[0], n * hidden));
        let all: Vec<u32> = (0..n as u32).collect();
        for (i, layer) in layers.iter().enumerate() {
            let rows = if i + 1 == layers.len() { target_rows } else { &all };
            let (from, to) = if keep == Keep::Nothing { (i % 2, (i + 1) % 2) } else { (i, i + 1) };
            let block = if keep == Keep::All { i } else { 0 };
            let mut output = std::mem::take(&mut streams[to]);
            let out = part(&mut output, rows.len() * hidden);
            let input = &streams[from][..n * hidden];
            pass.forward(layer, input, rows, out, &mut blocks[block], tile, attention);
            streams[to] = output;
        }
        if keep == Keep::Nothing && !layers.len().is_multiple_of(2) {
            streams.swap(0, 1);
        }
        if keep != Keep::Nothing {
            // The head reads the first stream in either case.
            streams.swap(0, layers.len());
        }
    }

    /// Scores from the last block's output in `ws.streams[0]`. With a loss, also adds the head's
    /// gradients and leaves the gradient of that output in `ws.d_rows`. Rows whose distributions were
    /// kept are scored as they were in sampling.
    fn run_head(
        &self,
        batch: &PackedBatch,
        targets: &RowTargets,
        temperature: f32,
        kept: Option<&Kept<'_>>,
        mut loss: Option<(Loss<'_>, &mut Grads<'_>)>,
        ws: &mut Workspace,
    ) -> Result<Vec<TokenScore>, EngineError> {
        let c = &self.config;
        let (r, hidden, vocab) = (targets.rows.len(), c.hidden_size, c.vocab_size);
        let stride = apart(vocab);
        let inv_t = 1.0 / temperature;
        let (norm, weight) = (self.part(&self.layout.final_norm()), self.part(&self.layout.head()));
        let mut scores = vec![TokenScore { logprob: 0.0, entropy: 0.0 }; batch.targets.len()];
        let stream = &ws.streams[0][..r * hidden];
        let d_rows = part(&mut ws.d_rows, if loss.is_some() { r * hidden } else { 0 });
        d_rows.fill(0.0);
        let at_once = if ws.threads == 1 { HEAD_ROWS.0 } else { HEAD_ROWS.1 };
        let inv = part(&mut ws.final_inv, at_once);
        let Tile { rows: [normed, d_normed, ..], workers, weights: [w0, w1, _], factors } =
            &mut ws.tile;
        let [factors, _] = factors;
        let (threads, precision) = (ws.threads, ws.precision);
        let linear = Linear { rows: 0, inputs: hidden, outputs: vocab, threads, precision };
        let none = vec![None; if kept.is_some() { 0 } else { r }];
        let draws = kept.map_or(&none[..], |kept| &kept.draws);
        if draws.iter().any(Option::is_none) {
            linear.pack_forward(weight, w0);
        }
        if loss.is_some() {
            linear.pack_backward(weight, w1);
        }
        let mut summaries = vec![RowScore::default(); at_once];
        let mut pulls = vec![TargetGrad::default(); at_once];

        for first in (0..r).step_by(at_once) {
            let chunk = first..(first + at_once).min(r);
            let n = chunk.len();
            // Few rows a job read the weights often; few jobs leave threads without work.
            let share = if threads == 1 {
                n
            } else {
                let (least, most) = HEAD_SHARE;
                let group = thirds::rows_together(precision, hidden);
                n.div_ceil(2 * threads).next_multiple_of(group).clamp(least.max(group), most)
            };
            let wide = first * hidden..chunk.end * hidden;
            let x = &stream[wide.clone()];
            let normed = part(normed, n * hidden);
            rms_norm::forward(x, norm, c.rms_norm_eps, normed, &mut inv[..n]);
            let logits = part(&mut ws.logits, n * stride);
            let jobs = normed
                .chunks(share * hidden)
                .zip(logits.chunks_mut(share * stride))
                .zip(summaries.chunks_mut(share))
                .zip(draws[chunk.clone()].chunks(share));
            run(workers, jobs, |(((x, logits), summaries), draws), _| {
                let mut end = 0;
                for draws in draws.chunk_by(|a, b| a.is_some() == b.is_some()) {
                    let (start, rows) = (end, draws.len());
                    end += rows;
                    if draws[0].is_some() {
                        continue;
                    }
                    let x = Mat::new(&x[start * hidden..end * hidden], rows, hidden);
                    let logits = &mut logits[start * stride..end * stride];
                    let sums = MatMut::strided(logits, rows, vocab, stride);
                    multiply(sums, x, w0, Write::Replace, 1);
                    let summaries = &mut summaries[start..end];
                    for (logits, summary) in logits.chunks_exact(stride).zip(summaries) {
                        *summary = head::score(&logits[..vocab], inv_t);
                    }
                }
            });
            // Gradients at the targets' own tokens, applied once the rows are rewritten.
            let mut own = Vec::new();
            for (at, row) in chunk.clone().enumerate() {
                let mut total = TargetGrad::default();
                for &index in targets.of(row) {
                    let target = batch.targets[index as usize];
                    let place = at * stride + target.token as usize;
                    let score = draws[first + at].map_or_else(
                        || TokenScore {
                            logprob: summaries[at].logprob(logits[place], inv_t),
                            entropy: summaries[at].entropy,
                        },
                        |draw| draw.score,
                    );
                    check_score(index as usize, target.row, score)?;
                    scores[index as usize] = score;
                    if let Some((loss, _)) = &mut loss {
                        let grad = loss(index as usize, score);
                        check_grad(index as usize, grad)?;
                        total.dlogprob += grad.dlogprob;
                        total.dentropy += grad.dentropy;
                        own.push((place, grad.dlogprob));
                    }
                }
                pulls[at] = total;
            }
            if let Some((_, grads)) = &mut loss {
                let d_normed = part(d_normed, n * hidden);
                let frozen = grads.frozen();
                {
                    let mut packed = (!frozen).then(|| factors.fill(Linear { rows: n, ..linear }));
                    let (mut own, mut first) = (&own[..], 0);
                    let jobs = logits
                        .chunks_mut(share * stride)
                        .zip(d_normed.chunks_mut(share * hidden))
                        .zip(d_rows[wide.clone()].chunks_mut(share * hidden))
                        .map(|((logits, d_normed), d_rows)| {
                            let rows = first..first + logits.len() / stride;
                            first = rows.end;
                            let end = own.partition_point(|(place, _)| *place < first * stride);
                            let (mine, rest) = own.split_at(end);
                            own = rest;
                            let packed = packed.as_mut().map(|head| head.cut(rows.len()));
                            (rows, logits, d_normed, d_rows, mine, packed)
                        })
                        .collect::<Vec<_>>();
                    let (summaries, pulls, normed, inv) = (&summaries, &pulls, &*normed, &*inv);
                    let kept = kept.map(|kept| (kept.tape, &kept.draws[chunk.clone()]));
                    run(workers, jobs, |(rows, d, d_normed, d_rows, own, packed), _| {
                        let row = |(at, logits): (usize, &mut [f32])| {
                            let (summary, TargetGrad { dlogprob, dentropy }) =
                                (summaries[at], pulls[at]);
                            let logits = &mut logits[..vocab];
                            match kept.and_then(|(tape, draws)| Some((tape, draws[at]?))) {
                                Some((tape, draw)) => {
                                    tape.distribution(&draw, logits);
                                    let entropy = draw.score.entropy;
                                    head::backward_from(logits, inv_t, entropy, dlogprob, dentropy);
                                }
                                None => {
                                    head::backward(logits, inv_t, summary, dlogprob, dentropy);
                                }
                            }
                        };
                        rows.clone().zip(d.chunks_exact_mut(stride)).for_each(row);
                        for (place, dlogprob) in own {
                            d[place - rows.start * stride] += inv_t * dlogprob;
                        }
                        let wide = rows.start * hidden..rows.end * hidden;
                        let d = Mat::strided(d, rows.len(), vocab, stride);
                        let d_x = MatMut::new(d_normed, rows.len(), hidden);
                        multiply(d_x, d, w1, Write::Replace, 1);
                        let x = &x[wide.clone()];
                        rms_norm::backward(d_normed, x, norm, &inv[rows], d_rows);
                        if let Some(mut head) = packed {
                            head.dy(d);
                            head.x(&normed[wide]);
                        }
                    });
                }
                if let Some(dw) = grads.of(&self.layout.head()) {
                    factors.add_product(dw, threads);
                }
                if let Some(dw) = grads.of(&self.layout.final_norm()) {
                    rms_norm::backward_weight(d_normed, x, &inv[..n], dw);
                }
            }
        }
        Ok(scores)
    }

    /// Gradients of all blocks and the embedding, from `ws.d_rows`.
    fn backward_blocks(
        &self,
        source: Source<'_>,
        batch: &PackedBatch,
        target_rows: &[u32],
        grads: &mut Grads<'_>,
        ws: &mut Workspace,
    ) {
        let c = &self.config;
        let (n, r, hidden) = (batch.tokens.len(), target_rows.len(), c.hidden_size);
        let layers = self.layout.layers();
        let tape = match source {
            Source::Tape(tape, rows) => {
                self.plan(batch, ws);
                if ws.blocks.is_empty() {
                    ws.blocks.push(BlockActivations::default());
                }
                Some((tape, rows))
            }
            // Back to the order of the blocks; see `forward_blocks`.
            Source::Kept | Source::Inputs => {
                ws.streams.swap(0, layers.len());
                None
            }
        };
        let Workspace {
            rope,
            plan,
            attention,
            blocks,
            streams,
            tile,
            d_stream,
            d_rows,
            d_attention,
            d_qkv,
            ..
        } = ws;
        let (threads, precision) = (ws.threads, ws.precision);
        let (positions, params) = (&batch.positions, &self.params);
        let lora = self.lora_pass(ws.dropout, threads);
        let config = c;
        let pass = Pass { config, params, positions, plan, rope, threads, precision, lora, tape };
        let mut unused = Floats::default();
        let d_attention = part(d_attention, n * c.attention_size());
        let d_stream = part(d_stream, n * hidden);
        let all: Vec<u32> = (0..n as u32).collect();
        for (i, layer) in layers.iter().enumerate().rev() {
            let last = i + 1 == layers.len();
            let rows: &[u32] = if last { target_rows } else { &all };
            let (input, acts) = match source {
                Source::Kept => (&streams[i][..n * hidden], &blocks[i]),
                Source::Inputs => {
                    let input = &streams[i][..n * hidden];
                    let out = part(&mut unused, rows.len() * hidden);
                    pass.forward(layer, input, rows, out, &mut blocks[0], tile, attention);
                    (input, &blocks[0])
                }
                Source::Tape(..) => {
                    let input = part(&mut streams[0], n * hidden);
                    pass.recall(layer, input, rows, &mut blocks[0], tile, attention);
                    (&*input, &blocks[0])
                }
            };
            let d_out: &mut [f32] = if last { &mut d_rows[..r * hidden] } else { d_stream };
            pass.backward_feed_forward(layer, rows.len(), acts, d_out, d_attention, grads, tile);
            if last {
                spread(&d_rows[..r * hidden], target_rows, hidden, d_stream);
            }
            pass.backward_attention(
                layer,
                input,
                rows,
                acts,
                &d_attention[..rows.len() * c.attention_size()],
                d_stream,
                d_qkv,
                grads,
                tile,
                attention,
            );
        }
        if let Some(table) = grads.of(&self.layout.embed()) {
            embedding::backward(&batch.tokens, d_stream, hidden, table);
        }
    }
}

/// out (N, width): the given rows, and zero everywhere else.
fn spread(x: &[f32], rows: &[u32], width: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (x, &row) in x.chunks_exact(width).zip(rows) {
        out[row as usize * width..][..width].copy_from_slice(x);
    }
}

fn check_score(target: usize, row: usize, score: TokenScore) -> Result<(), EngineError> {
    for (what, value) in [("log-probability", score.logprob), ("entropy", score.entropy)] {
        if !value.is_finite() {
            return Err(EngineError::NonFinite { target, row, what, value });
        }
    }
    Ok(())
}

fn check_grad(target: usize, grad: TargetGrad) -> Result<(), EngineError> {
    let TargetGrad { dlogprob, dentropy } = grad;
    if dlogprob.is_finite() && dentropy.is_finite() {
        Ok(())
    } else {
        Err(EngineError::NonFiniteLoss { target, dlogprob, dentropy })
    }
}
