//! How alike two sequences of characters are, as Python's `difflib.SequenceMatcher` counts it
//! (Ratcliff and Obershelp's gestalt matching, with the shortcut for long sequences).

use std::collections::HashMap;

/// `SequenceMatcher(None, a, b).ratio()`: twice the matched characters over all characters; 1 for
/// two empty sequences. Not symmetric.
pub(super) fn ratio(a: &[char], b: &[char]) -> f64 {
    let length = a.len() + b.len();
    if length == 0 {
        return 1.0;
    }
    2.0 * matched(a, b) as f64 / length as f64
}

/// How many characters the matching blocks hold.
fn matched(a: &[char], b: &[char]) -> usize {
    let positions = Positions::of(b);
    let mut matcher = Matcher {
        a,
        b,
        positions: &positions,
        lengths: vec![0; b.len() + 1],
        touched: Vec::new(),
        next: Vec::new(),
    };
    let mut open = vec![(0, a.len(), 0, b.len())];
    let mut total = 0;
    while let Some((a_low, a_high, b_low, b_high)) = open.pop() {
        let (i, j, size) = matcher.longest(a_low, a_high, b_low, b_high);
        if size == 0 {
            continue;
        }
        total += size;
        if a_low < i && b_low < j {
            open.push((a_low, i, b_low, j));
        }
        if i + size < a_high && j + size < b_high {
            open.push((i + size, a_high, j + size, b_high));
        }
    }
    total
}

/// Where each character stands in the second sequence, ascending. In a sequence of 200 or more,
/// characters that make up more than a hundredth of it are left out.
struct Positions {
    ascii: [Vec<u32>; 128],
    others: HashMap<char, Vec<u32>>,
}

impl Positions {
    fn of(b: &[char]) -> Self {
        let mut positions = Self { ascii: [const { Vec::new() }; 128], others: HashMap::new() };
        for (j, &c) in b.iter().enumerate() {
            let list = match positions.ascii.get_mut(c as usize) {
                Some(list) => list,
                None => positions.others.entry(c).or_default(),
            };
            list.push(j as u32);
        }
        if b.len() >= 200 {
            let most = b.len() / 100 + 1;
            for list in positions.ascii.iter_mut().chain(positions.others.values_mut()) {
                if list.len() > most {
                    list.clear();
                }
            }
        }
        positions
    }

    fn get(&self, c: char) -> &[u32] {
        match self.ascii.get(c as usize) {
            Some(list) => list,
            None => self.others.get(&c).map_or(&[], Vec::as_slice),
        }
    }
}

struct Matcher<'a> {
    a: &'a [char],
    b: &'a [char],
    positions: &'a Positions,
    /// Length of the match that ends before each position of b, for the current row of a.
    lengths: Vec<u32>,
    touched: Vec<u32>,
    next: Vec<(u32, u32)>,
}

impl Matcher<'_> {
    /// The longest block in the ranges: the one that begins first in a, then first in b.
    fn longest(
        &mut self,
        a_low: usize,
        a_high: usize,
        b_low: usize,
        b_high: usize,
    ) -> (usize, usize, usize) {
        let (mut best_i, mut best_j, mut best) = (a_low, b_low, 0);
        for i in a_low..a_high {
            self.next.clear();
            for &j in self.positions.get(self.a[i]) {
                let at = j as usize;
                if at < b_low {
                    continue;
                }
                if at >= b_high {
                    break;
                }
                let size = self.lengths[at] + 1;
                self.next.push((j + 1, size));
                if size as usize > best {
                    best = size as usize;
                    (best_i, best_j) = (i + 1 - best, at + 1 - best);
                }
            }
            self.forget();
            for &(at, size) in &self.next {
                self.lengths[at as usize] = size;
                self.touched.push(at);
            }
        }
        self.forget();
        // Characters that are too frequent to begin a block may still continue one.
        while best_i > a_low && best_j > b_low && self.a[best_i - 1] == self.b[best_j - 1] {
            (best_i, best_j, best) = (best_i - 1, best_j - 1, best + 1);
        }
        while best_i + best < a_high
            && best_j + best < b_high
            && self.a[best_i + best] == self.b[best_j + best]
        {
            best += 1;
        }
        (best_i, best_j, best)
    }

    fn forget(&mut self) {
        for at in self.touched.drain(..) {
            self.lengths[at as usize] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(a: &str, b: &str) -> f64 {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        ratio(&a, &b)
    }

    #[test]
    fn known_ratios() {
        assert_eq!(of("", ""), 1.0);
        assert_eq!(of("abcd", "bcde"), 0.75);
        assert_eq!(of("", "x"), 0.0);
        assert_eq!(of("tide", "diet"), 0.25);
        assert_eq!(of("diet", "tide"), 0.5);
    }

    /// Long sequences forget frequent characters.
    #[test]
    fn long_sequences() {
        let b = "ab".repeat(100);
        assert_eq!(of("ab", &b), 4.0 / 202.0);
        assert_eq!(of(&b, &b), 1.0);
        let c = format!("{}xy{}", "ab".repeat(100), "cd".repeat(60));
        assert_eq!(of("abxycd", &c), 12.0 / (6.0 + 322.0));
    }
}
