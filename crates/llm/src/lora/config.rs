//! What is adapted, and how.

use serde::{Deserialize, Serialize};

/// A projection that can be adapted, under its name in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Module {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Attention's output.
    OProj,
    /// The gate of the feed-forward half.
    GateProj,
    /// Its other factor.
    UpProj,
    /// Its output.
    DownProj,
}

impl Module {
    /// All of them, in the order of a block.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// The module's name inside a block.
    pub fn path(self) -> &'static str {
        match self {
            Self::QProj => "self_attn.q_proj",
            Self::KProj => "self_attn.k_proj",
            Self::VProj => "self_attn.v_proj",
            Self::OProj => "self_attn.o_proj",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::DownProj => "mlp.down_proj",
        }
    }

    /// The last part of the name, as configurations say it.
    pub fn name(self) -> &'static str {
        self.path().rsplit('.').next().unwrap_or_default()
    }
}

/// Adapters to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rows of A.
    pub rank: usize,
    /// α: what the adapters add is scaled by α / rank.
    pub alpha: f32,
    /// Probability that an input of an adapter is left out in training.
    pub dropout: f32,
    /// The adapted projections of every block.
    pub targets: Vec<Module>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, dropout: 0.0, targets: Module::ALL.to_vec() }
    }
}

/// Adapters that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} {what}")]
pub struct LoraError {
    /// The field of [`LoraConfig`].
    pub field: &'static str,
    /// What is wrong with it.
    pub what: String,
}

impl LoraConfig {
    /// α / rank.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first field that nothing could be trained with.
    pub fn validate(&self) -> Result<(), LoraError> {
        let refuse = |field, what| Err(LoraError { field, what });
        if !(1..=1024).contains(&self.rank) {
            return refuse("rank", format!("is {}, must lie between 1 and 1024", self.rank));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("alpha", format!("is {}, must be above 0", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(
                "dropout",
                format!("is {}, must be at least 0 and below 1", self.dropout),
            );
        }
        if self.targets.is_empty() {
            return refuse("targets", "is empty, name at least one projection, e.g. q_proj".into());
        }
        for (i, target) in self.targets.iter().enumerate() {
            if self.targets[..i].contains(target) {
                return refuse("targets", format!("names {} twice", target.name()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_nothing_could_be_trained_with_are_refused_by_name() {
        let good = LoraConfig::default();
        assert_eq!((good.validate(), good.scale()), (Ok(()), 2.0));
        for (bad, field) in [
            (LoraConfig { rank: 0, ..good.clone() }, "rank"),
            (LoraConfig { alpha: f32::NAN, ..good.clone() }, "alpha"),
            (LoraConfig { dropout: 1.0, ..good.clone() }, "dropout"),
            (LoraConfig { targets: Vec::new(), ..good.clone() }, "targets"),
            (LoraConfig { targets: vec![Module::UpProj; 2], ..good.clone() }, "targets"),
        ] {
            assert_eq!(bad.validate().unwrap_err().field, field);
        }
        let text = serde_json::to_string(&good).unwrap();
        assert!(text.contains("\"q_proj\"") && text.contains("\"down_proj\""), "{text}");
    }
}
