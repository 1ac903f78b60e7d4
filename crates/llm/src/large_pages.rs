//! Large zeroed buffers on large pages: keys and values are read all over the place, and with small
//! pages the translation of addresses would cost more than the data.
#![allow(unsafe_code)]

use crate::vector::Lane32;

/// `len` zeroed rows. Asks the system for large pages; gets ordinary ones where it has none.
pub(crate) fn zeroed(len: usize) -> Vec<Lane32> {
    let mut rows = Vec::new();
    reserve(&mut rows, len);
    rows.resize(len, Lane32::ZERO);
    rows
}

/// Room for `len` elements in an empty vector, on large pages where the system has them.
pub(crate) fn reserve<T>(rows: &mut Vec<T>, len: usize) {
    rows.reserve_exact(len);
    advise(rows);
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
    fn buffers_are_zero_whatever_their_size() {
        for len in [0, 1, 31, 40_000] {
            let rows = zeroed(len);
            assert_eq!(rows.len(), len);
            assert!(rows.iter().all(|r| r.0 == [0.0; 32]));
        }
    }
}
