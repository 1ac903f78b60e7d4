//! How many sessions there may be.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of sessions.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    most: usize,
}

/// A session's place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, 1 << 20);
        Self { free: Arc::new(Semaphore::new(most)), most }
    }

    /// A place, if one is free.
    pub(crate) fn take(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok().map(Place)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn taken(&self) -> usize {
        self.most - self.free.available_permits()
    }

    /// Ready when no place is taken.
    pub(crate) async fn all_free(&self) {
        // The number of places fits by its bound.
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        drop(self.free.acquire_many(all).await);
    }
}
