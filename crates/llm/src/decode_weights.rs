//! Weights as the decoder multiplies with them.

use rayon::prelude::*;

use crate::large_pages::{Lent, Site};
use crate::lora::Fused;
use crate::ops::panels::Precision;
use crate::ops::simd::level;
use crate::pair_linear::PairLinear;
use crate::pairs::Pair32;
use crate::panel_linear::PanelLinear;
use crate::params::{LayerRanges, Model};
use crate::strips::{Link, Output, PANEL};
use crate::team::Team;
use crate::thirds_linear::Split;

/// A model's weights in the decoder's layout; made once, shared by the decoders of all threads.
pub struct DecodeWeights<'m> {
    pub(crate) model: &'m Model,
    pub(crate) precision: Precision,
    pub(crate) layers: Vec<LayerWeights<'m>>,
    pub(crate) head: Matrix<'m>,
}

/// The matrices of one block.
pub(crate) struct LayerWeights<'m> {
    pub(crate) qkv: Matrix<'m>,
    pub(crate) out: Matrix<'m>,
    pub(crate) perceptron: Perceptron<'m>,
}

impl LayerWeights<'_> {
    /// As a pass multiplies with them.
    fn in_order(&mut self) -> [Link<'_>; 4] {
        let [gate_up, down] = match &mut self.perceptron {
            Perceptron::Plain { gate_up, down } => [gate_up.link(), down.link()],
            Perceptron::Coupled { gate_up, down } => [gate_up.link(), down.link()],
        };
        [self.qkv.link(), self.out.link(), gate_up, down]
    }
}

/// Gate and up, one below the other, and down.
pub(crate) enum Perceptron<'m> {
    Plain {
        gate_up: Matrix<'m>,
        down: Matrix<'m>,
    },
    /// In bf16, with gate and up in one product.
    Coupled {
        gate_up: PairLinear<'m>,
        down: PairLinear<'m>,
    },
}

/// A weight in either number type.
pub(crate) enum Matrix<'m> {
    F32(PanelLinear<'m>),
    Bf16(PairLinear<'m>),
}

/// Packed activations.
#[derive(Default)]
pub(crate) struct MatrixScratch {
    split: Split,
    pub(crate) pairs: Vec<Pair32>,
}

impl<'m> Matrix<'m> {
    fn new(
        precision: Precision,
        weight: &[f32],
        shape: (usize, usize),
        bias: Option<&[f32]>,
        site: Site<'m>,
    ) -> Self {
        match precision {
            Precision::F32 => Self::F32(PanelLinear::new(weight, shape, bias, site)),
            Precision::Bf16 => Self::Bf16(PairLinear::new(weight, shape, bias, site)),
        }
    }

    /// y (R, outputs) from x (R, inputs), the outputs shared among the team.
    pub(crate) fn apply(
        &self,
        team: &Team,
        x: &[f32],
        y: &mut [f32],
        into: Output,
        scratch: &mut MatrixScratch,
    ) {
        match self {
            Self::F32(linear) if linear.by_tiles() => {
                linear.apply_by_tiles(team, x, y, into, &mut scratch.split);
            }
            Self::F32(linear) => linear.apply(team, x, y, into, &mut scratch.pairs),
            Self::Bf16(linear) => linear.apply(team, x, y, into, &mut scratch.pairs),
        }
    }

    fn link(&mut self) -> Link<'_> {
        match self {
            Self::F32(linear) => linear.link(),
            Self::Bf16(linear) => linear.link(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(linear) => linear.bytes(),
            Self::Bf16(linear) => linear.bytes(),
        }
    }
}

impl<'m> DecodeWeights<'m> {
    /// Repacks the weights of `model` in f32, its adapters merged in, on one thread.
    pub fn new(model: &'m Model) -> Self {
        Self::with_precision(model, Precision::F32, 1)
    }

    /// Repacks the weights of `model` for products in `precision`, on `threads` threads. In bf16
    /// the cached keys and values are rounded too; sums, norms and logits stay f32.
    pub fn with_precision(model: &'m Model, precision: Precision, threads: usize) -> Self {
        Self::in_memory(model, precision, threads, &mut [])
    }

    /// The same in lent memory, as far as it goes; what it held is lost. A gradient's is idle while a
    /// policy samples, and holds all of them.
    pub fn in_memory(
        model: &'m Model,
        precision: Precision,
        threads: usize,
        memory: &'m mut [f32],
    ) -> Self {
        // Detected here once rather than by the first of the threads.
        level();
        let c = &model.config;
        let (hidden, inter) = (c.hidden_size, c.intermediate_size);
        let shapes = [
            (c.qkv_size(), hidden),
            (hidden, c.attention_size()),
            (2 * inter, hidden),
            (hidden, inter),
        ];
        let head_shape = (c.vocab_size, hidden);
        let mut memory = Lent(memory);
        let mut site = |(outputs, inputs): (usize, usize)| {
            memory.site(match precision {
                Precision::F32 => outputs.div_ceil(PANEL) * inputs,
                Precision::Bf16 => PairLinear::rows(outputs, inputs),
            })
        };
        // In the order of a pass.
        let ranges = model.layout.layers();
        let sites: Vec<_> = ranges.iter().map(|range| (range, shapes.map(&mut site))).collect();
        let head_site = site(head_shape);
        let layer = |(l, sites): (&LayerRanges, [Site<'m>; 4])| {
            let [qkv_shape, out_shape, both_shape, down_shape] = shapes;
            let [qkv, out, gate_up, down] = sites;
            let part = |which| model.merged_part(l.index, which);
            let make =
                |weight: &[f32], shape, site| Matrix::new(precision, weight, shape, None, site);
            let bias = l.qkv_bias.as_ref().map(|b| model.part(b));
            let (both_weight, down_weight) = (part(Fused::GateUp), part(Fused::Down));
            let couples = precision == Precision::Bf16 && PairLinear::couples(both_shape.0);
            let perceptron = if couples {
                Perceptron::Coupled {
                    gate_up: PairLinear::couple(&both_weight, both_shape, gate_up),
                    down: PairLinear::new(&down_weight, down_shape, None, down),
                }
            } else {
                Perceptron::Plain {
                    gate_up: make(&both_weight, both_shape, gate_up),
                    down: make(&down_weight, down_shape, down),
                }
            };
            let qkv_weight = part(Fused::Qkv);
            LayerWeights {
                qkv: Matrix::new(precision, &qkv_weight, qkv_shape, bias, qkv),
                out: make(&part(Fused::Out), out_shape, out),
                perceptron,
            }
        };
        let head = || {
            let weight = model.part(&model.layout.head());
            Matrix::new(precision, weight, head_shape, None, head_site)
        };
        // The head is the largest: whoever does not make it takes layers in the meantime.
        let (head, layers) = if threads <= 1 {
            (head(), sites.into_iter().map(layer).collect())
        } else {
            rayon::join(head, || sites.into_par_iter().map(layer).collect())
        };
        let mut weights = Self { model, precision, layers, head };
        let in_order = weights.layers.iter_mut().flat_map(LayerWeights::in_order);
        let mut links: Vec<Link<'_>> = in_order.chain([weights.head.link()]).collect();
        // A pass multiplies with one after the other, and the next begins again.
        let mut next = links[0].place;
        for link in links.iter_mut().rev() {
            *link.then = Some(next);
            next = link.place;
        }
        weights
    }

    /// The number type of the products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(|l| {
            let perceptron = match &l.perceptron {
                Perceptron::Plain { gate_up, down } => gate_up.bytes() + down.bytes(),
                Perceptron::Coupled { gate_up, down } => gate_up.bytes() + down.bytes(),
            };
            l.qkv.bytes() + l.out.bytes() + perceptron
        });
        layers.sum::<usize>() + self.head.bytes()
    }
}
