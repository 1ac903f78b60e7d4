//! The products of a store with their index.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use super::files::{Files, Input, data};
use super::generated::{PRODUCTS, catalogue_files};
use super::goals::Goals;
use super::product::{Extra, HumanInstruction, Instruction, Packed, Product};
use super::raw::{self, RawHuman, RawInstruction, RawProduct};
use super::strings::NO_ATTRIBUTE;
use super::symbols::{Interner, Symbol, Symbols};
use crate::EnvError;
use crate::retrieval::Bm25;

/// How many orders of goals are kept.
const KEPT_GOALS: usize = 16;
/// Documents that go to the indexer at once.
const BATCH: usize = 64;
/// Batches that may wait for it.
const WAITING: usize = 8;

/// Goals by seed, and whether people wrote them.
type Kept = ((u32, bool), Arc<Goals>);

/// The products of a store, ready to be searched.
pub struct Catalogue {
    products: Vec<Packed>,
    symbols: Symbols,
    /// Products in the order of their ASINs.
    by_asin: Vec<u32>,
    /// One document a product; equal scores are ordered by ASIN.
    index: Bm25,
    notes: Vec<String>,
    goals: Mutex<Vec<Kept>>,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").field("products", &self.products.len()).finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Reads the original's files from a folder (or from `<folder>/webshop`):
    /// `items_shuffle*.json`, `items_ins_v2*.json`, and where they are there
    /// `items_human_ins*.json` and `title_nouns*.json`; each may be gzipped.
    ///
    /// A folder with several sizes (`items_shuffle_1000.json` beside `items_shuffle.json`) gives
    /// the smallest that has an instruction file of its own size; a path that names a products
    /// file instead of a folder gives that one. Without an instruction file of its size, that of
    /// the full catalogue serves. An uncompressed file is preferred to its gzipped twin.
    ///
    /// # Errors
    /// No products, no instruction file, a file that is no JSON of the expected form (with line),
    /// no product that can be sold.
    pub fn load(folder: impl AsRef<Path>) -> Result<Arc<Self>, EnvError> {
        let files = Files::find(folder.as_ref())?;
        let human = files.human.iter().map(Input::open).collect::<Result<Vec<_>, _>>()?;
        let nouns = files.nouns.iter().map(Input::open).collect::<Result<Vec<_>, _>>()?;
        Self::read(Input::open(&files.products)?, Input::open(&files.instructions)?, human, nouns)
    }

    /// Reads the contents of the files that [`load`](Self::load) names.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_json(
        items: &[u8],
        instructions: &[u8],
        human: Option<&[u8]>,
        nouns: Option<&[u8]>,
    ) -> Result<Arc<Self>, EnvError> {
        Self::read(
            Input::bytes("products", items),
            Input::bytes("instructions", instructions),
            human.map(|bytes| Input::bytes("human instructions", bytes)).into_iter().collect(),
            nouns.map(|bytes| Input::bytes("title nouns", bytes)).into_iter().collect(),
        )
    }

    fn read<R: Read>(
        products: Input<R>,
        instructions: Input<R>,
        human: Vec<Input<R>>,
        nouns: Vec<Input<R>>,
    ) -> Result<Arc<Self>, EnvError> {
        let mut builder = Builder::default();
        builder.read_instructions(instructions)?;
        for input in human {
            builder.read_human(input)?;
        }
        for input in nouns {
            builder.read_nouns(input)?;
        }
        let name = products.name.clone();
        builder.read_products(products)?;
        builder.finish(&name)
    }

    /// The generated catalogue of a seed.
    ///
    /// # Errors
    /// Not expected: tests read every seed's files alike.
    pub fn generated(seed: u64) -> Result<Arc<Self>, EnvError> {
        let files = catalogue_files(seed, PRODUCTS).map_err(|e| EnvError::Failed(e.to_string()))?;
        Self::from_json(&files.items, &files.instructions, None, Some(&files.nouns))
    }

    /// How many products there are.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// Never true: a catalogue has products.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }

    /// A product by its place in the file.
    ///
    /// # Panics
    /// Past the end.
    pub fn product(&self, index: u32) -> Product<'_> {
        Product::new(&self.products[index as usize], &self.symbols)
    }

    /// The products in the order of the file.
    pub fn products(&self) -> impl ExactSizeIterator<Item = Product<'_>> {
        self.products.iter().map(|packed| Product::new(packed, &self.symbols))
    }

    /// The place of the product with an ASIN.
    pub fn find(&self, asin: &str) -> Option<u32> {
        let found = self.by_asin.binary_search_by(|&i| self.products[i as usize].asin().cmp(asin));
        found.ok().map(|at| self.by_asin[at])
    }

    /// The best products for words, best first, with their scores.
    pub fn search(&self, words: &str, top: usize) -> Vec<(u32, f32)> {
        let hits = self.index.search(words, top);
        hits.into_iter().map(|hit| (hit.doc, hit.score)).collect()
    }

    /// What the loader passed over or mended: repeated products, prices that cannot be read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The goals of a seed: people's or synthetic ones. The last few seeds' are kept.
    ///
    /// # Errors
    /// A catalogue without such instructions.
    pub fn goals(&self, env_seed: u32, human: bool) -> Result<Arc<Goals>, EnvError> {
        let key = (env_seed, human);
        let lock = || self.goals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, goals)) = lock().iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(goals));
        }
        let goals = Arc::new(Goals::new(self, env_seed, human)?);
        let mut kept = lock();
        if kept.len() >= KEPT_GOALS {
            kept.remove(0);
        }
        kept.push((key, Arc::clone(&goals)));
        Ok(goals)
    }

    pub(super) fn text(&self, symbol: Symbol) -> &str {
        self.symbols.get(symbol)
    }

    pub(super) fn symbol(&self, text: &str) -> Option<Symbol> {
        self.symbols.find(text)
    }
}

/// Attributes and instruction of one entry of the instruction file.
struct Entry {
    attributes: Option<Box<[Symbol]>>,
    instruction: Option<Instruction>,
}

#[derive(Default)]
struct Builder {
    interner: Interner,
    entries: HashMap<Box<str>, Entry>,
    human: HashMap<Box<str>, Vec<HumanInstruction>>,
    nouns: HashMap<Box<str>, Box<[Symbol]>>,
    products: Vec<Packed>,
    seen: HashSet<Box<str>>,
    notes: Notes,
    index: Option<Bm25>,
}

/// Counts of what was passed over, with the first case of each.
#[derive(Default)]
struct Notes {
    repeated: (usize, String),
    nameless: (usize, String),
    unpriced: (usize, String),
    entries: (usize, String),
}

impl Notes {
    fn count(slot: &mut (usize, String), case: impl FnOnce() -> String) {
        if slot.0 == 0 {
            slot.1 = case();
        }
        slot.0 += 1;
    }

    fn texts(self) -> Vec<String> {
        let Self { repeated, nameless, unpriced, entries } = self;
        let says = [
            (repeated, "product(s) repeat an ASIN; the first of each counts, as in the original"),
            (nameless, "product(s) have no valid ASIN and are left out, as in the original"),
            (unpriced, "price(s) cannot be read and count as 100 dollars"),
            (entries, "instruction entries repeat an ASIN; the last of each counts"),
        ];
        says.into_iter()
            .filter(|((count, _), _)| *count > 0)
            .map(|((count, first), what)| format!("{count} {what} (first: {first})"))
            .collect()
    }
}

impl Builder {
    fn symbols(&mut self, texts: &[String]) -> Box<[Symbol]> {
        texts.iter().map(|text| self.interner.intern(text)).collect()
    }

    fn read_instructions<R: Read>(&mut self, input: Input<R>) -> Result<(), EnvError> {
        input.json(|json| {
            raw::entries(json, "an object of instructions by ASIN", |asin, raw: RawInstruction| {
                let attributes = raw.attributes.map(|list| self.symbols(&list));
                let instruction = match (raw.instruction, raw.instruction_attributes) {
                    (None, _) => None,
                    (Some(_), None) => {
                        return Err(format!("{asin}: an instruction without its attributes"));
                    }
                    (Some(_), Some(list)) if list.is_empty() => {
                        return Err(format!("{asin}: an instruction with an empty attribute list"));
                    }
                    (Some(text), Some(list)) => {
                        Some(Instruction { text: text.into(), attributes: self.symbols(&list) })
                    }
                };
                let asin = asin.into_boxed_str();
                if self.entries.insert(asin.clone(), Entry { attributes, instruction }).is_some() {
                    Notes::count(&mut self.notes.entries, || asin.into());
                }
                Ok(())
            })
        })
    }

    fn read_human<R: Read>(&mut self, input: Input<R>) -> Result<(), EnvError> {
        input.json(|json| {
            raw::entries(json, "an object of instructions by ASIN", |asin, raw: Vec<RawHuman>| {
                let list = raw
                    .into_iter()
                    .map(|raw| HumanInstruction {
                        text: raw.instruction.into(),
                        attributes: self.symbols(&raw.instruction_attributes),
                        options: raw.instruction_options.into_iter().map(Into::into).collect(),
                    })
                    .collect();
                self.human.insert(asin.into(), list);
                Ok(())
            })
        })
    }

    fn read_nouns<R: Read>(&mut self, input: Input<R>) -> Result<(), EnvError> {
        /// `{"model": …, "nouns": {ASIN: […]}}`, read entry by entry.
        struct Table<'a>(&'a mut Builder);
        impl<'de> serde::de::DeserializeSeed<'de> for Table<'_> {
            type Value = ();
            fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
                raw::entries(json, "an object of nouns by ASIN", |asin, list: Vec<String>| {
                    let nouns = self.0.symbols(&list);
                    self.0.nouns.insert(asin.into(), nouns);
                    Ok(())
                })
            }
        }
        impl<'de> serde::de::Visitor<'de> for Table<'_> {
            type Value = bool;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with \"nouns\"")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
                let mut found = false;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "nouns" {
                        map.next_value_seed(Table(&mut *self.0))?;
                        found = true;
                    } else {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }
        let name = input.name.clone();
        let mut found = false;
        input.json(|json| {
            found = serde::Deserializer::deserialize_map(json, Table(self))?;
            Ok(())
        })?;
        if found { Ok(()) } else { Err(data(&name, None, &"there is no \"nouns\" here")) }
    }

    fn read_products<R: Read>(&mut self, input: Input<R>) -> Result<(), EnvError> {
        let (sender, receiver) = mpsc::sync_channel(WAITING);
        let mut batch = Vec::with_capacity(BATCH);
        thread::scope(|scope| {
            // Reading and indexing take about as long: a thread each.
            let indexer = scope.spawn(move || {
                let documents = receiver.into_iter().flatten();
                Bm25::build(documents.map(|text: String| text.to_lowercase()))
            });
            let read = input.json(|json| {
                raw::elements(json, "an array of products", |raw| {
                    batch.extend(self.add(raw)?);
                    if batch.len() == BATCH {
                        let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                        // Without a receiver the indexer has failed: said below.
                        let _ = sender.send(full);
                    }
                    Ok(())
                })
            });
            let _ = sender.send(batch);
            drop(sender);
            let index = indexer.join();
            read?;
            let failed = |_| EnvError::Failed("the products could not be indexed".to_owned());
            self.index = Some(index.map_err(failed)?);
            Ok(())
        })
    }

    /// Adds a product, where it counts, and gives what the search indexes.
    fn add(&mut self, raw: RawProduct) -> Result<Option<String>, String> {
        let asin = raw.asin.as_str();
        if asin == "nan" || asin.chars().nth(10).is_some() {
            Notes::count(&mut self.notes.nameless, || format!("{asin:?}"));
            return Ok(None);
        }
        if !self.seen.insert(asin.into()) {
            Notes::count(&mut self.notes.repeated, || asin.to_owned());
            return Ok(None);
        }
        let entry = self.entries.remove(asin);
        let (attributes, instruction) =
            entry.map_or((None, None), |entry| (entry.attributes, entry.instruction));
        let attributes =
            attributes.unwrap_or_else(|| Box::new([self.interner.intern(NO_ATTRIBUTE)]));
        let human = self.human.remove(asin).unwrap_or_default();
        let nouns = self.nouns.remove(asin);
        let extra = (instruction.is_some() || !human.is_empty() || nouns.is_some())
            .then(|| Box::new(Extra { instruction, human, nouns }));
        let asin = raw.asin.clone();
        let (packed, unpriced) = Packed::new(raw, &attributes, extra, &mut self.interner)?;
        if unpriced {
            Notes::count(&mut self.notes.unpriced, || asin);
        }
        let document = packed.document();
        self.products.push(packed);
        Ok(Some(document))
    }

    fn finish(self, name: &str) -> Result<Arc<Catalogue>, EnvError> {
        let Self { interner, mut products, notes, index, .. } = self;
        if products.is_empty() {
            return Err(data(name, None, &"the catalogue has no product"));
        }
        products.shrink_to_fit();
        let mut by_asin: Vec<u32> = (0..products.len() as u32).collect();
        by_asin.sort_unstable_by(|&a, &b| {
            products[a as usize].asin().cmp(products[b as usize].asin())
        });
        let symbols = interner.finish();
        let asins: Vec<&str> = products.iter().map(Packed::asin).collect();
        let index = index.unwrap_or_else(|| Bm25::build([""; 0])).ties_by(&asins);
        drop(asins);
        Ok(Arc::new(Catalogue {
            index,
            by_asin,
            products,
            symbols,
            notes: notes.texts(),
            goals: Mutex::default(),
        }))
    }
}
