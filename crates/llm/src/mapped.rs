//! Files mapped into memory: their bytes are read where they lie, and pages that are done with are
//! given back, so that loading costs little more than the weights that it makes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A file of weights, read-only. Its length is that at the time of opening: whoever truncates a
/// file while it is read ends the process, as with any mapped file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps a whole file.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the mapping is read-only and seen as bytes only, for which every value is valid;
        // readers check what they read once, while they copy it.
        let map = unsafe { Mmap::map(&file)? };
        #[cfg(unix)]
        // Advice: failure is of no consequence.
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(Self { map })
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Says that `part`, a slice of [`Self::bytes`], is not needed for now: its pages no longer
    /// count as this process's memory. Reading it again reads the file again.
    pub(crate) fn release(&self, part: &[u8]) {
        let start = part.as_ptr().addr().checked_sub(self.map.as_ptr().addr());
        let Some(start) = start.filter(|s| s + part.len() <= self.map.len()) else { return };
        if part.is_empty() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: the range lies in the mapping, which is shared and never written: dropped pages
        // come back from the file with the same content.
        let _ = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, part.len())
        };
        #[cfg(not(unix))]
        let _ = start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_come_back() {
        let path = std::env::temp_dir().join(format!("empg-mapped-{}", std::process::id()));
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("writes");
        let file = MappedFile::open(&path).expect("maps");
        assert_eq!(file.bytes(), bytes);
        file.release(&file.bytes()[5_000..90_000]);
        file.release(&[]);
        file.release(&bytes[..10]);
        assert_eq!(file.bytes(), bytes);
        std::fs::write(&path, b"").expect("writes");
        assert!(MappedFile::open(&path).expect("maps").bytes().is_empty());
        std::fs::remove_file(&path).expect("removes");
        assert!(MappedFile::open(&path).is_err());
        assert!(MappedFile::open(&std::env::temp_dir()).is_err());
    }
}
