//! Work shared out over threads: jobs that write disjoint parts of buffers.
#![allow(unsafe_code)]

use std::marker::PhantomData;
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

/// Cuts the first `len` elements off a slice.
// The slice itself moves on.
#[allow(clippy::mut_mut)]
pub(crate) fn cut<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(rest).split_at_mut(len);
    *rest = tail;
    head
}

/// A buffer that jobs write at the same time, each at places of its own that do not lie side by side.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a, T> {
    data: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: the buffer is borrowed for as long as this lives, and `at` is unsafe where jobs could
// meet.
unsafe impl<T: Send> Sync for Places<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Places<'_, T> {}

impl<'a, T> Places<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { data: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// Nobody else holds any of these elements meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn at(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a place outside its buffer");
        // SAFETY: inside the buffer, as just checked; unshared, as the caller says.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
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
