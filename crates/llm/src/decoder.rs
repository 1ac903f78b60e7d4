//! Text generation over many live contexts: tokens are queued, computed together when they are
//! needed, and never computed twice.

use std::sync::Arc;

use empg::{TokenId, TokenScore};

use crate::cache::{BLOCK, BlockId, BlockPool};
use crate::decode_error::DecodeError;
use crate::decode_pass::{Buffers, Drawn, Draws, Engine, Run, Taping};
use crate::decode_weights::DecodeWeights;
use crate::ops::panels::Precision;
use crate::ops::rope::RopeTable;
use crate::params::Model;
use crate::sampling::{SamplingParams, TurnRng};
use crate::tape::{MISSING, Tape, TapeFamily, TapeRow};
use crate::team::Team;

/// Rows that one pass through the layers takes at most; keeps activations in the cache.
const CHUNK_F32: usize = 192;
/// The same for products in bf16, which take half of the time: the weights' way from memory
/// counts double.
const CHUNK_BF16: usize = 512;
/// Keys and values that sequences decoded together should not exceed: about what stays in the
/// cache from one token to the next.
const BATCH_BYTES: usize = 12 << 20;
/// Weights that may stay in the cache from one token to the next.
const WEIGHT_BYTES: usize = 24 << 20;
/// Sequences that are decoded together even so.
const BATCH_MIN: usize = 12;

/// A live context of a [`Decoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqId {
    slot: u32,
    generation: u32,
}

/// One sampled turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Sampled tokens, the stop token included. Empty only if the context was already full.
    pub tokens: Vec<TokenId>,
    /// One score a token, of the full distribution at the sampling temperature, in nats.
    pub scores: Vec<TokenScore>,
    /// The last token is a stop token; false if `max_tokens` or the context limit came first.
    pub stopped: bool,
}

/// A context, or the shared beginning of several.
struct Slot {
    generation: u32,
    /// Handles and continuations that need it; 0 when the slot is free.
    references: u32,
    /// Tokens in all, those of the base and the queued ones included.
    len: usize,
    /// Tokens whose keys and values are in the blocks.
    computed: usize,
    table: Vec<BlockId>,
    /// Not computed yet. A context that can be continued always has at least its last token here.
    queued: Vec<TokenId>,
    /// A beginning that is still to be computed, shared with other contexts.
    base: Option<usize>,
    /// The family that it is kept with.
    family: Option<TapeFamily>,
    /// Where computed tokens are kept; none without a tape.
    taped: Vec<TapeRow>,
}

/// New tokens of one slot within a pass.
struct SlotRun {
    slot: usize,
    /// Position of the first one.
    first: usize,
    count: usize,
    /// The context's last token is among them, and this request draws its successor.
    draw: Option<usize>,
}

/// Generates turns for many contexts at once.
///
/// What a call returns for a sequence depends on the model, its tokens, the turn's seed and the
/// parameters, not on the other sequences or the threads: results are equal to the bit for any batch.
pub struct Decoder<'m> {
    weights: Arc<DecodeWeights<'m>>,
    max_context: usize,
    rope: RopeTable,
    pool: BlockPool,
    slots: Vec<Slot>,
    team: Team,
    tape: Option<Tape>,
    /// Of the runs of the next pass.
    tokens: Vec<TokenId>,
    /// The same, if there is a tape.
    taped: Vec<TapeRow>,
    buffers: Buffers,
}

impl<'m> Decoder<'m> {
    /// A decoder for contexts of at most `max_context` tokens.
    ///
    /// # Errors
    /// A limit of 0 or beyond the model's positions.
    pub fn new(model: &'m Model, max_context: usize) -> Result<Self, DecodeError> {
        Self::with_weights(Arc::new(DecodeWeights::new(model)), max_context)
    }

    /// The same over weights that several decoders share.
    ///
    /// # Errors
    /// A limit of 0 or beyond the model's positions.
    pub fn with_weights(
        weights: Arc<DecodeWeights<'m>>,
        max_context: usize,
    ) -> Result<Self, DecodeError> {
        let config = &weights.model.config;
        let positions = config.max_position_embeddings;
        if max_context == 0 || max_context > positions {
            return Err(DecodeError::ContextLimit { max: max_context, positions });
        }
        let pool = BlockPool::new(config, weights.precision);
        Ok(Self {
            weights,
            max_context,
            rope: RopeTable::default(),
            pool,
            slots: Vec::new(),
            team: Team::new(1),
            tape: None,
            tokens: Vec::new(),
            taped: Vec::new(),
            buffers: Buffers::default(),
        })
    }

    /// The same decoder on a team of `threads` threads.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.team = Team::new(threads.max(1));
        self
    }

    /// Writes contexts that are to be kept on a tape: see [`keep`](Self::keep).
    ///
    /// # Errors
    /// A tape of other weights.
    pub fn with_tape(mut self, tape: Tape) -> Result<Self, DecodeError> {
        if !tape.is_of(self.weights.model, self.weights.precision) {
            return Err(DecodeError::Tape);
        }
        self.tape = Some(tape);
        Ok(self)
    }

    /// The tape, which nothing more is written to.
    pub fn take_tape(&mut self) -> Option<Tape> {
        self.tape.take()
    }

    /// A family of contexts on the tape; `None` without one.
    pub fn tape_family(&mut self) -> Option<TapeFamily> {
        self.tape.as_mut().map(Tape::family)
    }

    /// Keeps what is computed of a context, and of its forks from now on, if the tape has the family
    /// still. When it is full, families are given up from the last. A context of which something was
    /// computed or forked before is not kept: its beginning would be missing.
    ///
    /// # Errors
    /// A sequence that is not open.
    pub fn keep(&mut self, seq: SeqId, family: TapeFamily) -> Result<(), DecodeError> {
        let slot = self.slot(seq)?;
        let held = self.tape.as_ref().is_some_and(|tape| tape.holds(family));
        let slot = &mut self.slots[slot];
        let whole = slot.computed == 0 && slot.base.is_none();
        slot.family = Some(family).filter(|_| held && whole);
        Ok(())
    }

    /// Rows of the tape that hold the beginning of a context, as far as it was computed and kept.
    pub fn tape_rows(&self, seq: SeqId) -> Vec<TapeRow> {
        let taped = self.slot(seq).map_or(&[][..], |slot| &self.slots[slot].taped);
        taped.iter().copied().take_while(|row| *row != MISSING).collect()
    }

    /// Tokens that a context can hold.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// Opens a context that begins with `prefix`; nothing is computed yet.
    ///
    /// # Errors
    /// An empty prefix, one longer than the context, a token outside the vocabulary.
    pub fn open(&mut self, prefix: &[TokenId]) -> Result<SeqId, DecodeError> {
        if prefix.is_empty() {
            return Err(DecodeError::EmptyPrefix);
        }
        self.check_tokens(0, prefix)?;
        let slot = self.new_slot(Slot {
            generation: 0,
            references: 1,
            len: prefix.len(),
            computed: 0,
            table: Vec::new(),
            queued: prefix.to_vec(),
            base: None,
            family: None,
            taped: Vec::new(),
        });
        Ok(self.id(slot))
    }

    /// Opens a context with the same tokens. What is computed already is shared, and what is
    /// still queued will be computed once for both.
    ///
    /// # Errors
    /// A sequence that is not open.
    pub fn fork(&mut self, seq: SeqId) -> Result<SeqId, DecodeError> {
        let parent = self.slot(seq)?;
        // All queued tokens but the last move to a beginning that both continue; the last stays
        // with each, so that each can compute the distribution that follows.
        let slot = &mut self.slots[parent];
        let last = slot.queued.len() - 1;
        if last > 0 {
            let own = slot.queued.split_off(last);
            let shared = Slot {
                generation: 0,
                references: 1,
                len: slot.len - 1,
                computed: slot.computed,
                table: std::mem::take(&mut slot.table),
                queued: std::mem::replace(&mut slot.queued, own),
                base: slot.base.take(),
                family: slot.family,
                taped: std::mem::take(&mut slot.taped),
            };
            slot.computed = 0;
            let base = self.new_slot(shared);
            self.slots[parent].base = Some(base);
        }
        let slot = &self.slots[parent];
        let copy = Slot {
            generation: 0,
            references: 1,
            len: slot.len,
            computed: slot.computed,
            table: slot.table.clone(),
            queued: slot.queued.clone(),
            base: slot.base,
            family: slot.family,
            taped: slot.taped.clone(),
        };
        for &block in &copy.table {
            self.pool.retain(block);
        }
        if let Some(base) = copy.base {
            self.slots[base].references += 1;
        }
        let slot = self.new_slot(copy);
        Ok(self.id(slot))
    }

    /// Queues tokens behind a context.
    ///
    /// # Errors
    /// A sequence that is not open, a token outside the vocabulary, more tokens than fit (then
    /// nothing is queued).
    pub fn append(&mut self, seq: SeqId, tokens: &[TokenId]) -> Result<(), DecodeError> {
        let slot = self.slot(seq)?;
        self.check_tokens(self.slots[slot].len, tokens)?;
        self.slots[slot].queued.extend_from_slice(tokens);
        self.slots[slot].len += tokens.len();
        Ok(())
    }

    /// Tokens in a context: queued and sampled ones included, 0 if it is not open.
    pub fn len(&self, seq: SeqId) -> usize {
        self.slot(seq).map_or(0, |slot| self.slots[slot].len)
    }

    /// Sequences that are open.
    pub fn open_sequences(&self) -> usize {
        let bases: usize =
            self.slots.iter().filter(|s| s.references > 0 && s.base.is_some()).count();
        let references: u32 = self.slots.iter().map(|s| s.references).sum();
        references as usize - bases
    }

    /// Bytes of keys and values in use.
    pub fn cache_bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// Closes a context and frees what only it used. Closing twice does nothing.
    pub fn close(&mut self, seq: SeqId) {
        if let Ok(slot) = self.slot(seq) {
            self.release(slot);
        }
    }

    /// Samples one turn for every request `(sequence, seed of this turn)`, in the order of the
    /// requests. A sequence's turn ends at a stop token, after `max_tokens` tokens, or when the
    /// context is full; its tokens are then part of its context. Finished sequences leave the
    /// batch. A sequence whose context is already full gets an empty turn.
    ///
    /// # Errors
    /// A sequence that is not open or requested twice, a bad parameter: nothing has changed then.
    /// Output that is not finite: the sequences of this call are closed.
    pub fn generate(
        &mut self,
        requests: &[(SeqId, u64)],
        params: &SamplingParams,
    ) -> Result<Vec<Turn>, DecodeError> {
        params.validate(self.weights.model.config.vocab_size)?;
        let mut slots = Vec::with_capacity(requests.len());
        let mut seen = vec![false; self.slots.len()];
        for &(seq, _) in requests {
            let slot = self.slot(seq)?;
            if std::mem::replace(&mut seen[slot], true) {
                return Err(DecodeError::Duplicate(seq));
            }
            slots.push(slot);
        }
        let turns = self.sample_turns(requests, &slots, params);
        if turns.is_err() {
            for &slot in &slots {
                self.release(slot);
            }
        }
        turns
    }

    fn sample_turns(
        &mut self,
        requests: &[(SeqId, u64)],
        slots: &[usize],
        params: &SamplingParams,
    ) -> Result<Vec<Turn>, DecodeError> {
        self.compute_bases(slots);
        let mut turns: Vec<Turn> = requests
            .iter()
            .map(|_| Turn { tokens: Vec::new(), scores: Vec::new(), stopped: false })
            .collect();
        let mut rngs: Vec<TurnRng> = requests.iter().map(|r| TurnRng::new(r.1)).collect();
        let mut first = 0;
        while first < requests.len() {
            let (mut last, mut bytes) = (first, 0);
            // Where the weights do not stay in the cache either, reading them once counts more.
            let all = self.weights.bytes() > WEIGHT_BYTES;
            while last < requests.len() && (all || last < first + BATCH_MIN || bytes < BATCH_BYTES)
            {
                bytes += self.slots[slots[last]].len * self.pool.token_bytes();
                last += 1;
            }
            let mut active: Vec<usize> =
                (first..last).filter(|&r| self.slots[slots[r]].len < self.max_context).collect();
            while !active.is_empty() {
                let work: Vec<(usize, Option<usize>)> =
                    active.iter().map(|&r| (slots[r], Some(r))).collect();
                for (request, drawn) in self.compute(&work, Some((params, &mut rngs))) {
                    let slot = &mut self.slots[slots[request]];
                    let (token, score) = drawn.ok_or(DecodeError::NotFinite { len: slot.len })?;
                    slot.queued.push(token);
                    slot.len += 1;
                    let turn = &mut turns[request];
                    turn.tokens.push(token);
                    turn.scores.push(score);
                    turn.stopped = params.stop.contains(&token);
                }
                active.retain(|&r| {
                    !turns[r].stopped
                        && turns[r].tokens.len() < params.max_tokens
                        && self.slots[slots[r]].len < self.max_context
                });
            }
            first = last;
        }
        Ok(turns)
    }

    /// Computes the queued beginnings that `slots` continue, and makes every slot continue its
    /// computed beginning.
    fn compute_bases(&mut self, slots: &[usize]) {
        // Every level of beginnings that continue beginnings is one round.
        loop {
            let mut ready: Vec<(usize, Option<usize>)> = Vec::new();
            for &slot in slots {
                let mut root = None;
                let mut at = self.slots[slot].base;
                while let Some(base) = at {
                    if self.slots[base].queued.is_empty() {
                        break;
                    }
                    root = Some(base);
                    at = self.slots[base].base;
                }
                if let Some(root) = root.filter(|root| ready.iter().all(|r| r.0 != *root)) {
                    ready.push((root, None));
                }
            }
            if ready.is_empty() {
                break;
            }
            for &(slot, _) in &ready {
                self.adopt(slot);
            }
            self.compute(&ready, None);
        }
        for &slot in slots {
            self.adopt(slot);
        }
    }

    /// Takes over the blocks of a computed beginning.
    fn adopt(&mut self, slot: usize) {
        let Some(base) = self.slots[slot].base.take() else { return };
        let (table, taped) = (self.slots[base].table.clone(), self.slots[base].taped.clone());
        for &block in &table {
            self.pool.retain(block);
        }
        self.slots[slot].computed = self.slots[base].len;
        self.slots[slot].table = table;
        self.slots[slot].taped = taped;
        self.release(base);
    }

    /// Computes everything queued in the given slots, and draws what follows the last token of
    /// every slot that names a request, in order.
    fn compute(
        &mut self,
        work: &[(usize, Option<usize>)],
        mut sampling: Option<(&SamplingParams, &mut [TurnRng])>,
    ) -> Vec<Drawn> {
        self.make_room(work);
        let longest = work.iter().map(|w| self.slots[w.0].len).max().unwrap_or(0);
        let config = &self.weights.model.config;
        self.rope.ensure(longest, config);
        let most = match self.weights.precision {
            Precision::F32 => CHUNK_F32,
            Precision::Bf16 => CHUNK_BF16,
        };
        let mut drawn = Vec::new();
        let mut pass = |decoder: &mut Self, runs: &mut Vec<SlotRun>| {
            let draws = sampling.as_mut().map(|(params, rngs)| Draws { params, rngs });
            decoder.pass(runs, draws, &mut drawn);
            runs.clear();
        };
        let mut runs: Vec<SlotRun> = Vec::new();
        let mut rows = 0;
        for &(index, request) in work {
            self.reserve(index);
            let slot = &mut self.slots[index];
            let queued = std::mem::take(&mut slot.queued);
            let mut done = 0;
            while done < queued.len() {
                let count = (queued.len() - done).min(most - rows);
                let slot = &mut self.slots[index];
                self.tokens.extend_from_slice(&queued[done..done + count]);
                let first = slot.computed;
                slot.computed += count;
                if let Some(tape) = &mut self.tape {
                    let taken = self.taped.len();
                    let tokens = &queued[done..done + count];
                    tape.take(slot.family, tokens, first, &mut self.taped);
                    slot.taped.extend_from_slice(&self.taped[taken..]);
                }
                done += count;
                rows += count;
                let draw = request.filter(|_| done == queued.len());
                runs.push(SlotRun { slot: index, first, count, draw });
                if rows == most {
                    pass(self, &mut runs);
                    rows = 0;
                }
            }
        }
        if rows > 0 {
            pass(self, &mut runs);
        }
        drawn
    }

    /// Makes room on the tape for everything queued in the given slots: once rows are taken, none is
    /// given up before it is written.
    fn make_room(&mut self, work: &[(usize, Option<usize>)]) {
        let Some(tape) = &mut self.tape else { return };
        loop {
            let kept = work.iter().map(|w| &self.slots[w.0]).filter(|slot| slot.family.is_some());
            if kept.map(|slot| slot.queued.len()).sum::<usize>() <= tape.room() {
                return;
            }
            let Some(family) = tape.give_up() else { return };
            for slot in self.slots.iter_mut().filter(|slot| slot.family == Some(family)) {
                slot.family = None;
                slot.taped.fill(MISSING);
            }
        }
    }

    /// Blocks for everything queued in a slot, none of them shared where it will write.
    fn reserve(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if !slot.computed.is_multiple_of(BLOCK)
            && let Some(last) = slot.table.last_mut()
        {
            *last = self.pool.own(*last);
        }
        let needed = (slot.computed + slot.queued.len()).div_ceil(BLOCK);
        while slot.table.len() < needed {
            slot.table.push(self.pool.allocate());
        }
    }

    /// One pass of the queued rows through the model, and what follows from it.
    fn pass(&mut self, runs: &[SlotRun], draws: Option<Draws<'_>>, drawn: &mut Vec<Drawn>) {
        let Self { weights, team, rope, pool, slots, tape, tokens, taped, buffers, .. } = self;
        let runs: Vec<Run<'_>> = runs
            .iter()
            .map(|&SlotRun { slot, first, count, draw }| Run {
                table: &slots[slot].table,
                first,
                count,
                draw,
            })
            .collect();
        let engine = Engine { weights, team, rope };
        let taping = tape.as_mut().map(|tape| Taping { tape, rows: std::mem::take(taped) });
        drawn.extend(engine.pass(tokens, &runs, draws, taping, pool, buffers));
        tokens.clear();
    }

    fn check_tokens(&self, len: usize, tokens: &[TokenId]) -> Result<(), DecodeError> {
        let vocab_size = self.weights.model.config.vocab_size;
        if let Some(index) = tokens.iter().position(|t| *t as usize >= vocab_size) {
            return Err(DecodeError::Token { index, token: tokens[index], vocab_size });
        }
        let (added, max) = (tokens.len(), self.max_context);
        if added > max - len.min(max) {
            return Err(DecodeError::ContextFull { len, added, max });
        }
        Ok(())
    }

    fn slot(&self, seq: SeqId) -> Result<usize, DecodeError> {
        let index = seq.slot as usize;
        match self.slots.get(index) {
            Some(s) if s.references > 0 && s.generation == seq.generation => Ok(index),
            _ => Err(DecodeError::UnknownSequence(seq)),
        }
    }

    fn id(&self, slot: usize) -> SeqId {
        SeqId { slot: slot as u32, generation: self.slots[slot].generation }
    }

    fn new_slot(&mut self, slot: Slot) -> usize {
        if let Some(index) = self.slots.iter().position(|s| s.references == 0) {
            let generation = self.slots[index].generation;
            self.slots[index] = Slot { generation, ..slot };
            return index;
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    /// Gives up one reference; the last one frees the slot, and its beginning in turn.
    fn release(&mut self, slot: usize) {
        let mut next = Some(slot);
        while let Some(index) = next.take() {
            let slot = &mut self.slots[index];
            slot.references -= 1;
            if slot.references > 0 {
                return;
            }
            slot.generation = slot.generation.wrapping_add(1);
            slot.queued = Vec::new();
            slot.taped = Vec::new();
            next = slot.base.take();
            for block in std::mem::take(&mut slot.table) {
                self.pool.release(block);
            }
        }
    }
}
