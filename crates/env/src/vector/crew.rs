//! Threads that share one round of work with the caller.
//!
//! The caller works too, and takes blocks of environments from the same counter. It waits for blocks
//! that others have begun, never for a thread to wake: a crew is at no moment slower than the caller
//! alone, however busy the machine is, and small rounds wake nobody.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::slot::{Begin, Shared, Slot};
use super::turn::Turn;

/// Work that is worth waking one more thread for.
const WORTH_NANOS: u64 = 60_000;

/// What one environment does in a round.
pub(super) enum Work {
    Rest,
    Begin(Begin),
    Step(String),
}

/// The environments, each behind a lock of its own.
pub(super) type Slots = Arc<[Mutex<Slot>]>;

/// A lock's content, whatever happened to a holder before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Round {
    shared: Arc<Shared>,
    slots: Slots,
    work: Vec<Mutex<Work>>,
    block: usize,
    next: AtomicUsize,
    nanos: AtomicU64,
    results: Mutex<Results>,
    done: Condvar,
}

struct Results {
    turns: Vec<Option<Turn>>,
    left: usize,
}

impl Round {
    /// Takes blocks until none is left.
    fn help(&self) {
        loop {
            let start = self.next.fetch_add(self.block, Ordering::Relaxed);
            if start >= self.work.len() {
                return;
            }
            let begun = Instant::now();
            let range = start..(start + self.block).min(self.work.len());
            let turns: Vec<Option<Turn>> = range
                .clone()
                .map(|index| match std::mem::replace(&mut *lock(&self.work[index]), Work::Rest) {
                    Work::Rest => None,
                    Work::Begin(begin) => Some(lock(&self.slots[index]).begin(&self.shared, begin)),
                    Work::Step(text) => Some(lock(&self.slots[index]).step(&self.shared, &text)),
                })
                .collect();
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.nanos.fetch_add(nanos, Ordering::Relaxed);
            let mut results = lock(&self.results);
            results.left -= turns.len();
            for (index, turn) in range.zip(turns) {
                results.turns[index] = turn;
            }
            if results.left == 0 {
                self.done.notify_all();
            }
        }
    }
}

/// Where rounds are announced.
#[derive(Default)]
struct Board {
    news: Mutex<News>,
    wake: Condvar,
}

#[derive(Default)]
struct News {
    round: Option<Arc<Round>>,
    number: u64,
    closed: bool,
}

impl Board {
    /// Helps with every round until the crew is dismissed.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            let round = {
                let mut news = lock(&self.news);
                while !news.closed && (news.number == seen || news.round.is_none()) {
                    news = self.wake.wait(news).unwrap_or_else(PoisonError::into_inner);
                }
                if news.closed {
                    return;
                }
                seen = news.number;
                news.round.clone()
            };
            if let Some(round) = round {
                round.help();
            }
        }
    }
}

/// Helping threads; they end when the crew is dropped.
pub(super) struct Crew {
    board: Arc<Board>,
    helpers: usize,
    /// More threads than cores are there to wait side by side, and are woken for every round.
    waiting: bool,
    /// What rounds lately took, over all threads.
    nanos: u64,
}

impl Drop for Crew {
    fn drop(&mut self) {
        lock(&self.board.news).closed = true;
        self.board.wake.notify_all();
    }
}

impl Crew {
    /// Starts so many threads beside the caller's.
    pub(super) fn start(helpers: usize, waiting: bool) -> std::io::Result<Self> {
        let crew = Self { board: Arc::default(), helpers, waiting, nanos: u64::MAX };
        for index in 0..helpers {
            let board = Arc::clone(&crew.board);
            std::thread::Builder::new()
                .name(format!("empg-env-{index}"))
                .spawn(move || board.serve())?;
        }
        Ok(crew)
    }

    /// Does the work of every environment; a turn for each that does not rest.
    pub(super) fn round(
        &mut self,
        shared: &Arc<Shared>,
        slots: &Slots,
        work: Vec<Work>,
    ) -> Vec<Option<Turn>> {
        let count = work.len();
        let worth = usize::try_from(self.nanos / WORTH_NANOS).unwrap_or(usize::MAX);
        let helpers = if self.waiting { self.helpers } else { self.helpers.min(worth) };
        let round = Arc::new(Round {
            shared: Arc::clone(shared),
            slots: Arc::clone(slots),
            work: work.into_iter().map(Mutex::new).collect(),
            // Blocks of several where there are many: a lock and a clock reading for each.
            block: (count / (8 * (helpers + 1))).max(1),
            next: AtomicUsize::new(0),
            nanos: AtomicU64::new(0),
            results: Mutex::new(Results { turns: vec![None; count], left: count }),
            done: Condvar::new(),
        });
        if helpers > 0 {
            let mut news = lock(&self.board.news);
            news.round = Some(Arc::clone(&round));
            news.number += 1;
            drop(news);
            for _ in 0..helpers {
                self.board.wake.notify_one();
            }
        }
        round.help();
        let mut results = lock(&round.results);
        while results.left > 0 {
            results = round.done.wait(results).unwrap_or_else(PoisonError::into_inner);
        }
        let turns = std::mem::take(&mut results.turns);
        drop(results);
        if helpers > 0 {
            lock(&self.board.news).round = None;
        }
        // A cheap round between expensive ones is forgotten slowly.
        self.nanos = round.nanos.load(Ordering::Relaxed).max(self.nanos / 2);
        turns
    }
}
