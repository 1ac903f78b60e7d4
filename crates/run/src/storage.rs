//! The file operations that a run is written with: few, so that a test can cut them at any byte.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use crate::layout::partial;
use crate::{Result, RunError};

/// Everything that changes a run directory goes through here.
pub(crate) trait Storage: Send {
    /// Creates a folder and those above it.
    fn create_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Creates or replaces a file and syncs it.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to `at` bytes (creating it where it is missing), appends and syncs it.
    fn append(&mut self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file that is longer than `len`; a missing one is left missing.
    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()>;
    /// Renames, replacing a file of that name.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Removes a file or a folder with its content; a missing one is no error.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The file system itself.
pub(crate) struct Disk;

impl Storage for Disk {
    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn append(&mut self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let len = file.metadata()?.len();
        if len < at {
            return Err(shorter_than_committed(len, at));
        }
        file.set_len(at)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        match OpenOptions::new().write(true).open(path) {
            Ok(file) if file.metadata()?.len() > len => {
                file.set_len(len)?;
                file.sync_all()
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        // Elsewhere a folder cannot be opened as a file, and renames are durable by themselves.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// A file that lost bytes which the manifest commits: appending would leave a hole.
pub(crate) fn shorter_than_committed(len: u64, at: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it has {len} bytes where {at} were committed; something else has changed it"),
    )
}

/// Writes `path` such that it is there completely or not at all: a partial file, synced, renamed.
/// The caller syncs the folder.
pub(crate) fn write_whole(storage: &mut dyn Storage, path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = partial(path);
    let size = bytes.len() as u64;
    storage.write(&unfinished, bytes).map_err(|e| RunError::io("write", path, size, e))?;
    storage.rename(&unfinished, path).map_err(|e| RunError::io("write", path, size, e))
}
