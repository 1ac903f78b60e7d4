//! AdamW over the flat parameter buffer, the schedule, gradient clipping.

use empg_llm::{AdamWStep, Layout, adamw_step, in_pool, sum_of_squares};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::{OptimConfig, Schedule};

/// AdamW (Loshchilov & Hutter, 2019) with bias correction and decoupled weight decay.
///
/// θ ← θ − lr·(m̂ / (√v̂ + ε) + λθ), with λ = 0 for norms and biases.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: OptimConfig,
    total: u64,
    step: u64,
    m: Vec<f32>,
    v: Vec<f32>,
    threads: usize,
}

/// What an optimiser step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OptimStats {
    /// ‖g‖₂ before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub lr: f64,
}

impl AdamW {
    /// A fresh optimiser for `parameters` weights; `total` optimiser steps shape the schedule.
    pub fn new(config: OptimConfig, parameters: usize, total: u64) -> Self {
        let zeros = || empg_llm::zeros(parameters);
        Self { config, total, step: 0, m: zeros(), v: zeros(), threads: 1 }
    }

    /// Shares its work over threads; the result does not depend on them.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// An optimiser with recorded moments.
    ///
    /// # Errors
    /// Moments of another size.
    pub fn restore(
        config: OptimConfig,
        parameters: usize,
        total: u64,
        step: u64,
        m: Vec<f32>,
        v: Vec<f32>,
    ) -> Result<Self, TrainError> {
        if m.len() != parameters || v.len() != parameters {
            return Err(TrainError::Checkpoint(format!(
                "optimizer.safetensors holds {} and {} moments for {parameters} parameters",
                m.len(),
                v.len()
            )));
        }
        Ok(Self { config, total, step, m, v, threads: 1 })
    }

    /// First moments, second moments, optimiser steps done.
    pub fn state(&self) -> (&[f32], &[f32], u64) {
        (&self.m, &self.v, self.step)
    }

    /// The learning rate of the next optimiser step.
    pub fn lr(&self) -> f64 {
        let OptimConfig { lr, warmup, schedule, .. } = self.config;
        if self.step < warmup {
            return lr * (self.step + 1) as f64 / warmup as f64;
        }
        let span = self.total.saturating_sub(warmup).max(1) as f64;
        let progress = ((self.step - warmup) as f64 / span).min(1.0);
        let floor = 0.1;
        match schedule {
            Schedule::Constant => lr,
            Schedule::Cosine => {
                lr * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
            }
            Schedule::Linear => lr * (1.0 - (1.0 - floor) * progress),
        }
    }

    /// Clips the gradient and updates the parameters. Nothing changes if the gradient is not
    /// finite.
    ///
    /// # Errors
    /// A gradient, or a weight after the step, that is NaN or infinite, with the tensor's name.
    pub fn update(
        &mut self,
        layout: &Layout,
        params: &mut [f32],
        grads: &mut [f32],
    ) -> Result<OptimStats, TrainError> {
        in_pool(self.threads, || self.update_tensors(layout, params, grads))
    }

    fn update_tensors(
        &mut self,
        layout: &Layout,
        params: &mut [f32],
        grads: &[f32],
    ) -> Result<OptimStats, TrainError> {
        let mut square = 0.0f64;
        for spec in layout.entries() {
            let part = sum_of_squares(&grads[spec.range.clone()], self.threads);
            if !part.is_finite() {
                return Err(TrainError::NotFinite { what: "gradient", tensor: spec.name.clone() });
            }
            square += part;
        }
        let grad_norm = square.sqrt();
        let limit = self.config.max_grad_norm;
        let scale = if limit > 0.0 && grad_norm > limit { (limit / grad_norm) as f32 } else { 1.0 };
        let lr = self.lr();
        self.step += 1;
        let OptimConfig { beta1, beta2, eps, weight_decay, .. } = self.config;
        let correct1 = 1.0 - beta1.powi(self.step as i32);
        let correct2 = 1.0 - beta2.powi(self.step as i32);
        let step_size = (lr / correct1) as f32;
        let root = (1.0 / correct2.sqrt()) as f32;
        let (beta1, beta2, eps) = (beta1 as f32, beta2 as f32, eps as f32);
        for spec in layout.entries() {
            let range = spec.range.clone();
            let decay = if spec.shape.len() > 1 { (lr * weight_decay) as f32 } else { 0.0 };
            let finite = adamw_step(
                &mut params[range.clone()],
                &grads[range.clone()],
                &mut self.m[range.clone()],
                &mut self.v[range],
                &AdamWStep { scale, beta1, beta2, eps, step_size, root, decay },
                self.threads,
            );
            if !finite {
                return Err(TrainError::NotFinite { what: "weight", tensor: spec.name.clone() });
            }
        }
        Ok(OptimStats { grad_norm, lr })
    }
}
