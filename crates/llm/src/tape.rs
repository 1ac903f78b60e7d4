//! What sampling keeps of its forward passes, so that training goes backward without computing them
//! again: a policy's first update after sampling reads the same tokens with the same weights.
//!
//! A row is a token with everything that it attends to; of every block it has the input, queries,
//! keys and values, the stream behind the attention, and gate and up. Attention is computed again:
//! it is little, and its normalisers are read by the backward pass only.
#![allow(unsafe_code)]

use std::ops::Range;

use empg::TokenId;

use crate::config::ModelConfig;
use crate::distributions::{Distributions, Draw};
use crate::error::EngineError;
use crate::large_pages::Floats;
use crate::ops::bf16::unpair_columns;
use crate::ops::panels::Precision;
use crate::ops::tile_product::TILE;
use crate::ops::tiles::SIDE;
use crate::packed::PackedBatch;
use crate::params::Model;
use crate::share::Disjoint;
use crate::streaming::{write, written};
use crate::vector::LINE;

/// A row of a tape.
pub type TapeRow = u32;

/// Contexts that are kept as a whole or not at all: a group, which is learned from together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TapeFamily(u32);

/// The row of what was not kept.
pub(crate) const MISSING: TapeRow = TapeRow::MAX;

/// Parameters that a stamp looks at.
const STAMPED: usize = 4096;

/// One of the things kept of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The block's input (hidden).
    Input,
    /// Queries, keys and values: as attention reads them, or where heads are normalised, before.
    Qkv,
    /// Behind the attention's residual (hidden).
    Middle,
    /// Gate and up before the activation (2 · intermediate).
    GateUp,
}

/// Where the fields of a row lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    precision: Precision,
    hidden: usize,
    qkv: usize,
    gate_up: usize,
}

impl Shape {
    fn new(config: &ModelConfig, precision: Precision) -> Self {
        let gate_up = 2 * config.intermediate_size;
        Self { precision, hidden: config.hidden_size, qkv: config.qkv_size(), gate_up }
    }

    /// Lanes of so many numbers: whole cache lines.
    fn lanes(self, width: usize) -> usize {
        let lanes = match self.precision {
            Precision::F32 => width,
            Precision::Bf16 => width.div_ceil(2),
        };
        lanes.next_multiple_of(LINE)
    }

    /// First lane and width of a field.
    fn place(self, field: Field) -> (usize, usize) {
        let (hidden, qkv) = (self.lanes(self.hidden), self.lanes(self.qkv));
        match field {
            Field::Input => (0, self.hidden),
            Field::Qkv => (hidden, self.qkv),
            Field::Middle => (hidden + qkv, self.hidden),
            Field::GateUp => (2 * hidden + qkv, self.gate_up),
        }
    }

    /// Lanes of a row.
    fn row(self) -> usize {
        let (first, width) = self.place(Field::GateUp);
        first + self.lanes(width)
    }
}

/// Why there is no tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TapeError {
    /// Training leaves out what sampling has computed with.
    #[error("the adapters have dropout: sampling leaves nothing out, training would")]
    Dropout,
    /// The system refuses the memory.
    #[error("there is no memory for {rows} tokens")]
    Memory {
        /// Rows or distributions asked for.
        rows: usize,
    },
}

/// Which token a row is of.
#[derive(Clone, Copy, Debug)]
struct Row {
    token: TokenId,
    position: u32,
    /// A token was sampled behind it: it has an output.
    drawn: bool,
    /// Which one, if the distribution was kept.
    draw: Option<Draw>,
}

/// The forward passes of sampled tokens, up to a limit of memory. In bf16 the numbers are rounded to
/// it; the last block's output is kept in f32, so that a token's probability in training is the one
/// that it was sampled with.
#[derive(Debug)]
pub struct Tape {
    shape: Shape,
    capacity: usize,
    /// Of the weights that the rows were computed with.
    stamp: u64,
    rows: Vec<Row>,
    /// Rows of families that were given up.
    free: Vec<TapeRow>,
    /// Rows of every family; `None` once it was given up.
    families: Vec<Option<Vec<TapeRow>>>,
    /// (capacity, row) of every block.
    layers: Vec<Floats>,
    /// (capacity, hidden): the last block's output, of rows that a token was sampled from.
    outputs: Floats,
    distributions: Distributions,
}

impl Tape {
    /// An empty tape for at most `rows` tokens of a model that samples in `precision`. Memory is taken
    /// when rows are written.
    ///
    /// # Errors
    /// A model whose adapters have dropout, more rows than the system can promise memory for.
    pub fn new(model: &Model, precision: Precision, rows: usize) -> Result<Self, TapeError> {
        if !serves(model) {
            return Err(TapeError::Dropout);
        }
        let shape = Shape::new(&model.config, precision);
        if rows >= MISSING as usize {
            return Err(TapeError::Memory { rows });
        }
        let buffer = |width: usize| {
            let buffer = rows.checked_mul(width).map(Floats::try_zeros);
            buffer.and_then(Result::ok).ok_or(TapeError::Memory { rows })
        };
        let layers = model.layout.layers().iter().map(|_| buffer(shape.row()));
        Ok(Self {
            shape,
            capacity: rows,
            stamp: stamp(model),
            rows: Vec::new(),
            free: Vec::new(),
            families: Vec::new(),
            layers: layers.collect::<Result<_, _>>()?,
            outputs: buffer(shape.hidden)?,
            distributions: Distributions::new(precision, model.config.vocab_size),
        })
    }

    /// Room for as many distributions of tokens, so that training does not multiply with the head again
    /// where a row's token is learned from that was sampled there. Those that were kept are forgotten.
    ///
    /// # Errors
    /// More than the system can promise memory for.
    pub fn with_distributions(mut self, count: usize) -> Result<Self, TapeError> {
        for row in &mut self.rows {
            row.draw = None;
        }
        self.distributions.reserve(count).map_err(|_| TapeError::Memory { rows: count })?;
        Ok(self)
    }

    /// Bytes that one row takes.
    pub fn row_bytes(model: &Model, precision: Precision) -> usize {
        let shape = Shape::new(&model.config, precision);
        (model.layout.layers().len() * shape.row() + shape.hidden) * size_of::<f32>()
    }

    /// Bytes that one distribution takes.
    pub fn distribution_bytes(model: &Model, precision: Precision) -> usize {
        Distributions::new(precision, model.config.vocab_size).bytes()
    }

    /// Rows that are kept.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new family. Where room is wanted, the last one is given up.
    pub fn family(&mut self) -> TapeFamily {
        self.families.push(Some(Vec::new()));
        TapeFamily(self.families.len() as u32 - 1)
    }

    /// Whether a family's rows are kept still.
    pub fn holds(&self, family: TapeFamily) -> bool {
        self.families.get(family.0 as usize).is_some_and(Option::is_some)
    }

    /// Gives up a family of which nothing is being computed: nobody will learn from it.
    pub fn forget(&mut self, family: TapeFamily) {
        let rows = self.families.get_mut(family.0 as usize).and_then(Option::take);
        for row in rows.unwrap_or_default() {
            self.distributions.release(self.rows[row as usize].draw.take());
            self.free.push(row);
        }
    }

    /// Forgets all rows; what is written next is of these weights.
    pub fn restart(&mut self, model: &Model) {
        self.rows.clear();
        self.free.clear();
        self.families.clear();
        self.distributions.clear();
        self.stamp = stamp(model);
    }

    /// Whether the rows are of this model as it is now.
    pub(crate) fn is_of(&self, model: &Model, precision: Precision) -> bool {
        serves(model)
            && self.shape == Shape::new(&model.config, precision)
            && self.layers.len() == model.layout.layers().len()
            && self.stamp == stamp(model)
    }

    /// Rows that can be taken.
    pub(crate) fn room(&self) -> usize {
        self.capacity - self.len()
    }

    /// Gives up the last family that is kept, and says which.
    pub(crate) fn give_up(&mut self) -> Option<TapeFamily> {
        let last = self.families.iter().rposition(Option::is_some)?;
        let last = TapeFamily(last as u32);
        self.forget(last);
        Some(last)
    }

    /// Adds rows for a family's tokens from a position on; [`MISSING`] ones where it is not kept or
    /// there is no room.
    pub(crate) fn take(
        &mut self,
        family: Option<TapeFamily>,
        tokens: &[TokenId],
        position: usize,
        taken: &mut Vec<TapeRow>,
    ) {
        let fits = tokens.len() <= self.room();
        let own = family.and_then(|family| self.families.get_mut(family.0 as usize)?.as_mut());
        let Some(own) = own.filter(|_| fits) else {
            taken.resize(taken.len() + tokens.len(), MISSING);
            return;
        };
        for (&token, position) in tokens.iter().zip(position as u32..) {
            let row = Row { token, position, drawn: false, draw: None };
            let at = self.free.pop().unwrap_or(self.rows.len() as TapeRow);
            match self.rows.get_mut(at as usize) {
                Some(old) => *old = row,
                None => self.rows.push(row),
            }
            own.push(at);
            taken.push(at);
        }
    }

    /// Where a pass writes what it keeps of a block.
    pub(crate) fn block<'a>(&'a mut self, layer: usize, rows: &'a [TapeRow]) -> TapeRows<'a> {
        TapeRows { data: Disjoint::new(&mut self.layers[layer]), shape: self.shape, rows }
    }

    /// Keeps rows of the last block's output.
    pub(crate) fn keep_outputs(&mut self, rows: &[TapeRow], x: &[f32]) {
        let hidden = self.shape.hidden;
        for (&row, x) in rows.iter().zip(x.chunks_exact(hidden)) {
            if row != MISSING {
                self.rows[row as usize].drawn = true;
                self.outputs[row as usize * hidden..][..hidden].copy_from_slice(x);
            }
        }
    }

    /// Where distributions behind rows are written.
    pub(crate) fn sites(&mut self, rows: &[TapeRow]) -> Vec<Option<u32>> {
        let mut site =
            |row: &TapeRow| if *row == MISSING { None } else { self.distributions.take() };
        rows.iter().map(&mut site).collect()
    }

    /// The distributions themselves.
    pub(crate) fn distributions(&mut self) -> &mut Distributions {
        &mut self.distributions
    }

    /// Says what was sampled from a row's distribution, which was written.
    pub(crate) fn drew(&mut self, row: TapeRow, draw: Draw) {
        let old = self.rows[row as usize].draw.replace(draw);
        self.distributions.release(old);
    }

    /// What was sampled from a row at a temperature, if its distribution is there.
    pub(crate) fn draw(&self, row: TapeRow, inv_t: f32) -> Option<Draw> {
        self.rows[row as usize].draw.filter(|draw| draw.inv_t == inv_t)
    }

    /// out (V): a distribution.
    pub(crate) fn distribution(&self, draw: &Draw, out: &mut [f32]) {
        self.distributions.read(draw, out);
    }

    /// out (R, hidden): rows of the last block's output.
    pub(crate) fn outputs(&self, rows: impl Iterator<Item = TapeRow>, out: &mut [f32]) {
        let hidden = self.shape.hidden;
        for (row, out) in rows.zip(out.chunks_exact_mut(hidden)) {
            out.copy_from_slice(&self.outputs[row as usize * hidden..][..hidden]);
        }
    }

    /// out (R, width): a field of rows of a block.
    pub(crate) fn read(&self, layer: usize, field: Field, rows: &[TapeRow], out: &mut [f32]) {
        let (first, width) = self.shape.place(field);
        let (size, data) = (self.shape.row(), &self.layers[layer]);
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            let lanes = &data[row as usize * size + first..][..self.shape.lanes(width)];
            match self.shape.precision {
                Precision::F32 => out.copy_from_slice(&lanes[..width]),
                Precision::Bf16 => unpair_columns(lanes, out),
            }
        }
    }

    /// The same as tiles, in bf16: as [`dense_tiles`](crate::ops::pairing::dense_tiles) makes every sixteen
    /// rows.
    pub(crate) fn read_tiles(&self, layer: usize, field: Field, rows: &[TapeRow], out: &mut [f32]) {
        assert!(self.shape.precision == Precision::Bf16, "tiles hold pairs");
        let (first, width) = self.shape.place(field);
        let (size, data) = (self.shape.row(), &self.layers[layer]);
        // A row's lanes are whole lines, and a line is a tile's row.
        let tiles = self.shape.lanes(width) / SIDE;
        for (rows, out) in rows.chunks(SIDE).zip(out.chunks_mut(tiles * TILE)) {
            for (r, &row) in rows.iter().enumerate() {
                let lanes = &data[row as usize * size + first..][..tiles * SIDE];
                for (lines, tile) in lanes.chunks_exact(SIDE).zip(out.chunks_exact_mut(TILE)) {
                    tile[r * SIDE..][..SIDE].copy_from_slice(lines);
                }
            }
        }
    }

    /// Checks that `rows` are those of the batch, written with the model's weights.
    pub(crate) fn check(
        &self,
        model: &Model,
        precision: Precision,
        batch: &PackedBatch,
        rows: &[TapeRow],
    ) -> Result<(), EngineError> {
        if !self.is_of(model, precision) {
            return Err(EngineError::Tape {
                row: 0,
                what: "it is of other weights or another number type",
            });
        }
        if rows.len() != batch.tokens.len() {
            let row = rows.len().min(batch.tokens.len());
            return Err(EngineError::Tape { row, what: "as many rows as tokens are wanted" });
        }
        let row = |row: usize| self.rows.get(*rows.get(row)? as usize);
        for (at, (&token, &position)) in batch.tokens.iter().zip(&batch.positions).enumerate() {
            if row(at).is_none_or(|row| row.token != token || row.position != position) {
                return Err(EngineError::Tape { row: at, what: "it holds another token there" });
            }
        }
        match batch.targets.iter().find(|t| row(t.row).is_none_or(|row| !row.drawn)) {
            Some(t) => Err(EngineError::Tape { row: t.row, what: "nothing was sampled behind it" }),
            None => Ok(()),
        }
    }
}

/// Rows of a pass, and where they are kept of one block.
#[derive(Clone, Copy)]
pub(crate) struct TapeRows<'a> {
    data: Disjoint<'a, f32>,
    shape: Shape,
    rows: &'a [TapeRow],
}

impl<'a> TapeRows<'a> {
    /// Some of the rows.
    pub(crate) fn part(self, rows: Range<usize>) -> Self {
        Self { rows: &self.rows[rows], ..self }
    }

    /// Keeps a field of the rows from `first` on: x (R, width).
    ///
    /// # Safety
    /// No other thread writes the same field of these rows, and no two rows are the same.
    pub(crate) unsafe fn put(&self, field: Field, first: usize, x: &[f32]) {
        let (_, width) = self.shape.place(field);
        for (at, x) in x.chunks_exact(width).enumerate() {
            // SAFETY: the function's contract.
            let Some(lanes) = (unsafe { self.lanes(field, first + at, 0..width) }) else {
                continue;
            };
            write(self.shape.precision, x, lanes);
        }
        written();
    }

    /// The lanes of some numbers of a field of a row: in bf16 an even number of them, from an even one
    /// on or to the last. `None` if the row is not kept.
    ///
    /// # Safety
    /// Nobody else has them.
    #[inline]
    pub(crate) unsafe fn lanes(
        &self,
        field: Field,
        row: usize,
        columns: Range<usize>,
    ) -> Option<&'a mut [f32]> {
        let row = self.rows[row];
        if row == MISSING {
            return None;
        }
        let (first, _) = self.shape.place(field);
        let start = row as usize * self.shape.row() + first;
        let columns = match self.shape.precision {
            Precision::F32 => columns,
            Precision::Bf16 => columns.start / 2..columns.end.div_ceil(2),
        };
        // SAFETY: the function's contract.
        Some(unsafe { self.data.part(start + columns.start..start + columns.end) })
    }
}

/// Tells weights before an update from those after it.
fn stamp(model: &Model) -> u64 {
    let adapters = model.adapters.as_ref().map_or(&[][..], |adapters| &adapters.params);
    [&model.params[..], adapters].iter().fold(0, |hash: u64, params| {
        let step = (params.len() / STAMPED).max(1);
        let bits = params.iter().step_by(step).map(|x| u64::from(x.to_bits()));
        bits.fold(hash ^ params.len() as u64, |hash, x| {
            (hash ^ x).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
        })
    })
}

/// Whether training computes what sampling does.
fn serves(model: &Model) -> bool {
    model.adapters.as_ref().is_none_or(|adapters| adapters.config.dropout == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::pairing::dense_tiles;
    use crate::ops::panels::Mat;

    #[test]
    fn fields_come_back_as_rows_and_as_tiles() {
        let config = ModelConfig {
            vocab_size: 11,
            hidden_size: 39,
            intermediate_size: 64,
            num_layers: 2,
            num_heads: 3,
            num_kv_heads: 1,
            head_dim: 10,
            rope_theta: 1e4,
            rope_scaling: None,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            max_position_embeddings: 64,
        };
        let model = Model::init(config, 1).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            let mut tape = Tape::new(&model, precision, 40).unwrap();
            let family = tape.family();
            let mut rows = Vec::new();
            tape.take(Some(family), &[1; 37], 0, &mut rows);
            // Not in their order, and one that is not kept.
            rows.reverse();
            rows.push(MISSING);
            let fields = [(Field::Input, 39), (Field::Qkv, 50), (Field::Middle, 39)];
            let fields = || fields.into_iter().chain([(Field::GateUp, 128)]);
            let numbers = |field: Field, width: usize| -> Vec<f32> {
                let of = field as usize * 1000;
                (0..38 * width).map(|i| ((i + of) as f32 * 0.37).sin()).collect()
            };
            for (field, width) in fields() {
                // SAFETY: nobody else writes.
                unsafe { tape.block(1, &rows).put(field, 0, &numbers(field, width)) };
            }
            rows.pop();
            for (field, width) in fields() {
                let (x, mut found) = (numbers(field, width), vec![0.0; 37 * width]);
                tape.read(1, field, &rows, &mut found);
                let off = x.iter().zip(&found).map(|(x, f)| (x - f).abs()).fold(0.0, f32::max);
                let most = if precision == Precision::F32 { 0.0 } else { 1.0 / 256.0 };
                assert!(off <= most, "{field:?}: {off}");
            }
            if precision == Precision::Bf16 {
                let x = numbers(Field::GateUp, 128);
                let mut found = vec![5.0; 3 * 4 * TILE];
                let mut expected = found.clone();
                tape.read_tiles(1, Field::GateUp, &rows, &mut found);
                for (b, x) in x[..37 * 128].chunks(SIDE * 128).enumerate() {
                    dense_tiles(Mat::new(x, x.len() / 128, 128), &mut expected[b * 4 * TILE..]);
                }
                assert_eq!(found, expected);
            }
        }
    }
}
