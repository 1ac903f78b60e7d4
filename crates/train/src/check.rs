//! What a configuration's values must be.

use empg_llm::LEAST_TEMPERATURE;

use crate::config::{Base, Config, ConfigError, Context};

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// The first key whose value cannot be trained with.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        fn at_least(key: &'static str, value: usize, least: usize) -> Result<(), ConfigError> {
            if value >= least {
                return Ok(());
            }
            Err(ConfigError { key, what: format!("is {value}, must be at least {least}") })
        }
        fn number(key: &'static str, value: f64, low: f64, high: f64) -> Result<(), ConfigError> {
            if value.is_finite() && (low..=high).contains(&value) {
                return Ok(());
            }
            let what = if high.is_finite() {
                format!("is {value}, must lie between {low} and {high}")
            } else {
                format!("is {value}, must be a finite number, at least {low}")
            };
            Err(ConfigError { key, what })
        }
        fn between(
            key: &'static str,
            value: usize,
            least: usize,
            most: usize,
        ) -> Result<(), ConfigError> {
            at_least(key, value, least)?;
            if value <= most {
                return Ok(());
            }
            Err(ConfigError { key, what: format!("is {value}, must be at most {most}") })
        }
        const ANY: f64 = f64::INFINITY;
        const MANY: usize = 1_000_000;
        if self.steps > 1_000_000_000 {
            let what = format!("is {}, must be at most 1000000000", self.steps);
            return Err(ConfigError { key: "steps", what });
        }
        self.env.options()?;
        between("env.topk", self.env.topk, 1, 100)?;
        number("env.timeout", self.env.timeout, 0.001, 86_400.0)?;
        between("env.retries", self.env.retries as usize, 0, 100)?;
        between("env.sessions", self.env.sessions, 0, 1024)?;
        if self.env.reset.contains_key("seed") || self.env.reset.contains_key("type") {
            let what = "names seed or type, which are said at every reset anyway";
            return Err(ConfigError { key: "env.reset", what: what.into() });
        }
        number("model.tape_gb", self.model.tape_gb, 0.0, 1e6)?;
        between("threads", self.threads, 1, 1024)?;
        between("rollout.groups", self.rollout.groups, 1, MANY)?;
        if self.rollout.group_size < 2 {
            let what = format!(
                "is {}, but advantages compare the rollouts of a group: use at least 2",
                self.rollout.group_size
            );
            return Err(ConfigError { key: "rollout.group_size", what });
        }
        between("rollout.group_size", self.rollout.group_size, 2, MANY)?;
        between("rollout.max_turns", self.rollout.max_turns, 1, MANY)?;
        at_least("rollout.max_context_tokens", self.rollout.max_context_tokens, 16)?;
        at_least("rollout.max_turn_tokens", self.rollout.max_turn_tokens, 1)?;
        if self.rollout.max_turn_tokens >= self.rollout.max_context_tokens {
            let what = format!(
                "is {}, must be below rollout.max_context_tokens ({})",
                self.rollout.max_turn_tokens, self.rollout.max_context_tokens
            );
            return Err(ConfigError { key: "rollout.max_turn_tokens", what });
        }
        if self.rollout.admissible && self.rollout.context == Context::Full {
            let what =
                "lists commands in window contexts only: set rollout.context = { window = n }";
            return Err(ConfigError { key: "rollout.admissible", what: what.into() });
        }
        if !(self.rollout.temperature.is_finite() && self.rollout.temperature >= LEAST_TEMPERATURE)
        {
            let what = format!(
                "is {}, must be at least {LEAST_TEMPERATURE:e} (0 is for evaluation: eval.temperature)",
                self.rollout.temperature
            );
            return Err(ConfigError { key: "rollout.temperature", what });
        }
        if let Some(k) = self.rollout.top_k {
            at_least("rollout.top_k", k, 1)?;
        }
        if let Some(p) = self.rollout.top_p {
            number("rollout.top_p", f64::from(p), f64::MIN_POSITIVE, 1.0)?;
        }
        number("reward.invalid_penalty", self.reward.invalid_penalty, 0.0, ANY)?;
        if let Some(overlong) = self.reward.overlong {
            overlong
                .validate()
                .map_err(|e| ConfigError { key: "reward.overlong", what: e.to_string() })?;
        }
        if (self.algo.ddof as usize) >= self.rollout.group_size && self.algo.base == Base::Grpo {
            let what = format!("is {}, must be below rollout.group_size", self.algo.ddof);
            return Err(ConfigError { key: "algo.ddof", what });
        }
        number("algo.eps", self.algo.eps, 0.0, ANY)?;
        number("algo.clip_low", self.algo.clip_low.unwrap_or_default(), 0.0, 1.0)?;
        number("algo.clip_high", self.algo.clip_high.unwrap_or_default(), 0.0, ANY)?;
        number("algo.kl_coef", self.algo.kl_coef.unwrap_or_default(), 0.0, ANY)?;
        number("algo.entropy_coef", self.algo.entropy_coef, -ANY, ANY)?;
        between("algo.max_rounds", self.algo.max_rounds, 1, MANY)?;
        between("algo.epochs", self.algo.epochs, 1, MANY)?;
        between("algo.minibatches", self.algo.minibatches, 1, MANY)?;
        at_least("algo.micro_batch_tokens", self.algo.micro_batch_tokens, 1)?;
        number("empg.k", self.empg.k, 0.0, ANY)?;
        number("empg.k_f", self.empg.k_f, 0.0, ANY)?;
        number("empg.zeta", self.empg.zeta, 0.0, ANY)?;
        number("empg.quantile_low", self.empg.quantile_low, 0.0, 1.0)?;
        number("empg.quantile_high", self.empg.quantile_high, 0.0, 1.0)?;
        if self.empg.quantile_low >= self.empg.quantile_high {
            let what = format!("is {}, must be below quantile_high", self.empg.quantile_low);
            return Err(ConfigError { key: "empg.quantile_low", what });
        }
        between("eval.episodes", self.eval.episodes, 0, MANY)?;
        between("eval.max_turns", self.eval.max_turns, 0, MANY)?;
        between("record.entropy_probe", self.record.entropy_probe, 0, MANY)?;
        between("record.gradient_probe", self.record.gradient_probe, 0, MANY)?;
        number("optim.lr", self.optim.lr, 0.0, ANY)?;
        // The largest that is below 1 in the optimiser's numbers; at 1 a moment would never move.
        let below_one = f64::from(1.0 - f32::EPSILON / 2.0);
        number("optim.beta1", self.optim.beta1, 0.0, below_one)?;
        number("optim.beta2", self.optim.beta2, 0.0, below_one)?;
        number("optim.eps", self.optim.eps, f64::MIN_POSITIVE, ANY)?;
        number("optim.weight_decay", self.optim.weight_decay, 0.0, ANY)?;
        number("optim.max_grad_norm", self.optim.max_grad_norm, 0.0, ANY)?;
        number("eval.temperature", f64::from(self.eval.temperature), 0.0, ANY)?;
        if self.eval.temperature > 0.0 && self.eval.temperature < LEAST_TEMPERATURE {
            let what = format!(
                "is {}, must be 0 (the most probable token) or at least {LEAST_TEMPERATURE:e}",
                self.eval.temperature
            );
            return Err(ConfigError { key: "eval.temperature", what });
        }
        if self.eval.splits.is_empty() {
            let what = "is empty, name at least one of \"seen\", \"unseen\"".into();
            return Err(ConfigError { key: "eval.splits", what });
        }
        if let Some(lora) = &self.model.lora {
            let refuse =
                |e: empg_llm::LoraError| ConfigError { key: "model.lora", what: e.to_string() };
            lora.validate().map_err(refuse)?;
        }
        if !matches!(self.model.dtype.as_str(), "auto" | "f32" | "bf16") {
            let what = format!("is {:?}, must be \"auto\", \"f32\" or \"bf16\"", self.model.dtype);
            return Err(ConfigError { key: "model.dtype", what });
        }
        if !matches!(self.model.device.as_str(), "auto" | "cpu") {
            let what = format!("is {:?}, this build computes on \"cpu\"", self.model.device);
            return Err(ConfigError { key: "model.device", what });
        }
        Ok(())
    }
}
