//! Whether the same task begins the same way every time.
//!
//! The rollouts of a group are compared with one another, so they must play one task. A server that
//! ignores the seed gives each of them another one, and training learns from differences between
//! tasks: worth a warning, once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Notice;

/// Tasks that are remembered at a time.
const TASKS: usize = 1 << 16;

/// Remembers how each task began.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    seen: Mutex<HashMap<u64, u64>>,
    told: AtomicBool,
    notice: Notice,
}

impl Agreement {
    pub(super) fn new(notice: Notice) -> Self {
        Self { notice, ..Self::default() }
    }

    /// Compares a first observation with the task's earlier ones.
    pub(super) fn note(&self, task: &str, request: &str, observation: &str) {
        if self.told.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= TASKS {
            seen.clear();
        }
        let begins = digest(observation);
        let differs = *seen.entry(digest(request)).or_insert(begins) != begins;
        drop(seen);
        if differs && !self.told.swap(true, Ordering::Relaxed) {
            self.notice.tell(&format!(
                "warning: {task} began differently when it was reset again with the same seed: the \
                 rollouts of a group do not play the same task, and their rewards cannot be \
                 compared. Let the seed of reset decide the task"
            ));
        }
    }
}

/// A number that stands for a text within this process.
pub(super) fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_difference_is_told_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&told);
        let notice = Notice::to(move |text| copy.lock().unwrap().push(text.to_owned()));
        let agreement = Agreement::new(notice);
        agreement.note("train/1", "seed 1", "a lamp");
        agreement.note("train/1", "seed 1", "a lamp");
        agreement.note("train/2", "seed 2", "a door");
        assert!(told.lock().unwrap().is_empty());
        agreement.note("train/1", "seed 1", "a door");
        agreement.note("train/2", "seed 2", "a lamp");
        let told = told.lock().unwrap();
        assert!(told.len() == 1 && told[0].contains("train/1"), "{told:?}");
    }
}
