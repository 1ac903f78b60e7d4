//! A model with adapters.

use std::borrow::Cow;
use std::sync::Arc;

use super::adapters::{Adapters, Fused};
use super::config::{LoraConfig, LoraError};
use crate::params::{Layout, Model};

impl Model {
    /// Puts adapters beside the weights, which are frozen from then on. Nothing that the model
    /// computes changes until the adapters are trained. `base` names the model in their files.
    ///
    /// # Errors
    /// A configuration that nothing could be trained with.
    pub fn adapt(
        &mut self,
        config: LoraConfig,
        base: Option<String>,
        seed: u64,
    ) -> Result<(), LoraError> {
        let mut adapters = Adapters::init(config, &self.config, seed)?;
        adapters.base = base;
        self.adapters = Some(adapters);
        Ok(())
    }

    /// Names and places of what is trained: the adapters where there are any, else all weights.
    /// Gradients and moments have this layout.
    pub fn trainable(&self) -> &Arc<Layout> {
        self.adapters.as_ref().map_or(&self.layout, |adapters| &adapters.layout)
    }

    /// What is trained.
    pub fn trainable_params(&self) -> &[f32] {
        self.adapters.as_ref().map_or(&self.params, |adapters| &adapters.params)
    }

    /// The same, to be changed.
    pub fn trainable_params_mut(&mut self) -> &mut Vec<f32> {
        self.adapters.as_mut().map_or(&mut self.params, |adapters| &mut adapters.params)
    }

    /// Adds the adapters into the weights, W + s·B·A, and drops them.
    pub fn merge_adapters(&mut self) {
        let Some(adapters) = self.adapters.take() else { return };
        let layout = Arc::clone(&self.layout);
        for (i, layer) in layout.layers().iter().enumerate() {
            for fused in [Fused::Qkv, Fused::Out, Fused::GateUp, Fused::Down] {
                adapters.merge(i, fused, &mut self.params[fused.range(layer)]);
            }
        }
    }

    /// A fused matrix as generation multiplies with it: the adapters merged in.
    pub(crate) fn merged_part(&self, layer: usize, fused: Fused) -> Cow<'_, [f32]> {
        let weights = self.part(&fused.range(&self.layout.layers()[layer]));
        match &self.adapters {
            Some(adapters) if adapters.of(layer, fused).next().is_some() => {
                let mut merged = weights.to_vec();
                adapters.merge(layer, fused, &mut merged);
                Cow::Owned(merged)
            }
            _ => Cow::Borrowed(weights),
        }
    }
}
