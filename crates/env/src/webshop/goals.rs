//! What a shopper may be asked for, in the order that a seed gives.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::catalogue::Catalogue;
use super::product::{Pricing, Product};
use super::python_random::Mt19937;
use super::symbols::Symbol;
use crate::EnvError;

/// The limit of a goal without one.
const NO_LIMIT: u32 = 1_000_000;
/// More combinations of one product's options are an error in the data, not a wish.
const MOST_COMBINATIONS: u32 = 10_000_000;
/// More goals do not fit a reasonable memory.
const MOST_GOALS: usize = 200_000_000;

/// Prices and goals of a seed, in the original's order.
#[derive(Debug)]
pub struct Goals {
    human: bool,
    prices: Box<[f64]>,
    entries: Vec<Entry>,
    /// How many goals ask for an attribute.
    counts: HashMap<Symbol, u32>,
    /// The generator as the original's process has it when its first episode begins.
    random: Mt19937,
}

/// A goal, packed.
#[derive(Clone, Copy, Debug)]
struct Entry {
    product: u32,
    /// Which combination of option values, or which of the people's instructions.
    item: u32,
    price_upper: u32,
}

/// A goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The product that it was written about, by its place in the catalogue.
    pub product: u32,
    /// That product's identifier.
    pub asin: String,
    /// That product's department.
    pub category: String,
    /// That product's query.
    pub query: String,
    /// That product's title.
    pub name: String,
    /// That product's category path.
    pub product_category: String,
    /// What the shopper is told.
    pub instruction_text: String,
    /// Attributes that the purchase should have.
    pub attributes: Vec<String>,
    /// The highest price; 1,000,000 where there is no limit.
    pub price_upper: f64,
    /// Options that the purchase should have.
    pub goal_options: GoalOptions,
    /// How often the goal is drawn where the original draws at random.
    pub weight: f64,
}

/// Options that a purchase should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoalOptions {
    /// Names and values (synthetic goals). The reward compares them by the original's quirk.
    Named(Vec<(String, String)>),
    /// Values (people's goals).
    Values(Vec<String>),
}

impl GoalOptions {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Named(options) => options.len(),
            Self::Values(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for GoalOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(options) => {
                let mut map = serializer.serialize_map(Some(options.len()))?;
                for (name, value) in options {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Self::Values(values) => values.serialize(serializer),
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut goal = serializer.serialize_struct("Goal", 10)?;
        goal.serialize_field("asin", &self.asin)?;
        goal.serialize_field("category", &self.category)?;
        goal.serialize_field("query", &self.query)?;
        goal.serialize_field("name", &self.name)?;
        goal.serialize_field("product_category", &self.product_category)?;
        goal.serialize_field("instruction_text", &self.instruction_text)?;
        goal.serialize_field("attributes", &self.attributes)?;
        goal.serialize_field("price_upper", &self.price_upper)?;
        goal.serialize_field("goal_options", &self.goal_options)?;
        goal.serialize_field("weight", &self.weight)?;
        goal.end()
    }
}

impl Goals {
    /// Draws the prices and the goals of a seed, people's or synthetic ones, and shuffles them, as
    /// the original does.
    ///
    /// # Errors
    /// A catalogue without such instructions; a product with more than ten million combinations of options.
    pub fn new(catalogue: &Catalogue, env_seed: u32, human: bool) -> Result<Self, EnvError> {
        let mut random = Mt19937::python(u64::from(env_seed));
        let prices: Box<[f64]> = catalogue
            .products()
            .map(|product| match product.pricing() {
                Pricing::Fixed(price) => price,
                Pricing::Range(low, high) => random.uniform(low, high),
            })
            .collect();
        let mut entries = Vec::new();
        let mut counts = HashMap::new();
        for (index, product) in catalogue.products().enumerate() {
            let room = MOST_GOALS.saturating_sub(entries.len()) as u64;
            let mut add = |items: u32, attributes: &[Symbol], first: u32, upper: u32| {
                for &attribute in attributes {
                    *counts.entry(attribute).or_insert(0) += items;
                }
                entries.extend((first..first + items).map(|item| Entry {
                    product: index as u32,
                    item,
                    price_upper: upper,
                }));
            };
            if human {
                for (item, instruction) in product.human().iter().enumerate() {
                    if !instruction.attributes.is_empty() {
                        let upper = price_limit(prices[index], &mut random);
                        add(1, &instruction.attributes, item as u32, upper);
                    }
                }
            } else if let Some(instruction) = product.instruction() {
                let upper = price_limit(prices[index], &mut random);
                let count = combinations(product).filter(|&count| u64::from(count) <= room);
                let count = count.ok_or_else(|| {
                    EnvError::Failed(format!(
                        "product {} has too many combinations of options: at most \
                         {MOST_COMBINATIONS}, and {MOST_GOALS} goals in all",
                        product.asin()
                    ))
                })?;
                add(count, &instruction.attributes, 0, upper);
            }
        }
        if entries.is_empty() {
            let whose = if human { "people's" } else { "synthetic" };
            return Err(EnvError::Failed(format!(
                "the catalogue has no {whose} instructions: no goal can be set"
            )));
        }
        let mut random = Mt19937::python(u64::from(env_seed));
        random.shuffle(&mut entries);
        // The original then names and resets a session that nobody plays: ten letters, a goal.
        for _ in 0..11 {
            random.random();
        }
        Ok(Self { human, prices, entries, counts, random })
    }

    /// How many goals there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never true: a catalogue without goals is an error.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether people wrote them.
    pub fn human(&self) -> bool {
        self.human
    }

    /// What a product costs under this seed, in dollars.
    pub fn price(&self, product: u32) -> f64 {
        self.prices[product as usize]
    }

    /// The product that a goal was written about.
    pub fn product(&self, index: usize) -> Option<u32> {
        self.entries.get(index).map(|entry| entry.product)
    }

    /// The generator for random searches, as the original's has it after the shuffle.
    pub(super) fn random(&self) -> &Mt19937 {
        &self.random
    }

    /// A goal by its place in the seed's order; the catalogue must be the one that it came from.
    pub fn goal(&self, catalogue: &Catalogue, index: usize) -> Option<Goal> {
        let entry = self.entries.get(index)?;
        let product = catalogue.product(entry.product);
        let (text, attributes, goal_options) = if self.human {
            let instruction = product.human().get(entry.item as usize)?;
            let options = instruction.options.iter().map(ToString::to_string).collect();
            let text = instruction.text.trim_matches('.').to_owned();
            (text, &instruction.attributes, GoalOptions::Values(options))
        } else {
            let instruction = product.instruction()?;
            let options = combination(product, entry.item);
            let mut text = instruction.text.to_string();
            for (i, (name, value)) in options.iter().enumerate() {
                text.push_str(if i == 0 { " with " } else { ", and " });
                text.push_str(name);
                text.push_str(": ");
                text.push_str(value);
            }
            (text, &instruction.attributes, GoalOptions::Named(options))
        };
        let mut instruction_text = text;
        if entry.price_upper != NO_LIMIT {
            instruction_text.push_str(", and price lower than ");
            instruction_text.push_str(&entry.price_upper.to_string());
            instruction_text.push_str(".00 dollars");
        }
        let weight = if self.human {
            1.0
        } else {
            let shares = attributes.iter().map(|a| 1.0 / f64::from(self.counts[a]));
            shares.sum::<f64>() / attributes.len() as f64
        };
        Some(Goal {
            product: entry.product,
            asin: product.asin().to_owned(),
            category: product.category().to_owned(),
            query: product.query().to_owned(),
            name: product.title().to_owned(),
            product_category: product.product_category().to_owned(),
            instruction_text,
            attributes: attributes.iter().map(|&a| catalogue.text(a).to_owned()).collect(),
            price_upper: f64::from(entry.price_upper),
            goal_options,
            weight,
        })
    }
}

/// The larger of two of the four limits that come next above the price.
fn price_limit(price: f64, random: &mut Mt19937) -> u32 {
    let above: Vec<u32> =
        (1..100).map(|i| 10 * i).filter(|&limit| f64::from(limit) > price).take(4).collect();
    if above.len() < 2 {
        return NO_LIMIT;
    }
    random.sample(above.len(), 2).into_iter().map(|i| above[i]).max().unwrap_or(NO_LIMIT)
}

/// A product's options by name, sorted.
fn sorted_options(product: Product<'_>) -> Vec<(&str, Vec<&str>)> {
    let mut options: Vec<_> =
        product.options().map(|(name, values)| (name, values.collect())).collect();
    options.sort_by_key(|(name, _): &(&str, Vec<&str>)| *name);
    options
}

/// How many combinations of option values a product has; `None` past the most.
fn combinations(product: Product<'_>) -> Option<u32> {
    let mut counts = product.options().map(|(_, values)| values.len() as u32);
    // An option without values makes every product of counts zero.
    if counts.clone().any(|count| count == 0) {
        return Some(0);
    }
    counts.try_fold(1_u32, |all, n| all.checked_mul(n).filter(|all| *all <= MOST_COMBINATIONS))
}

/// A combination of option values: the last name's values change fastest.
fn combination(product: Product<'_>, mut index: u32) -> Vec<(String, String)> {
    let mut chosen: Vec<(String, String)> = sorted_options(product)
        .into_iter()
        .rev()
        .map(|(name, values)| {
            let count = values.len() as u32;
            let value = values[(index % count) as usize];
            index /= count;
            (name.to_owned(), value.to_owned())
        })
        .collect();
    chosen.reverse();
    chosen
}
