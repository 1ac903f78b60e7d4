//! A file system that stops in the middle: kills, power cuts and full disks for tests.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::storage::{Disk, Storage};

/// What happens when the operation comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies: nothing works any more, what was written stays.
    Kill,
    /// The machine dies: what was not synced is lost, renames included.
    PowerCut,
    /// This and every later write of content fails; all else works.
    DiskFull,
}

/// Where the fault strikes: in the operation of this index, after this share of its bytes
/// (0: before anything, 255: after everything).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) fault: Fault,
    pub(crate) operation: usize,
    pub(crate) share: u8,
}

#[derive(Default)]
struct State {
    strike: Option<Strike>,
    /// Of each operation so far: whether it writes content.
    operations: Vec<bool>,
    dead: bool,
    full: bool,
    /// Renames whose folder was not synced since: from, to, what `to` was before.
    unsynced: Vec<(PathBuf, PathBuf, Option<Vec<u8>>)>,
}

/// Shared with the test, which plans faults and counts operations.
#[derive(Clone, Default)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

impl Faulty {
    pub(crate) fn new(strike: Option<Strike>) -> Self {
        Self(Arc::new(Mutex::new(State { strike, ..State::default() })))
    }

    /// Of each operation so far: whether it writes content.
    pub(crate) fn operations(&self) -> Vec<bool> {
        self.0.lock().unwrap().operations.clone()
    }

    pub(crate) fn free_some_space(&self) {
        let mut state = self.0.lock().unwrap();
        state.full = false;
        state.strike = None;
    }

    /// Counts an operation of `size` bytes: how many of them happen, and whether that is all.
    fn begin(&self, content: bool, size: usize) -> io::Result<(usize, io::Result<()>)> {
        let mut state = self.0.lock().unwrap();
        let index = state.operations.len();
        state.operations.push(content);
        if state.dead {
            return Err(io::Error::other("killed"));
        }
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        if state.full && content {
            return Ok((0, Err(full())));
        }
        let Some(strike) = state.strike.filter(|s| s.operation == index) else {
            return Ok((size, Ok(())));
        };
        let part = size * usize::from(strike.share) / 255;
        match strike.fault {
            Fault::DiskFull if !content => {
                // The disk is full from here on, and this operation needs no space.
                state.full = true;
                Ok((size, Ok(())))
            }
            Fault::DiskFull => {
                state.full = true;
                Ok((part, Err(full())))
            }
            Fault::Kill => {
                state.dead = true;
                Ok((part, Err(io::Error::other("killed"))))
            }
            Fault::PowerCut => {
                state.dead = true;
                for (from, to, before) in std::mem::take(&mut state.unsynced).into_iter().rev() {
                    fs::rename(&to, &from)?;
                    if let Some(bytes) = before {
                        fs::write(&to, bytes)?;
                    }
                }
                Err(io::Error::other("power cut"))
            }
        }
    }

    /// An operation without content: it happens or not.
    fn plain(&self, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let (done, result) = self.begin(false, 1)?;
        if done == 1 {
            operation()?;
        }
        result
    }
}

impl Storage for Faulty {
    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.plain(|| Disk.create_dir(path))
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (part, result) = self.begin(true, bytes.len())?;
        fs::write(path, &bytes[..part])?;
        result
    }

    fn append(&mut self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (part, result) = self.begin(true, bytes.len())?;
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        assert!(file.metadata()?.len() >= at, "{} lost committed bytes", path.display());
        file.set_len(at)?;
        file.write_all(&bytes[..part])?;
        result
    }

    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        // Without the sync of the real one, which would cost most of these tests' time.
        self.plain(|| match OpenOptions::new().write(true).open(path) {
            Ok(file) if file.metadata()?.len() > len => file.set_len(len),
            _ => Ok(()),
        })
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let before = fs::read(to).ok();
        self.plain(|| Disk.rename(from, to))?;
        self.0.lock().unwrap().unsynced.push((from.to_owned(), to.to_owned(), before));
        Ok(())
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.plain(|| Ok(()))?;
        self.0.lock().unwrap().unsynced.retain(|(_, to, _)| to.parent() != Some(path));
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        // A folder loses its files one by one, in an order that is not ours.
        if path.is_dir() {
            for entry in fs::read_dir(path)?.flatten() {
                self.remove(&entry.path())?;
            }
        }
        self.plain(|| Disk.remove(path))
    }
}
