//! Every word of the generated catalogue and of its pages.

use std::collections::BTreeSet;

use super::generated::{ASIN_PIECES, PRICES, asin_head, asin_tail, words};

/// Words of pages, instructions and actions.
const INTERFACE: &[&str] =
    &["under", "with", "description", "features", "reviews", "from", "made", "by", "our", "are"];

/// Limits that an instruction can set, in dollars.
const LIMITS: std::ops::RangeInclusive<u32> = 1..=14;

/// Words, prices and beginnings of ASINs, in lower case and a fixed order.
pub fn vocabulary() -> Vec<String> {
    let mut seen = BTreeSet::new();
    let words = INTERFACE.iter().copied().chain(words()).map(str::to_lowercase);
    let prices = PRICES.iter().map(|price| format!("${price}"));
    let limits = LIMITS.map(|tens| format!("{}.00", tens * 10));
    let asins = (0..ASIN_PIECES).map(|piece| asin_head(piece).to_lowercase());
    words.chain(prices).chain(limits).chain(asins).filter(|w| seen.insert(w.clone())).collect()
}

/// Ends of ASINs: with a beginning, they name every product of a catalogue of up to 65,536.
pub fn asin_pieces() -> Vec<String> {
    (0..ASIN_PIECES).map(|piece| asin_tail(piece).to_lowercase()).collect()
}
