//! Weights as the decoder multiplies with them.

use crate::panel_linear::PanelLinear;
use crate::params::Model;

/// A model's weights in the decoder's layout; made once, shared by the decoders of all threads.
pub struct DecodeWeights<'m> {
    pub(crate) model: &'m Model,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) head: PanelLinear,
}

/// The matrices of one block.
pub(crate) struct LayerWeights {
    pub(crate) qkv: PanelLinear,
    pub(crate) out: PanelLinear,
    pub(crate) gate_up: PanelLinear,
    pub(crate) down: PanelLinear,
}

impl<'m> DecodeWeights<'m> {
    /// Repacks the weights of `model`.
    pub fn new(model: &'m Model) -> Self {
        let c = &model.config;
        let layers = model
            .layout
            .layers()
            .iter()
            .map(|l| LayerWeights {
                qkv: PanelLinear::new(
                    model.part(&l.qkv),
                    c.qkv_size(),
                    c.hidden_size,
                    l.qkv_bias.as_ref().map(|b| model.part(b)),
                ),
                out: PanelLinear::new(
                    model.part(&l.o_proj),
                    c.hidden_size,
                    c.attention_size(),
                    None,
                ),
                gate_up: PanelLinear::new(
                    model.part(&l.gate_up),
                    2 * c.intermediate_size,
                    c.hidden_size,
                    None,
                ),
                down: PanelLinear::new(
                    model.part(&l.down),
                    c.hidden_size,
                    c.intermediate_size,
                    None,
                ),
            })
            .collect();
        let head =
            PanelLinear::new(model.part(&model.layout.head()), c.vocab_size, c.hidden_size, None);
        Self { model, layers, head }
    }
}
