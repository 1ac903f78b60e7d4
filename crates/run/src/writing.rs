//! Whether a run has a writer.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;

use crate::Run;
use crate::layout::LOCK;

impl Run {
    /// Whether a process is writing the run now; `None` where the system cannot tell. Looking holds
    /// the run's lock for a moment, which a writer that starts just then waits for.
    pub fn being_written(&self) -> Option<bool> {
        let lock = match File::open(self.path().join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Some(false),
            Err(_) => return None,
        };
        match lock.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Run, RunDir};

    #[test]
    fn a_writer_is_seen_while_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        let writer = RunDir::create(&path, "", &serde_json::json!({})).unwrap();
        let run = Run::open(&path).unwrap();
        assert_eq!(run.being_written(), Some(true));
        drop(writer);
        assert_eq!(run.being_written(), Some(false));
        std::fs::remove_file(path.join("run.lock")).unwrap();
        assert_eq!(run.being_written(), Some(false), "runs that were copied without their lock");
    }
}
