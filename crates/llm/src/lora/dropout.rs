//! Dropout from coordinates: the same element is left out in the forward and in the backward pass,
//! and a resumed run leaves out what the first would have.

/// A bijection that scatters its input (the finaliser of splitmix64).
pub(super) fn scatter(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Which inputs of one adapter are left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    seed: u64,
    /// Hashes below it leave an element out.
    threshold: u64,
    keep: f32,
}

impl Mask {
    pub(super) fn new(probability: f32, seed: u64) -> Self {
        let threshold = (f64::from(probability) * (1u64 << 32) as f64) as u64;
        Self { seed, threshold, keep: 1.0 / (1.0 - probability) }
    }

    /// Multiplies x (rows, width), whose first row is row `first` of the pack, with 0 or
    /// 1/(1 − p).
    pub(super) fn apply(self, x: &mut [f32], width: usize, first: usize) {
        for (row, x) in x.chunks_exact_mut(width).enumerate() {
            let at = scatter(self.seed ^ scatter((first + row) as u64));
            // Two elements a hash.
            for (pair, x) in x.chunks_mut(2).enumerate() {
                let hash = scatter(at ^ pair as u64);
                for (value, hash) in x.iter_mut().zip([hash >> 32, hash & 0xFFFF_FFFF]) {
                    *value *= if hash < self.threshold { 0.0 } else { self.keep };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out_its_share_and_keeps_the_mean() {
        let mask = Mask::new(0.25, 9);
        let mut x = vec![1.0; 64 * 501];
        mask.apply(&mut x, 501, 7);
        let left_out = x.iter().filter(|x| **x == 0.0).count() as f64 / x.len() as f64;
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64;
        assert!((left_out - 0.25).abs() < 0.01 && (mean - 1.0).abs() < 0.01, "{left_out} {mean}");
        // A tile that begins later leaves out the same elements of its rows.
        let mut tail = vec![1.0; 4 * 501];
        mask.apply(&mut tail, 501, 7 + 60);
        assert_eq!(tail, x[60 * 501..]);
        let mut other = vec![1.0; 64 * 501];
        Mask::new(0.25, 10).apply(&mut other, 501, 7);
        assert_ne!(other, x);
    }
}
