//! A generated catalogue in the original's file format: products of five departments, and an
//! instruction for each that is written about one of them, the best product for it.
//!
//! Many products differ from it in one attribute, option or in price only, so that a good purchase
//! takes reading.

mod words;

use std::io::{self, Write};

use serde::Serialize;

use self::words::{BRANDS, DEPARTMENTS};
use crate::dice::{Dice, mix};

pub(crate) use self::words::{PRICES, all as words};

/// Products of the embedded catalogue.
pub const PRODUCTS: usize = 1000;

/// The files of a catalogue.
#[derive(Clone, Debug)]
pub struct CatalogueFiles {
    /// `items_shuffle_*.json`.
    pub items: Vec<u8>,
    /// `items_ins_v2_*.json`.
    pub instructions: Vec<u8>,
    /// `title_nouns*.json`.
    pub nouns: Vec<u8>,
}

#[derive(Serialize)]
struct Value {
    value: &'static str,
}

#[derive(Serialize)]
struct Item {
    asin: String,
    name: String,
    full_description: String,
    small_description: [String; 2],
    product_category: String,
    category: &'static str,
    query: &'static str,
    pricing: String,
    average_rating: &'static str,
    images: [&'static str; 0],
    customization_options: Options,
}

/// Written in this order.
struct Options(Vec<(&'static str, Vec<Value>)>);

impl Serialize for Options {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, values)| (name, values)))
    }
}

#[derive(Serialize)]
struct Instruction {
    attributes: Vec<&'static str>,
    #[serde(rename = "instruction")]
    text: String,
    #[serde(rename = "instruction_attributes")]
    wanted: Vec<&'static str>,
}

struct Product {
    item: Item,
    instruction: Instruction,
    nouns: [String; 2],
}

/// The catalogue of a seed. The same arguments give the same bytes.
///
/// # Errors
/// Not expected: the files are written to memory.
pub fn catalogue_files(seed: u64, products: usize) -> io::Result<CatalogueFiles> {
    let mut files = [Vec::new(), Vec::new(), Vec::new()];
    let [items, instructions, nouns] = &mut files;
    write_catalogue(seed, products, items, instructions, nouns)?;
    let [items, instructions, nouns] = files;
    Ok(CatalogueFiles { items, instructions, nouns })
}

/// Writes the three files of a catalogue of any size, product by product.
///
/// # Errors
/// What the writers refuse.
pub fn write_catalogue(
    seed: u64,
    products: usize,
    items: &mut impl Write,
    instructions: &mut impl Write,
    nouns: &mut impl Write,
) -> io::Result<()> {
    items.write_all(b"[")?;
    instructions.write_all(b"{")?;
    nouns.write_all(b"{\"model\": \"generated\", \"nouns\": {")?;
    for index in 0..products {
        let product = product(seed, index, products);
        let separator = if index == 0 { "\n" } else { ",\n" };
        write!(items, "{separator}")?;
        serde_json::to_writer(&mut *items, &product.item)?;
        write!(instructions, "{separator}\"{}\": ", product.item.asin)?;
        serde_json::to_writer(&mut *instructions, &product.instruction)?;
        write!(nouns, "{separator}\"{}\": ", product.item.asin)?;
        serde_json::to_writer(&mut *nouns, &product.nouns)?;
    }
    items.write_all(b"\n]\n")?;
    instructions.write_all(b"\n}\n")?;
    nouns.write_all(b"\n}}\n")
}

fn product(seed: u64, index: usize, products: usize) -> Product {
    let mut dice = Dice::new(mix(mix(0x7368_6f70, seed), index as u64));
    let department = &DEPARTMENTS[dice.below(DEPARTMENTS.len())];
    let (kind, section) = department.kinds[dice.below(department.kinds.len())];
    let brand = BRANDS[dice.below(BRANDS.len())];
    let mut attributes = department.attributes.to_vec();
    dice.shuffle(&mut attributes);
    attributes.truncate(3);
    let price = PRICES[dice.below(PRICES.len())];
    let options = department
        .options
        .iter()
        .map(|(name, values)| {
            let mut offered = values.to_vec();
            dice.shuffle(&mut offered);
            offered.truncate(dice.range(2, 4.min(values.len())));
            (*name, offered.into_iter().map(|value| Value { value }).collect())
        })
        .collect();
    let mut wanted = attributes.clone();
    dice.shuffle(&mut wanted);
    wanted.truncate(2);
    let title: Vec<String> =
        attributes.iter().chain(std::iter::once(&kind)).map(|word| capital(word)).collect();
    let item = Item {
        asin: asin(seed, index, products),
        name: format!("{brand} {}", title.join(" ")),
        full_description: format!(
            "{} from {brand}: {}, {} and {}.",
            capital(kind),
            attributes[0],
            attributes[1],
            attributes[2]
        ),
        small_description: [
            format!("Made by {brand}."),
            format!("Our {kind} are {}.", attributes.join(", ")),
        ],
        product_category: format!("{} › {section} › {}", department.path, capital(kind)),
        category: department.category,
        query: kind,
        pricing: format!("${price}"),
        average_rating: "",
        images: [],
        customization_options: Options(options),
    };
    let instruction =
        Instruction { text: format!("Find me {} {kind}", wanted.join(", ")), wanted, attributes };
    Product { item, instruction, nouns: [brand.to_lowercase(), kind.to_string()] }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

/// Pieces of an ASIN of a small catalogue: 256 beginnings and 256 ends.
pub(crate) const ASIN_PIECES: usize = 256;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKLMNPQRSTVWXY";

/// The first four characters of an ASIN.
pub(crate) fn asin_head(piece: usize) -> String {
    let letter = |i: usize| ALPHABET[i % 32] as char;
    format!("B0{}{}", letter(piece / 32 + 10), letter(piece * 7))
}

/// The last six characters of an ASIN.
pub(crate) fn asin_tail(piece: usize) -> String {
    let mut bits = mix(0x7461_696c, piece as u64);
    let mut tail = String::new();
    for _ in 0..4 {
        tail.push(ALPHABET[(bits % 32) as usize] as char);
        bits /= 32;
    }
    // The piece itself keeps them apart.
    tail.push(ALPHABET[piece / 32 % 32] as char);
    tail.push(ALPHABET[piece % 32] as char);
    tail
}

/// Ten characters, unique in the catalogue. Up to 65,536 products share 512 pieces, so that a word
/// list covers them; larger catalogues spell out the index.
fn asin(seed: u64, index: usize, products: usize) -> String {
    let space = ASIN_PIECES * ASIN_PIECES;
    if products <= space {
        // An odd multiplier permutes the space.
        let place = (index * 40_503 + (mix(0x6173_696e, seed) % space as u64) as usize) % space;
        return asin_head(place / ASIN_PIECES) + &asin_tail(place % ASIN_PIECES);
    }
    let mut rest = index;
    let mut text = String::from("B1");
    for _ in 0..8 {
        text.push(ALPHABET[rest % 32] as char);
        rest /= 32;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn asins_are_unique_and_of_ten_characters() {
        for products in [70_000, 65_536, 1000] {
            let all: HashSet<String> = (0..products).map(|i| asin(3, i, products)).collect();
            assert_eq!(all.len(), products);
            assert!(all.iter().all(|a| a.len() == 10));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let one = catalogue_files(1, 50).unwrap();
        let same = catalogue_files(1, 50).unwrap();
        let other = catalogue_files(2, 50).unwrap();
        assert_eq!(one.items, same.items);
        assert_eq!(one.instructions, same.instructions);
        assert_ne!(one.items, other.items);
        let items: Vec<serde_json::Value> = serde_json::from_slice(&one.items).unwrap();
        assert_eq!(items.len(), 50);
        serde_json::from_slice::<serde_json::Value>(&one.nouns).unwrap();
    }
}
