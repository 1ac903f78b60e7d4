//! Distributions that tokens were sampled from, kept for training.
#![allow(unsafe_code)]

use empg::{TokenId, TokenScore};

use crate::large_pages::Floats;
use crate::ops::bf16::unpair_columns;
use crate::ops::panels::Precision;
use crate::share::Disjoint;
use crate::streaming::{write, written};
use crate::vector::LINE;

/// What was sampled from a distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) token: TokenId,
    pub(crate) score: TokenScore,
    /// 1/T of the distribution.
    pub(crate) inv_t: f32,
    /// Where the distribution lies.
    pub(crate) site: u32,
}

/// Rows of probabilities, in bf16 rounded to it.
#[derive(Debug)]
pub(crate) struct Distributions {
    precision: Precision,
    vocab: usize,
    capacity: usize,
    taken: usize,
    /// Of those taken, what was given back.
    free: Vec<u32>,
    /// (capacity, lanes)
    data: Floats,
}

impl Distributions {
    /// No room.
    pub(crate) fn new(precision: Precision, vocab: usize) -> Self {
        let (free, data) = (Vec::new(), Floats::default());
        Self { precision, vocab, capacity: 0, taken: 0, free, data }
    }

    /// Forgets all, and has room for as many. Memory is taken when they are written.
    pub(crate) fn reserve(&mut self, count: usize) -> std::io::Result<()> {
        let most = (u32::MAX as usize).min(isize::MAX as usize / self.bytes().max(1));
        if count > most {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        self.clear();
        self.data = Floats::try_zeros(count * self.lanes())?;
        self.capacity = count;
        Ok(())
    }

    /// Lanes of one: whole cache lines.
    fn lanes(&self) -> usize {
        let lanes = match self.precision {
            Precision::F32 => self.vocab,
            Precision::Bf16 => self.vocab.div_ceil(2),
        };
        lanes.next_multiple_of(LINE)
    }

    /// Bytes of one.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes() * size_of::<f32>()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.free.clear();
        self.taken = 0;
    }

    /// A site for one more; `None` without room.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let site = self.taken;
            (site < self.capacity).then(|| {
                self.taken += 1;
                site as u32
            })
        })
    }

    /// Gives a site back.
    pub(crate) fn give_back(&mut self, site: u32) {
        self.free.push(site);
    }

    /// The same, of a draw that is forgotten.
    pub(crate) fn release(&mut self, draw: Option<Draw>) {
        self.free.extend(draw.map(|draw| draw.site));
    }

    /// For writing by several threads.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        let (precision, vocab, lanes) = (self.precision, self.vocab, self.lanes());
        Writer { data: Disjoint::new(&mut self.data), precision, vocab, lanes }
    }

    /// out (V): what was written there. The sampled token's own is exact: a confident one's gradient is
    /// what is left of 1 − p.
    pub(crate) fn read(&self, draw: &Draw, out: &mut [f32]) {
        let lanes = &self.data[draw.site as usize * self.lanes()..][..self.lanes()];
        match self.precision {
            Precision::F32 => out.copy_from_slice(&lanes[..self.vocab]),
            Precision::Bf16 => {
                unpair_columns(lanes, out);
                out[draw.token as usize] = draw.score.logprob.exp();
            }
        }
    }
}

/// Where distributions are written.
pub(crate) struct Writer<'a> {
    data: Disjoint<'a, f32>,
    precision: Precision,
    vocab: usize,
    lanes: usize,
}

impl Writer<'_> {
    /// Writes p (V) to a site.
    ///
    /// # Safety
    /// No other thread writes there.
    pub(crate) unsafe fn put(&self, site: u32, p: &[f32]) {
        let width = match self.precision {
            Precision::F32 => self.vocab,
            Precision::Bf16 => self.vocab.div_ceil(2),
        };
        let start = site as usize * self.lanes;
        // SAFETY: the function's contract.
        let lanes = unsafe { self.data.part(start..start + width) };
        write(self.precision, p, lanes);
        written();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_taken_given_back_and_read() {
        for (precision, vocab) in
            [(Precision::F32, 37), (Precision::Bf16, 37), (Precision::Bf16, 64)]
        {
            let mut kept = Distributions::new(precision, vocab);
            assert!(kept.take().is_none() && kept.bytes().is_multiple_of(64));
            assert!(kept.reserve(usize::MAX / 8).is_err());
            kept.reserve(3).unwrap();
            let sites = [kept.take(), kept.take(), kept.take()].map(Option::unwrap);
            assert!(kept.take().is_none());
            let p = |site: u32| -> Vec<f32> {
                (0..vocab).map(|i| 1.0 / (1.0 + i as f32 + 100.0 * site as f32)).collect()
            };
            for site in sites {
                // SAFETY: one thread.
                unsafe { kept.writer().put(site, &p(site)) };
            }
            let score = TokenScore { logprob: -1.0, entropy: 1.0 };
            let draw = |site| Draw { token: 1, score, inv_t: 1.0, site };
            let exact = score.logprob.exp();
            for site in sites {
                let mut found = vec![0.0; vocab];
                kept.read(&draw(site), &mut found);
                let most = if precision == Precision::F32 { 0.0 } else { 1.0 / 256.0 };
                let mut p = p(site);
                if precision == Precision::Bf16 {
                    assert_eq!(found[1], exact);
                    p[1] = exact;
                }
                for (found, p) in found.iter().zip(p) {
                    assert!((found - p).abs() <= most * p);
                }
            }
            kept.release(Some(draw(sites[1])));
            kept.release(None);
            assert_eq!([kept.take(), kept.take()], [Some(sites[1]), None]);
            kept.clear();
            assert_eq!(kept.take(), Some(0));
        }
    }
}
