//! A purchase as a record: scored without playing.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::catalogue::Catalogue;
use super::goals::{Goal, GoalOptions};
use super::reward::Reward;
use crate::EnvError;

/// What was bought, for how much, and what was wanted: the fields of a recorded reward. Unknown
/// fields are passed over.
#[derive(Clone, Debug, Deserialize)]
pub struct Purchase {
    /// The product that was bought.
    pub purchased_asin: String,
    /// Its price in dollars.
    pub price: f64,
    /// The chosen options: names and values.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// What was wanted.
    pub goal: Wanted,
}

/// A goal as a record gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct Wanted {
    /// The product that the goal was written about.
    #[serde(default)]
    pub asin: String,
    /// That product's query.
    #[serde(default)]
    pub query: String,
    /// That product's title.
    pub name: String,
    /// That product's category path.
    #[serde(default)]
    pub product_category: String,
    /// Attributes that the purchase should have.
    pub attributes: Vec<String>,
    /// The highest price.
    pub price_upper: f64,
    /// Options: an object means a synthetic goal, an array a person's.
    pub goal_options: GoalOptions,
}

impl<'de> Deserialize<'de> for GoalOptions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Named(BTreeMap<String, String>),
            Values(Vec<String>),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Named(options) => Self::Named(options.into_iter().collect()),
            Either::Values(values) => Self::Values(values),
        })
    }
}

impl Purchase {
    /// Scores it.
    ///
    /// # Errors
    /// A product that the catalogue does not have.
    pub fn reward(&self, catalogue: &Catalogue) -> Result<Reward, EnvError> {
        let bought = catalogue.find(&self.purchased_asin).ok_or_else(|| {
            EnvError::Failed(format!("the catalogue has no product {:?}", self.purchased_asin))
        })?;
        let Wanted { asin, query, name, product_category, attributes, price_upper, goal_options } =
            self.goal.clone();
        let goal = Goal {
            product: catalogue.find(&asin).unwrap_or(bought),
            asin,
            category: String::new(),
            query,
            name,
            product_category,
            instruction_text: String::new(),
            attributes,
            price_upper,
            goal_options,
            weight: 1.0,
        };
        let options = self.options.values().map(String::as_str);
        Ok(Reward::of(catalogue, bought, self.price, options, &goal))
    }
}
