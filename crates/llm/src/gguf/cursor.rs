//! Reading forward through bytes that may end anywhere.

use super::error::GgufError;

/// A position in the file; never past its end.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next `count` bytes; `what` is named where the file has fewer.
    pub(super) fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], GgufError> {
        let have = self.remaining();
        match usize::try_from(count) {
            Ok(count) if count <= have => {
                let start = self.at;
                self.at += count;
                Ok(&self.bytes[start..self.at])
            }
            _ => Err(GgufError::Truncated {
                what: what.to_owned(),
                offset: self.at,
                need: count,
                have,
            }),
        }
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length and as many bytes.
    pub(super) fn counted(&mut self, what: &str) -> Result<&'a [u8], GgufError> {
        let count = self.u64(what)?;
        self.take(count, what)
    }
}
