//! Strings that many products share, stored once.

use std::collections::HashMap;

/// A string of a [`Symbols`] table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Symbol(u32);

/// Strings by number.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    strings: Vec<Box<str>>,
}

impl Symbols {
    pub(super) fn get(&self, symbol: Symbol) -> &str {
        &self.strings[symbol.0 as usize]
    }

    /// The number of a string that is in the table; by linear search.
    pub(super) fn find(&self, text: &str) -> Option<Symbol> {
        self.strings.iter().position(|s| **s == *text).map(|i| Symbol(i as u32))
    }
}

/// Builds a table.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<Box<str>, u32>,
}

impl Interner {
    pub(super) fn intern(&mut self, text: &str) -> Symbol {
        if let Some(&number) = self.numbers.get(text) {
            return Symbol(number);
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(text.into(), number);
        Symbol(number)
    }

    pub(super) fn finish(self) -> Symbols {
        let mut strings = vec![Box::default(); self.numbers.len()];
        for (text, number) in self.numbers {
            strings[number as usize] = text;
        }
        Symbols { strings }
    }
}
