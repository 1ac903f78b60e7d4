//! Work shared out over threads: jobs that write disjoint parts of buffers.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Runs every job, each with one of the workers' buffers: on the caller's thread if there is one
/// worker, by rayon otherwise. Which worker takes a job is left to chance, so a result must not
/// depend on what the buffers held.
pub(crate) fn run<J: Send, B: Send>(
    workers: &mut [B],
    jobs: impl IntoIterator<Item = J>,
    work: impl Fn(J, &mut B) + Sync,
) {
    if let [only] = workers {
        jobs.into_iter().for_each(|job| work(job, only));
        return;
    }
    let queue = Mutex::new(jobs.into_iter().collect::<Vec<_>>().into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (next, work) = (&next, &work);
    rayon::scope(|scope| {
        for buffers in workers {
            scope.spawn(move |_| {
                while let Some(job) = next() {
                    work(job, buffers);
                }
            });
        }
    });
}

/// Runs `work` on a thread of rayon's pool if there are several: many steps of [`run`] in a row, of
/// which each would otherwise put the caller to sleep and wake a thread.
pub fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    if threads <= 1 { work() } else { rayon::scope(|_| work()) }
}

/// Cuts the first `len` elements off a slice.
// The slice itself moves on.
#[allow(clippy::mut_mut)]
pub(crate) fn cut<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(rest).split_at_mut(len);
    *rest = tail;
    head
}

/// A buffer whose parts different threads write.
#[derive(Clone, Copy)]
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out parts, and `part` leaves it to the caller that they do not overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), of: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the buffer begins.
    pub(crate) fn start(&self) -> *mut T {
        self.start
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// Parts that are in use at the same time do not overlap.
    // Which is what makes `&mut` from `&` sound here.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part of the buffer");
        // SAFETY: inside the buffer, and nobody else has it by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_on_any_number_of_workers() {
        for workers in [1, 2, 5] {
            let mut data = vec![0; 40];
            let mut rest = &mut data[..];
            let jobs: Vec<_> = (0..8).map(|i| (i, cut(&mut rest, 5))).collect();
            let mut buffers = vec![0usize; workers];
            run(&mut buffers, jobs, |(i, part), count| {
                for x in part {
                    *x += i;
                }
                *count += 1;
            });
            assert_eq!(buffers.iter().sum::<usize>(), 8);
            assert!(data.chunks(5).enumerate().all(|(i, c)| c.iter().all(|x| *x == i)));
        }
    }
}
