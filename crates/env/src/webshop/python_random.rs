//! The random numbers of Python's `random` and of NumPy's `RandomState`, to the bit: the order of
//! goals, their price limits and the sampled sessions come from them.

use std::ops::Range;

const N: usize = 624;
const M: usize = 397;

/// MT19937 (Matsumoto and Nishimura, 1998), seeded as Python or as NumPy seeds it.
#[derive(Clone, Debug)]
pub struct Mt19937 {
    state: Box<[u32; N]>,
    next: usize,
}

impl Mt19937 {
    /// After Python's `random.seed(seed)` with a non-negative integer.
    pub fn python(seed: u64) -> Self {
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        Self::by_array(key)
    }

    /// After NumPy's `RandomState(seed)`.
    pub fn numpy(seed: u32) -> Self {
        let mut state = Box::new([0; N]);
        state[0] = seed;
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1812433253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn by_array(key: &[u32]) -> Self {
        let mut generator = Self::numpy(19650218);
        let state = &mut *generator.state;
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1664525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i >= N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            let last = state[i - 1];
            state[i] =
                (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1566083941)).wrapping_sub(i as u32);
            i += 1;
            if i >= N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        generator
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next >= N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        let state = &mut *self.state;
        for i in 0..N {
            let y = (state[i] & 0x8000_0000) | (state[(i + 1) % N] & 0x7fff_ffff);
            let magic = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            state[i] = state[(i + M) % N] ^ (y >> 1) ^ magic;
        }
        self.next = 0;
    }

    /// Python's `random.random()`: 53 bits in [0, 1).
    pub fn random(&mut self) -> f64 {
        let a = f64::from(self.next_u32() >> 5);
        let b = f64::from(self.next_u32() >> 6);
        (a * 67108864.0 + b) / 9007199254740992.0
    }

    /// Python's `random.uniform(a, b)`.
    pub fn uniform(&mut self, a: f64, b: f64) -> f64 {
        a + (b - a) * self.random()
    }

    /// Python's `random.getrandbits(bits)` for 1 to 64 bits.
    pub fn getrandbits(&mut self, bits: u32) -> u64 {
        let bits = bits.clamp(1, 64);
        if bits <= 32 {
            return u64::from(self.next_u32() >> (32 - bits));
        }
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32() >> (64 - bits)) << 32
    }

    /// A number below `n` as `Random._randbelow` draws it; 0 for `n` = 0.
    pub fn randbelow(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let bits = u64::BITS - n.leading_zeros();
        loop {
            let drawn = self.getrandbits(bits);
            if drawn < n {
                return drawn;
            }
        }
    }

    /// Python's `random.shuffle`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.randbelow(i as u64 + 1) as usize);
        }
    }

    /// The positions that Python's `random.sample(range(n), k)` takes; all of them where `k` > `n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let k = k.min(n);
        // Python compares the sizes of a list and of a set to choose between two methods.
        let mut set_size = 21_usize;
        if k > 5 {
            set_size += 4_usize.saturating_pow(((k * 3) as f64).log(4.0).ceil() as u32);
        }
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            return (0..k)
                .map(|i| {
                    let j = self.randbelow((n - i) as u64) as usize;
                    let taken = pool[j];
                    pool[j] = pool[n - i - 1];
                    taken
                })
                .collect();
        }
        let mut taken = std::collections::HashSet::new();
        let mut drawn = Vec::with_capacity(k);
        while drawn.len() < k {
            let j = self.randbelow(n as u64) as usize;
            if taken.insert(j) {
                drawn.push(j);
            }
        }
        drawn
    }

    /// NumPy's bounded integer in `0..=max` by masking.
    fn interval(&mut self, max: u32) -> u32 {
        if max == 0 {
            return 0;
        }
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let drawn = self.next_u32() & mask;
            if drawn <= max {
                return drawn;
            }
        }
    }

    /// NumPy's `RandomState.choice(range, size, replace=False)`: `size` distinct numbers of the
    /// range, all of them (shuffled) where it has fewer.
    pub fn choice(&mut self, range: Range<u32>, size: usize) -> Vec<u32> {
        let mut items: Vec<u32> = range.collect();
        for i in (1..items.len()).rev() {
            items.swap(i, self.interval(i as u32) as usize);
        }
        items.truncate(size);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What CPython 3.11 prints.
    #[test]
    fn equals_python() {
        let mut r = Mt19937::python(0);
        let drawn = [r.random(), r.random(), r.random()];
        assert_eq!(drawn, [0.8444218515250481, 0.7579544029403025, 0.420571580830845]);
        let mut bits = |k| r.getrandbits(k);
        assert_eq!([bits(1), bits(7), bits(32), bits(33)], [0, 123, 2195908194, 2087043557]);
        assert_eq!(bits(64), 14458531974522955699);

        let mut r = Mt19937::python(1 << 40 | 5);
        assert_eq!([r.random(), r.uniform(3.5, 9.25)], [0.5043802970418443, 5.044475529840887]);

        let mut r = Mt19937::python(1234);
        let mut items: Vec<u32> = (0..12).collect();
        r.shuffle(&mut items);
        assert_eq!(items, [2, 3, 8, 4, 11, 6, 5, 9, 10, 0, 1, 7]);
        assert_eq!(r.sample(30, 4), [0, 25, 11, 20]);
        assert_eq!(r.sample(10, 6), [9, 7, 8, 1, 0, 6]);
        assert_eq!(r.sample(1000, 50)[..8], [730, 117, 865, 14, 515, 498, 901, 988]);
        assert_eq!(r.randbelow(700), 55);
    }

    /// What NumPy 2's `RandomState` prints.
    #[test]
    fn equals_numpy() {
        let mut r = Mt19937::numpy(0);
        assert_eq!(r.choice(0..500, 4), [90, 254, 283, 445]);
        assert_eq!(r.choice(500..6910, 5), [3666, 5205, 3618, 5243, 1002]);
        let mut r = Mt19937::numpy(1);
        assert_eq!(r.choice(0..500, 4), [304, 340, 47, 67]);
        assert_eq!(r.choice(500..6910, 5), [2373, 3343, 4982, 2715, 1787]);
        let mut r = Mt19937::numpy(4294967295);
        assert_eq!(r.choice(0..500, 4), [115, 186, 86, 315]);
        assert_eq!(r.choice(500..6910, 5), [5582, 2783, 4837, 6884, 4309]);
    }

    #[test]
    fn odd_sizes() {
        let mut r = Mt19937::numpy(3);
        assert!(r.choice(5..5, 3).is_empty());
        assert_eq!(r.choice(7..8, 3), [7]);
        assert_eq!(r.sample(3, 50).len(), 3);
        assert_eq!(r.randbelow(0), 0);
    }
}
