//! Waiting for many environments at once.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// Does the same work with every item. Where it means waiting for others, so many items at a time
/// have threads of their own; else one follows the other on this thread.
pub(crate) fn each<T: Send>(items: Vec<T>, at_once: Option<NonZeroUsize>, work: impl Fn(T) + Sync) {
    let threads = at_once.map_or(1, NonZeroUsize::get).min(items.len());
    if threads <= 1 {
        items.into_iter().for_each(work);
        return;
    }
    let queue = Mutex::new(items.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let toil = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // What a thread that cannot be had would have done the others do.
            let _ = std::thread::Builder::new().spawn_scoped(scope, toil);
        }
        toil();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everything_is_done_once_and_side_by_side() {
        let mut done = vec![0; 100];
        let under_way = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        each(done.iter_mut().collect(), NonZeroUsize::new(8), |item| {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(1));
            under_way.fetch_sub(1, Ordering::SeqCst);
            *item += 1;
        });
        assert_eq!(done, [1; 100]);
        assert!(most.load(Ordering::SeqCst) <= 8);
        // Eight that wait for one another: less than eight at a time would wait for ever.
        let barrier = Barrier::new(8);
        each((0..8).collect(), NonZeroUsize::new(8), |_| {
            barrier.wait();
        });
    }

    #[test]
    fn here_one_follows_the_other() {
        let order = Mutex::new(Vec::new());
        each((0..5).collect(), None, |i| order.lock().unwrap().push(i));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }
}
