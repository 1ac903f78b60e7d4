//! The step table as bytes: what workers send to each other.
//!
//! A mark of 8 bytes, the number of steps (u64), then column by column the trajectories (u64), the
//! steps (u32), the entropies and the base advantages (f64), all little-endian.

use crate::error::AdvantageError;
use crate::table::{StepKey, StepRow, StepTable};

const MARK: [u8; 8] = *b"EMPGTAB1";
const HEAD: usize = MARK.len() + 8;
const ROW: usize = 8 + 4 + 8 + 8;

impl StepTable {
    /// The table as bytes that [`from_bytes`](Self::from_bytes) reads back to the same bits.
    pub fn to_bytes(&self) -> Vec<u8> {
        let rows = self.rows();
        let mut bytes = Vec::with_capacity(HEAD + ROW * rows.len());
        bytes.extend(MARK);
        bytes.extend((rows.len() as u64).to_le_bytes());
        bytes.extend(rows.iter().flat_map(|row| row.key.trajectory.to_le_bytes()));
        bytes.extend(rows.iter().flat_map(|row| row.key.step.to_le_bytes()));
        bytes.extend(rows.iter().flat_map(|row| row.entropy.to_le_bytes()));
        bytes.extend(rows.iter().flat_map(|row| row.base.to_le_bytes()));
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// Bytes of something else or of another length; rows that [`new`](Self::new) refuses.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AdvantageError> {
        let bad = |why| AdvantageError::TableBytes { why };
        let rest = bytes.strip_prefix(&MARK).ok_or(bad("they do not begin with its mark"))?;
        let (count, rest) = rest.split_first_chunk().ok_or(bad("they end in the header"))?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok();
        let count = count
            .filter(|count| count.checked_mul(ROW) == Some(rest.len()))
            .ok_or(bad("their length is not that of the number of steps they announce"))?;
        let (trajectories, rest) = rest.split_at(count * 8);
        let (steps, rest) = rest.split_at(count * 4);
        let (entropies, bases) = rest.split_at(count * 8);
        let rows = trajectories
            .as_chunks()
            .0
            .iter()
            .zip(steps.as_chunks().0)
            .zip(entropies.as_chunks().0.iter().zip(bases.as_chunks().0))
            .map(|((trajectory, step), (entropy, base))| StepRow {
                key: StepKey {
                    trajectory: u64::from_le_bytes(*trajectory),
                    step: u32::from_le_bytes(*step),
                },
                entropy: f64::from_le_bytes(*entropy),
                base: f64::from_le_bytes(*base),
            });
        Self::new(rows.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(count: u32) -> StepTable {
        let row = |step| StepRow {
            key: StepKey { trajectory: u64::MAX - u64::from(step % 3), step },
            entropy: f64::from(step) / 7.0,
            base: -0.0,
        };
        StepTable::new((0..count).map(row).collect()).unwrap()
    }

    #[test]
    fn bytes_read_back_to_the_same_bits() {
        for count in [0, 1, 17] {
            let bytes = table(count).to_bytes();
            let back = StepTable::from_bytes(&bytes).unwrap();
            assert_eq!(back.to_bytes(), bytes);
            assert_eq!(back, table(count));
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let good = table(3).to_bytes();
        for end in 0..good.len() {
            assert!(StepTable::from_bytes(&good[..end]).is_err());
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            StepTable::from_bytes(&bytes).map_err(|error| error.to_string())
        };
        assert!(with(0, b'X').unwrap_err().contains("mark"));
        assert!(with(15, 0xff).unwrap_err().contains("length"));
        assert!(with(good.len() - 1, 0x7f).is_ok());
        let mut nan = good.clone();
        nan[good.len() - 8..].copy_from_slice(&f64::NAN.to_le_bytes());
        assert!(StepTable::from_bytes(&nan).unwrap_err().to_string().contains("not finite"));
    }
}
