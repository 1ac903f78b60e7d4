//! Numbers for strings.

/// Numbers strings from 0 in the order in which they are first seen. All text lies in one buffer.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    text: Vec<u8>,
    /// Where each string ends in `text`.
    ends: Vec<usize>,
    /// Open addressing: half a hash and a number plus one; 0 marks a free slot.
    slots: Vec<(u32, u32)>,
}

impl Table {
    /// The string of a number.
    pub(super) fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.text[start..self.ends[number]]
    }

    /// The number of a string, if it was seen.
    #[inline]
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        self.probe(text, hash(text)).ok()
    }

    /// The number of a string, and whether it is new.
    #[inline]
    pub(super) fn add(&mut self, text: &[u8]) -> (u32, bool) {
        if self.slots.len() <= self.ends.len() * 2 {
            self.grow();
        }
        let hash = hash(text);
        match self.probe(text, hash) {
            Ok(number) => (number, false),
            Err(slot) => {
                let number = self.ends.len() as u32;
                self.text.extend_from_slice(text);
                self.ends.push(self.text.len());
                self.slots[slot] = (hash as u32, number + 1);
                (number, true)
            }
        }
    }

    /// The number, or the free slot where it would be.
    #[inline]
    fn probe(&self, text: &[u8], hash: u64) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = (hash >> 32) as usize & mask;
        loop {
            let (tag, number) = self.slots[slot];
            if number == 0 {
                return Err(slot);
            }
            if tag == hash as u32 && self.get(number - 1) == text {
                return Ok(number - 1);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(1024);
        let mut slots = vec![(0, 0); size];
        for number in 0..self.ends.len() as u32 {
            let hash = hash(self.get(number));
            let mut slot = (hash >> 32) as usize & (size - 1);
            while slots[slot].1 != 0 {
                slot = (slot + 1) & (size - 1);
            }
            slots[slot] = (hash as u32, number + 1);
        }
        self.slots = slots;
    }
}

/// Folded multiplication over words of eight bytes.
#[inline]
fn hash(text: &[u8]) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd1b5_4a32_d192_ed03;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut state = A ^ text.len() as u64;
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), B);
    }
    let mut last = 0;
    for &byte in rest {
        last = last << 8 | u64::from(byte);
    }
    fold(state ^ last, A ^ B)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_first_sight() {
        let mut table = Table::default();
        assert_eq!(table.find(b"a"), None);
        for round in 0..2 {
            for n in 0..5000_u32 {
                assert_eq!(table.add(n.to_string().as_bytes()), (n, round == 0));
            }
        }
        assert_eq!(table.find(b"4999"), Some(4999));
        assert_eq!(table.get(17), b"17");
        assert_eq!(table.find(b"5000"), None);
        assert_eq!(table.add(b""), (5000, true));
        assert_eq!(table.find(b""), Some(5000));
    }
}
