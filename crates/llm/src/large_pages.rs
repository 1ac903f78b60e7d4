//! Large zeroed buffers on large pages, where the system has them: with small ones, the translation of
//! addresses and the first touch of every page cost more than many a computation.
#![allow(unsafe_code)]

use std::borrow::Cow;

use memmap2::MmapMut;
use rayon::prelude::*;

use crate::vector::Lane32;

/// Elements of a part that one thread clears.
const CLEARED_AT_ONCE: usize = 1 << 20;

/// A buffer of f32 that begins with a page, so that rows of whole cache lines lie on whole lines; it is
/// given back to the system when it is dropped.
#[derive(Debug, Default)]
pub struct Floats {
    map: Option<MmapMut>,
    len: usize,
}

impl Floats {
    /// `len` zeros; memory is taken when it is touched.
    ///
    /// # Panics
    /// Where the system has no addresses left, as any allocation.
    pub fn zeros(len: usize) -> Self {
        Self::try_zeros(len).unwrap_or_else(|e| panic!("no memory for {len} numbers: {e}"))
    }

    /// The same, where there may be none.
    pub(crate) fn try_zeros(len: usize) -> std::io::Result<Self> {
        if len == 0 {
            return Ok(Self::default());
        }
        let bytes = len.checked_mul(size_of::<f32>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        // Advice: failure is of no consequence.
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map: Some(map), len })
    }

    /// `len` numbers from now on, whatever they are: what was held is lost if the buffer has to grow.
    pub(crate) fn fit(&mut self, len: usize) {
        let room = self.map.as_ref().map_or(0, |map| map.len() / size_of::<f32>());
        if room < len {
            // The old one goes first.
            *self = Self::default();
            *self = Self::zeros(len);
        }
        self.len = len;
    }

    /// Zeros again, written by as many threads.
    pub fn clear(&mut self, threads: usize) {
        if threads <= 1 {
            self.fill(0.0);
        } else {
            self.par_chunks_mut(CLEARED_AT_ONCE).for_each(|part| part.fill(0.0));
        }
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.map.as_ref().map_or(&[], |map| &bytemuck::cast_slice(map)[..self.len])
    }
}

impl std::ops::DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.map.as_mut().map_or(&mut [], |map| &mut bytemuck::cast_slice_mut(map)[..self.len])
    }
}

/// `len` zeroed rows.
pub(crate) fn zeroed(len: usize) -> Vec<Lane32> {
    let mut rows = Vec::new();
    reserve(&mut rows, len);
    rows.resize(len, Lane32::ZERO);
    rows
}

/// `len` zeros, for parameters, gradients, an optimiser's moments: on large pages where the system has
/// them, and without touching any before it is used.
pub fn zeros(len: usize) -> Vec<f32> {
    let mut zeros = vec![0.0; len];
    advise(&mut zeros);
    zeros
}

/// Room for `len` elements in an empty vector, on large pages where the system has them.
pub(crate) fn reserve<T>(rows: &mut Vec<T>, len: usize) {
    rows.reserve_exact(len);
    advise(rows);
}

/// Where panels are to lie: in a part of memory that was lent, or in their own.
pub(crate) struct Site<'m>(Option<&'m mut [f32]>);

/// Memory that is lent part by part, as long as it lasts.
pub(crate) struct Lent<'m>(pub(crate) &'m mut [f32]);

impl<'m> Lent<'m> {
    /// A site for `rows` rows of a panel.
    pub(crate) fn site(&mut self, rows: usize) -> Site<'m> {
        let memory = std::mem::take(&mut self.0);
        match memory.split_at_mut_checked(rows * size_of::<Lane32>() / size_of::<f32>()) {
            Some((part, rest)) => {
                self.0 = rest;
                Site(Some(part))
            }
            None => Site(None),
        }
    }
}

impl<'m> Site<'m> {
    /// Memory of the panels' own.
    #[cfg(test)]
    pub(crate) const OWN: Self = Self(None);

    /// `count` panels as `pack` makes them, one after the other, `length` rows each. They are packed in
    /// the cache: zeros first would touch the memory of all panels twice.
    pub(crate) fn fill<T: bytemuck::Pod>(
        self,
        count: usize,
        length: usize,
        mut pack: impl FnMut(usize, &mut [T]),
    ) -> Cow<'m, [T]> {
        let mut panel = vec![T::zeroed(); length];
        // Memory from elsewhere may begin anywhere.
        let lent = self.0.and_then(|lent| bytemuck::try_cast_slice_mut(lent).ok());
        if let Some(lent) = lent.filter(|lent: &&mut [T]| lent.len() == count * length) {
            for (p, out) in lent.chunks_exact_mut(length.max(1)).enumerate() {
                pack(p, &mut panel);
                out.copy_from_slice(&panel);
            }
            return Cow::Borrowed(lent);
        }
        let mut panels = Vec::new();
        reserve(&mut panels, count * length);
        for p in 0..count {
            pack(p, &mut panel);
            panels.extend_from_slice(&panel);
        }
        Cow::Owned(panels)
    }
}

#[cfg(target_os = "linux")]
fn advise<T>(rows: &mut Vec<T>) {
    const PAGE: usize = 4096;
    let start = rows.as_mut_ptr().addr();
    let end = start + rows.capacity() * size_of::<T>();
    let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    if first < last {
        let from = rows.as_mut_ptr().wrapping_byte_add(first - start);
        // SAFETY: the range lies inside the vector's own allocation, and the advice changes which
        // pages back it, never what it holds. It is advice: failure is of no consequence.
        unsafe { libc::madvise(from.cast(), last - first, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_rows: &mut Vec<T>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_zeros_on_whole_lines() {
        for len in [0, 1, 1000, 3 << 19] {
            let mut floats = Floats::zeros(len);
            assert!(floats.len() == len && floats.iter().all(|x| *x == 0.0));
            assert!(len == 0 || floats.as_ptr().addr().is_multiple_of(64));
            for threads in [1, 2] {
                floats.fill(1.0);
                assert_eq!(floats.iter().sum::<f32>(), len as f32);
                floats.clear(threads);
                assert!(floats.iter().all(|x| *x == 0.0));
            }
        }
    }

    #[test]
    fn panels_lie_in_lent_memory_while_it_lasts() {
        let mut memory = Floats::zeros(5 * 32 + 7);
        let numbers = |p: usize, panel: &mut [Lane32]| {
            for (k, row) in panel.iter_mut().enumerate() {
                *row = Lane32([(10 * p + k) as f32; 32]);
            }
        };
        let mut lent = Lent(&mut memory);
        let first = lent.site(4).fill(2, 2, numbers);
        let second = lent.site(2).fill(1, 2, numbers);
        let own = Site::OWN.fill(2, 2, numbers);
        assert!(matches!(first, Cow::Borrowed(_)) && matches!(second, Cow::Owned(_)));
        assert_eq!(first.iter().map(|row| row.0[31]).collect::<Vec<_>>(), [0.0, 1.0, 10.0, 11.0]);
        assert_eq!(own.iter().map(|row| row.0[0]).collect::<Vec<_>>(), [0.0, 1.0, 10.0, 11.0]);
        assert_eq!(second.len(), 2);
        // Nothing is left of the odd numbers at the end, and lines that begin elsewhere are no lines.
        let odd = Lent(&mut memory[1..]).site(1).fill(1, 1, numbers);
        assert!(matches!(odd, Cow::Owned(_)));
        let none = Lent(&mut []).site(0).fill(0, 3, numbers);
        assert!(none.is_empty());
    }

    #[test]
    fn buffers_are_zero_whatever_their_size() {
        for len in [0, 1, 31, 40_000] {
            let rows = zeroed(len);
            assert_eq!(rows.len(), len);
            assert!(rows.iter().all(|r| r.0 == [0.0; 32]));
        }
    }
}
