//! Scaled rotary frequencies, for contexts longer than a model was first trained for.

use std::f32::consts::PI;

/// How the frequencies of the rotary embedding are lowered (`rope_scaling` of `config.json`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// All by one factor: positions are interpolated (Chen et al., 2023).
    Linear {
        /// f becomes f / factor.
        factor: f32,
    },
    /// Long wavelengths by a factor, short ones not at all, those between by a mixture
    /// (Llama 3.1 and 3.2).
    Llama3 {
        /// f becomes f / factor for wavelengths above `original / low`.
        factor: f32,
        /// Wavelengths above `original / low` are long.
        low: f32,
        /// Wavelengths below `original / high` are short; above `low`.
        high: f32,
        /// Context of the first training, in tokens.
        original: f32,
    },
}

impl RopeScaling {
    /// The lowered frequency, in radians a position. Rounds in f32 where the reference
    /// implementation rounds.
    pub(crate) fn scaled(self, frequency: f32) -> f32 {
        match self {
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let wavelength = 2.0 * PI / frequency;
                if wavelength > original / low {
                    frequency / factor
                } else if wavelength < original / high {
                    frequency
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }

    /// The first number that makes no sense, with its key.
    pub(crate) fn wrong(self) -> Option<(&'static str, f32)> {
        let bad = |value: f32| !(value > 0.0 && value.is_finite());
        match self {
            Self::Linear { factor } => bad(factor).then_some(("factor", factor)),
            Self::Llama3 { factor, low, high, original } => {
                let all = [
                    ("factor", factor),
                    ("low_freq_factor", low),
                    ("high_freq_factor", high),
                    ("original_max_position_embeddings", original),
                ];
                let crossed = (high <= low).then_some(("high_freq_factor", high));
                all.into_iter().find(|&(_, value)| bad(value)).or(crossed)
            }
        }
    }

    /// The numbers that Llama 3.1 and 3.2 were published with, up to the factor.
    pub(crate) fn published(factor: f32) -> Self {
        Self::Llama3 { factor, low: 1.0, high: 4.0, original: 8192.0 }
    }
}

/// Frequency of pair `i` of a head, in radians a position: θ^(−2i/d), scaled.
pub(crate) fn frequency(
    theta: f32,
    head_dim: usize,
    scaling: Option<RopeScaling>,
    i: usize,
) -> f32 {
    // Rounded to f32 where the reference implementation rounds.
    let plain = 1.0 / theta.powf(2.0 * i as f32 / head_dim as f32);
    scaling.map_or(plain, |scaling| scaling.scaled(plain))
}

/// By what each frequency is divided, as GGUF's `rope_freqs.weight` has it.
pub(crate) fn divisors(theta: f32, head_dim: usize, scaling: RopeScaling) -> Vec<f32> {
    let of = |i| frequency(theta, head_dim, None, i) / frequency(theta, head_dim, Some(scaling), i);
    (0..head_dim / 2).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_wavelengths_stay_and_long_ones_are_divided() {
        let scaling = RopeScaling::published(8.0);
        let divided = divisors(500_000.0, 128, scaling);
        assert_eq!(divided.len(), 64);
        assert!(divided[..20].iter().all(|&d| d == 1.0));
        assert!(divided[40..].iter().all(|&d| (d - 8.0).abs() < 1e-5));
        assert!(divided.is_sorted_by(|a, b| a <= &(b + 1e-5)));
        assert!(divided.iter().any(|&d| (1.5..7.5).contains(&d)), "a mixture between");
        assert_eq!(RopeScaling::Linear { factor: 4.0 }.scaled(1.0), 0.25);
    }

    #[test]
    fn numbers_without_sense_are_named() {
        assert_eq!(RopeScaling::published(8.0).wrong(), None);
        assert_eq!(RopeScaling::Linear { factor: 0.0 }.wrong(), Some(("factor", 0.0)));
        let crossed = RopeScaling::Llama3 { factor: 8.0, low: 4.0, high: 4.0, original: 8192.0 };
        assert_eq!(crossed.wrong(), Some(("high_freq_factor", 4.0)));
        assert!(RopeScaling::published(f32::NAN).wrong().is_some());
    }
}
