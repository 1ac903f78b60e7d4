//! The entries of the original files as they stand there. Fields that the environment does not use
//! are skipped without being stored.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// An entry of `items_shuffle*.json`.
#[derive(Debug, Deserialize)]
pub(super) struct RawProduct {
    pub(super) asin: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) full_description: Text,
    #[serde(default)]
    pub(super) small_description: TextList,
    #[serde(default)]
    pub(super) customization_options: RawOptions,
    #[serde(default)]
    pub(super) category: Text,
    #[serde(default)]
    pub(super) query: Text,
    #[serde(default)]
    pub(super) product_category: Text,
    #[serde(default)]
    pub(super) pricing: Text,
}

/// An entry of `items_ins_v2*.json`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawInstruction {
    #[serde(default)]
    pub(super) attributes: Option<Vec<String>>,
    #[serde(default)]
    pub(super) instruction: Option<String>,
    #[serde(default)]
    pub(super) instruction_attributes: Option<Vec<String>>,
}

/// A person's instruction of `items_human_ins*.json`.
#[derive(Debug, Deserialize)]
pub(super) struct RawHuman {
    pub(super) instruction: String,
    #[serde(default)]
    pub(super) instruction_attributes: Vec<String>,
    #[serde(default)]
    pub(super) instruction_options: Vec<String>,
}

/// A string; null counts as empty.
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

/// Strings; a single string counts as a list of one, null as an empty list.
#[derive(Debug, Default)]
pub(super) struct TextList(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for TextList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = TextList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_unit<E>(self) -> Result<TextList, E> {
                Ok(TextList::default())
            }
            fn visit_str<E>(self, text: &str) -> Result<TextList, E> {
                Ok(TextList(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TextList, A::Error> {
                let mut list = Vec::new();
                while let Some(Text(text)) = seq.next_element()? {
                    list.push(text);
                }
                Ok(TextList(list))
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// Options by name in the order of the file, a repeated name at its first place with its last
/// values; a string or null means none.
#[derive(Debug, Default)]
pub(super) struct RawOptions(pub(super) Vec<(String, Option<Vec<RawValue>>)>);

/// A value of an option.
#[derive(Debug, Deserialize)]
pub(super) struct RawValue {
    pub(super) value: String,
}

impl<'de> Deserialize<'de> for RawOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Options;
        impl<'de> Visitor<'de> for Options {
            type Value = RawOptions;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of options, or an empty string")
            }
            fn visit_unit<E>(self) -> Result<RawOptions, E> {
                Ok(RawOptions::default())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawOptions, E> {
                if text.is_empty() {
                    Ok(RawOptions::default())
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawOptions, A::Error> {
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(RawOptions::default()),
                    Some(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawOptions, A::Error> {
                let mut options = Vec::new();
                while let Some((name, values)) = map.next_entry()? {
                    put(&mut options, name, values);
                }
                Ok(RawOptions(options))
            }
        }
        deserializer.deserialize_any(Options)
    }
}

/// Sets a key of an association list as a Python dictionary does: a known key keeps its place.
pub(super) fn put<V>(list: &mut Vec<(String, V)>, key: String, value: V) {
    match list.iter_mut().find(|(known, _)| *known == key) {
        Some(entry) => entry.1 = value,
        None => list.push((key, value)),
    }
}

/// Hands every element of an array to `each`, without keeping the array.
pub(super) fn elements<'de, D, T>(
    deserializer: D,
    what: &'static str,
    each: impl FnMut(T) -> Result<(), String>,
) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Elements<F, T>(&'static str, F, std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), String>> Visitor<'de> for Elements<F, T> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element()? {
                (self.1)(element).map_err(de::Error::custom)?;
            }
            Ok(())
        }
    }
    deserializer.deserialize_seq(Elements(what, each, std::marker::PhantomData))
}

/// Hands every entry of an object to `each`, without keeping the object.
pub(super) fn entries<'de, D, T>(
    deserializer: D,
    what: &'static str,
    each: impl FnMut(String, T) -> Result<(), String>,
) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Entries<F, T>(&'static str, F, std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(String, T) -> Result<(), String>> Visitor<'de>
        for Entries<F, T>
    {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((key, value)) = map.next_entry()? {
                (self.1)(key, value).map_err(de::Error::custom)?;
            }
            Ok(())
        }
    }
    deserializer.deserialize_map(Entries(what, each, std::marker::PhantomData))
}
