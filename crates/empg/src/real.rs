//! The two float types of token arrays, and how they are summed.

// These loops are compiled once more inside the reader's function for wider vectors.
#![allow(clippy::inline_always)]

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`. Sums and statistics are always f64.
pub trait Real:
    sealed::Sealed
    + Copy
    + Send
    + Sync
    + PartialEq
    + std::ops::Mul<Output = Self>
    + std::ops::Add<Output = Self>
    + Into<f64>
{
    /// 0.
    const ZERO: Self;
    /// The nearest value.
    fn nearest(value: f64) -> Self;
    /// Neither NaN nor infinite.
    fn finite(self) -> bool;
    /// The bits, widened.
    fn bits(self) -> u64;
}

impl Real for f32 {
    const ZERO: Self = 0.0;

    fn nearest(value: f64) -> Self {
        value as Self
    }

    fn finite(self) -> bool {
        self.is_finite()
    }

    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;

    fn nearest(value: f64) -> Self {
        value
    }

    fn finite(self) -> bool {
        self.is_finite()
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }
}

/// Lanes of a sum: the order of additions is fixed, whatever vectors the machine has.
const LANES: usize = 16;

/// The mean of a step's token entropies in f64, summed as everywhere in arrays of tokens: token i
/// is added to lane i mod 16, then the lanes are added pairwise.
///
/// For readers that see one token at a time.
#[derive(Clone, Debug, Default)]
pub struct StepMean {
    lanes: [f64; LANES],
    seen: usize,
}

impl StepMean {
    /// Adds the next token's entropy.
    pub fn push(&mut self, entropy: f64) {
        self.lanes[self.seen % LANES] += entropy;
        self.seen += 1;
    }

    /// The mean of the tokens; NaN without any.
    pub fn mean(&self) -> f64 {
        folded(self.lanes) / self.seen as f64
    }
}

/// Sum in f64, in an order that depends on the slice alone.
#[inline(always)]
pub(crate) fn sum<T: Real>(values: &[T]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane += value.into();
        }
    }
    // The zeros behind the rest change no lane.
    let mut last = [T::ZERO; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for (lane, &value) in lanes.iter_mut().zip(&last) {
        *lane += value.into();
    }
    folded(lanes)
}

#[inline(always)]
fn folded(lanes: [f64; LANES]) -> f64 {
    let eight: [f64; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f64; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Whether all values have the bits of the first.
#[inline(always)]
pub(crate) fn all_equal<T: Real>(values: &[T]) -> bool {
    let Some(first) = values.first().map(|value| value.bits()) else { return true };
    let same =
        |values: &[T]| values.iter().fold(0, |others, value| others | (value.bits() ^ first)) == 0;
    let Some(last) = values.last_chunk::<LANES>() else { return same(values) };
    values.as_chunks::<LANES>().0.iter().all(|block| same(block)) && same(last)
}

/// `slice::fill` for many short slices: by blocks, the last of which may overlap the one before.
#[inline(always)]
pub(crate) fn fill<T: Real>(out: &mut [T], value: T) {
    let block = [value; LANES];
    if let Some(last) = out.last_chunk_mut() {
        *last = block;
        for whole in out.as_chunks_mut().0 {
            *whole = block;
        }
    } else {
        for value_out in out {
            *value_out = value;
        }
    }
}

/// Whether no value is NaN or infinite: 0·x is 0 for finite x only.
pub(crate) fn all_finite<T: Real>(values: &[T]) -> bool {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [T::ZERO; 16];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = *lane + value * T::ZERO;
        }
    }
    lanes.iter().chain(rest).all(|value| value.finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_one_by_one_have_the_mean_of_the_slice() {
        let mut state = 5u64;
        for len in 1..100 {
            let values: Vec<f64> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    (state >> 11) as f64 / (1u64 << 50) as f64 - 1.0
                })
                .collect();
            let mut mean = StepMean::default();
            for &value in &values {
                mean.push(value);
            }
            assert_eq!(mean.mean().to_bits(), (sum(&values) / len as f64).to_bits());
        }
        assert!(StepMean::default().mean().is_nan());
    }

    #[test]
    fn one_other_value_is_seen_anywhere() {
        for at in 0..40 {
            let mut values = [1.5f64; 40];
            assert!(all_equal(&values));
            values[at] = 1.25;
            assert!(!all_equal(&values));
            values[at] = f64::NAN;
            assert!(!all_equal(&values));
        }
    }

    #[test]
    fn every_length_is_filled() {
        for len in 0..70 {
            let mut out = [0.0f32; 80];
            fill(&mut out[3..3 + len], 1.5);
            assert!(out[3..3 + len].iter().all(|&a| a == 1.5));
            assert_eq!(out.iter().filter(|&&a| a != 0.0).count(), len);
        }
    }

    #[test]
    fn one_value_that_is_not_finite_is_seen_anywhere() {
        for at in 0..40 {
            let mut values = [1.0f32; 40];
            assert!(all_finite(&values));
            values[at] = f32::NAN;
            assert!(!all_finite(&values));
            values[at] = f32::INFINITY;
            assert!(!all_finite(&values));
        }
    }
}
