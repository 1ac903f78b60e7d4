//! The two float types of token arrays, and how they are summed.

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
}

impl Real for f32 {
    const ZERO: Self = 0.0;

    fn nearest(value: f64) -> Self {
        value as Self
    }

    fn finite(self) -> bool {
        self.is_finite()
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
}

/// The mean of a step's token entropies in f64, summed as everywhere in arrays of tokens: the last
/// `len % 16` tokens in order, then 16 lanes one after the other.
///
/// For readers that see one token at a time; [`push`](Self::push) exactly `len` of them.
#[derive(Clone, Debug)]
pub struct StepMean {
    lanes: [f64; 16],
    rest: f64,
    seen: usize,
    len: usize,
}

impl StepMean {
    /// Of a step of `len` tokens.
    pub fn new(len: usize) -> Self {
        // What an empty iterator of f64 sums to.
        Self { lanes: [0.0; 16], rest: -0.0, seen: 0, len }
    }

    /// Adds the next token's entropy.
    pub fn push(&mut self, entropy: f64) {
        if self.seen < self.len - self.len % 16 {
            self.lanes[self.seen % 16] += entropy;
        } else {
            self.rest += entropy;
        }
        self.seen += 1;
    }

    /// The mean of the tokens.
    pub fn mean(&self) -> f64 {
        self.lanes.iter().fold(self.rest, |total, lane| total + lane) / self.len as f64
    }
}

/// Sum in f64 over 16 lanes: an order that depends on the slice alone.
pub(crate) fn sum<T: Real>(values: &[T]) -> f64 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0f64; 16];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane += value.into();
        }
    }
    let mut total: f64 = rest.iter().map(|&value| value.into()).sum();
    for lane in lanes {
        total += lane;
    }
    total
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
            let mut mean = StepMean::new(len);
            for &value in &values {
                mean.push(value);
            }
            assert_eq!(mean.mean().to_bits(), (sum(&values) / len as f64).to_bits());
        }
        let mut zero = StepMean::new(1);
        zero.push(-0.0);
        assert_eq!(zero.mean().to_bits(), sum(&[-0.0f64]).to_bits());
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
