//! What lies beside a model's weights and says how it is talked to: special tokens, chat template,
//! sampling defaults. Kept as it was read, so that a model that is written anew says the same.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use empg::TokenId;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::chat::template_of;
use crate::chat_template::ChatTemplate;
use crate::checkpoint::{CONFIG_FILE, CheckpointError, pretty, tokenizer_config, tokenizer_files};
use crate::config::ModelConfig;
use crate::directory::optional;
use crate::generation::GenerationConfig;
use crate::gguf::GgufVocabulary;
use crate::tiny_tokenizer::{TURN_END, TURN_START};
use crate::tokenizer::Tokenizer;

/// Special tokens and, in older folders, the chat template.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The special tokens alone, in older folders.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// The chat template.
const TEMPLATE: &str = "chat_template.jinja";
/// Sampling defaults.
const GENERATION: &str = "generation_config.json";
/// Files that whoever opens a folder reads where it has them.
pub(crate) const OPTIONAL: [&str; 3] = [TEMPLATE, SPECIAL_TOKENS, GENERATION];
/// Files about tokens; they belong together.
const WORDS: [&str; 3] = [TOKENIZER_CONFIG, TEMPLATE, SPECIAL_TOKENS];
/// Token ids that `config.json` may name.
const IDS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// What a model's folder or file says beside weights, shape and vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideFiles {
    /// As they were read, by name.
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Those of [`IDS`] that `config.json` names, where only with null.
    ids: Map<String, Value>,
}

/// Those of [`IDS`] that an object has; nothing else of it is kept while it is read.
struct Ids(Map<String, Value>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Ids, A::Error> {
                let mut ids = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    if IDS.contains(&key.as_str()) {
                        ids.insert(key, entries.next_value()?);
                    } else {
                        entries.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Ids(ids))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Which file says something that cannot be used, and what.
pub(crate) type Wrong = (&'static str, String);

impl SideFiles {
    /// Those of a folder, as far as they are there.
    ///
    /// # Errors
    /// Files that cannot be read, or a `config.json` that is no JSON object.
    pub fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let mut side = Self::default();
        for name in WORDS.into_iter().chain([GENERATION]) {
            if let Some(bytes) = optional(dir, name)? {
                side.files.insert(name, bytes);
            }
        }
        if let Some(bytes) = optional(dir, CONFIG_FILE)? {
            let Ids(ids) = serde_json::from_slice(&bytes)
                .map_err(|e| refuse(dir.join(CONFIG_FILE), e.to_string()))?;
            side.ids = ids;
        }
        Ok(side)
    }

    /// What a GGUF file says, as files would say it.
    pub(crate) fn of_gguf(vocabulary: &GgufVocabulary, config: &ModelConfig) -> Self {
        let mut side = Self::default();
        let mut words = tokenizer_config(config, &vocabulary.tokenizer);
        for (name, id) in
            [("bos", vocabulary.bos), ("eos", vocabulary.eos), ("pad", vocabulary.padding)]
        {
            side.ids.insert(format!("{name}_token_id"), json!(id));
            let token = id.and_then(|id| vocabulary.tokenizer.token(id));
            words.insert(format!("{name}_token"), json!(token));
        }
        words.insert("chat_template".to_owned(), json!(vocabulary.chat_template));
        if vocabulary.add_bos {
            words.insert("add_bos_token".to_owned(), json!(true));
        }
        words.retain(|_, value| !value.is_null());
        side.files.insert(TOKENIZER_CONFIG, pretty(&words.into()));
        side
    }

    /// Those in a folder of adapters over those of the model that they belong to: what the adapters'
    /// folder does not say, the model's says. An end token of the adapters' own goes before the
    /// model's, and so does ChatML's where it is among theirs: they were trained with it.
    ///
    /// # Errors
    /// A `generation_config.json` that is no JSON object.
    pub fn over(mut self, base: &Self, tokenizer: &Tokenizer) -> Result<Self, CheckpointError> {
        let own = self.spelt("eos_token");
        let own =
            own.filter(|end| end == TURN_END || base.spelt("eos_token").as_ref() != Some(end));
        let end = own.and_then(|token| tokenizer.token_id(&token));
        if !WORDS.iter().any(|name| self.files.contains_key(name)) {
            let words = base.files.iter().filter(|(name, _)| WORDS.contains(name));
            self.files.extend(words.map(|(name, bytes)| (*name, bytes.clone())));
        }
        self.ids.clone_from(&base.ids);
        let turn = tokenizer.token_id(TURN_END).filter(|turn| {
            GenerationConfig::from_object(self.object(GENERATION))
                .is_ok_and(|own| own.eos.contains(turn))
        });
        for end in [end, turn].into_iter().flatten().filter(|_| !base.ids.is_empty()) {
            ends_with(&mut self.ids, end);
        }
        if !self.files.contains_key(GENERATION)
            && let Some(bytes) = base.files.get(GENERATION)
        {
            let mut generation: Map<String, Value> = serde_json::from_slice(bytes)
                .map_err(|e| refuse(GENERATION.into(), e.to_string()))?;
            let changed = end.is_some_and(|end| ends_with(&mut generation, end));
            let bytes = if changed { pretty(&generation.into()) } else { bytes.clone() };
            self.files.insert(GENERATION, bytes);
        }
        Ok(self)
    }

    /// Those of a model that has been trained in ChatML: its end of a turn goes before the other end
    /// tokens unless it is one of them, and where there is no chat template they are ChatML's. What
    /// says nothing goes on saying nothing.
    ///
    /// # Errors
    /// Files that are no JSON objects.
    pub fn trained_in_chatml(
        &self,
        config: &ModelConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Self, CheckpointError> {
        let mut side = self.clone();
        let Some(end) = tokenizer.token_id(TURN_END) else { return Ok(side) };
        if !side.ids.is_empty() {
            ends_with(&mut side.ids, end);
        }
        let object = |file: &str, bytes: &[u8]| {
            serde_json::from_slice::<Map<String, Value>>(bytes)
                .map_err(|e| refuse(file.into(), e.to_string()))
        };
        if let Some(bytes) = side.files.get_mut(GENERATION) {
            let mut generation = object(GENERATION, bytes)?;
            if ends_with(&mut generation, end) {
                *bytes = pretty(&generation.into());
            }
        }
        let words = WORDS.iter().any(|name| side.files.contains_key(name));
        if words && matches!(side.chat_template(&|file| file.into()), Ok(None)) {
            let mut words = match side.files.get(TOKENIZER_CONFIG) {
                Some(bytes) => object(TOKENIZER_CONFIG, bytes)?,
                None => tokenizer_config(config, tokenizer),
            };
            words.insert("chat_template".to_owned(), json!(template_of(tokenizer)));
            words.insert("eos_token".to_owned(), json!(TURN_END));
            if let Some(begin) = tokenizer.begin().and_then(|id| tokenizer.token(id)) {
                words.insert("bos_token".to_owned(), json!(begin));
            }
            side.files.insert(TOKENIZER_CONFIG, pretty(&words.into()));
        }
        Ok(side)
    }

    /// The chat template with the special tokens that it may name; `place` says where a file lies.
    pub(crate) fn chat_template(
        &self,
        place: &dyn Fn(&str) -> PathBuf,
    ) -> Result<Option<ChatTemplate>, Wrong> {
        let words = self.files.get(TOKENIZER_CONFIG).map_or(&b"{}"[..], Vec::as_slice);
        let config: Map<String, Value> =
            serde_json::from_slice(words).map_err(|e| (TOKENIZER_CONFIG, e.to_string()))?;
        let (file, source) = if let Some(bytes) = self.files.get(TEMPLATE) {
            let text = String::from_utf8(bytes.clone());
            (TEMPLATE, Some(text.map_err(|_| (TEMPLATE, "not UTF-8".to_owned()))?))
        } else {
            (TOKENIZER_CONFIG, config.get("chat_template").and_then(template_source))
        };
        let Some(source) = source else { return Ok(None) };
        let mut specials = BTreeMap::new();
        for (key, value) in self.object(SPECIAL_TOKENS).iter().chain(&config) {
            if let Some(text) = spelling(value).filter(|_| key.ends_with("_token")) {
                specials.insert(key.clone(), text.to_owned());
            }
        }
        Ok(Some(ChatTemplate::from_file(source, specials, &place(file))))
    }

    /// The token in front of a conversation's first turn: where there is a chat template that can be
    /// run, the one that it begins with; else the one in front of every text. None where that token
    /// begins the turns themselves, as SmolLM2's does.
    pub(crate) fn begin(
        &self,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
    ) -> Option<TokenId> {
        let (first, bos) = (tokenizer.first_of_text(), self.token("bos", tokenizer));
        let of_text = first.or(bos.filter(|_| self.adds_bos()));
        let begins = match template {
            Some(template) => {
                let bos = bos.or(first)?;
                match template.begins_with(&tokenizer.token(bos)?) {
                    Some(begins) => Some(bos).filter(|_| begins),
                    None => of_text,
                }
            }
            None => of_text,
        };
        begins.filter(|&token| tokenizer.token_id(TURN_START) != Some(token))
    }

    /// Sampling defaults; of `config.json` the ids only, since its other keys have been found to
    /// mean something else.
    pub(crate) fn generation(&self) -> Result<GenerationConfig, Wrong> {
        let ids = GenerationConfig::from_object(self.ids.clone()).map_err(|e| (CONFIG_FILE, e))?;
        match self.files.get(GENERATION) {
            Some(bytes) => {
                Ok(GenerationConfig::from_bytes(bytes).map_err(|e| (GENERATION, e))?.or(ids))
            }
            None => Ok(ids),
        }
    }

    /// The id of `bos`, `eos` or `pad`: of the token that is spelt out, since lists of ids name end
    /// tokens of every kind, else the first of the ids.
    pub(crate) fn token(&self, name: &str, tokenizer: &Tokenizer) -> Option<TokenId> {
        let spelt = self.spelt(&format!("{name}_token"));
        let key = format!("{name}_token_id");
        spelt.and_then(|token| tokenizer.token_id(&token)).or_else(|| {
            let generation = self.object(GENERATION);
            [generation.get(&key), self.ids.get(&key)].into_iter().flatten().find_map(first_id)
        })
    }

    /// Whether the tokenizer's settings say that texts begin with `bos`.
    pub(crate) fn adds_bos(&self) -> bool {
        self.object(TOKENIZER_CONFIG).get("add_bos_token") == Some(&Value::Bool(true))
    }

    /// A special token's text, by `eos_token` and the like.
    fn spelt(&self, key: &str) -> Option<String> {
        [TOKENIZER_CONFIG, SPECIAL_TOKENS].into_iter().find_map(|file| {
            let object = self.object(file);
            Some(spelling(object.get(key)?)?.to_owned())
        })
    }

    fn object(&self, file: &str) -> Map<String, Value> {
        let bytes = self.files.get(file).map_or(&b"{}"[..], Vec::as_slice);
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// The files to write beside weights and `tokenizer.json`; what is not said here is as `own`
    /// has it.
    pub(crate) fn written(
        &self,
        own: Vec<(&'static str, Vec<u8>)>,
    ) -> Vec<(&'static str, Vec<u8>)> {
        let words = WORDS.iter().any(|name| self.files.contains_key(name));
        let mut files = Vec::new();
        for (name, bytes) in own {
            if !(self.files.contains_key(name) || words && WORDS.contains(&name)) {
                files.push((name, bytes));
            }
        }
        files.extend(self.files.iter().map(|(name, bytes)| (*name, bytes.clone())));
        files
    }

    /// The files to write beside adapters and `tokenizer.json`: words, and sampling defaults, which
    /// have to hold the ids too, since adapters have no `config.json`. A model that says nothing
    /// has what [`tokenizer_files`] gives.
    pub fn beside_adapters(
        &self,
        config: &ModelConfig,
        tokenizer: &Tokenizer,
    ) -> Vec<(&'static str, Vec<u8>)> {
        let mut files = self.written(tokenizer_files(config, tokenizer));
        if !self.ids.is_empty() && !self.files.contains_key(GENERATION) {
            let mut ids: Map<String, Value> =
                IDS.into_iter().map(|key| (key.to_owned(), json!(null))).collect();
            ids.extend(self.ids.clone());
            files.push((GENERATION, pretty(&ids.into())));
        }
        files
    }

    /// The ids that `config.json` named.
    pub(crate) fn ids(&self) -> &Map<String, Value> {
        &self.ids
    }
}

/// A special token's text, which stands there itself or in an object.
fn spelling(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The text of a template, or of several by name the one for plain conversations.
fn template_source(said: &Value) -> Option<String> {
    let text = match said {
        Value::String(text) => text,
        Value::Array(named) => named
            .iter()
            .find(|t| t.get("name").is_some_and(|n| n == "default"))?
            .get("template")?
            .as_str()?,
        _ => return None,
    };
    Some(text.to_owned())
}

fn refuse(path: PathBuf, reason: String) -> CheckpointError {
    CheckpointError::Config { path, reason }
}

/// Puts an end token before the others, unless it is one of them; says whether anything changed.
fn ends_with(object: &mut Map<String, Value>, end: TokenId) -> bool {
    let key = "eos_token_id";
    let mut all = match object.get(key) {
        Some(Value::Array(several)) => several.clone(),
        Some(Value::Null) | None => Vec::new(),
        Some(one) => vec![one.clone()],
    };
    if all.contains(&json!(end)) {
        return false;
    }
    all.insert(0, json!(end));
    let value = if all.len() == 1 { json!(end) } else { Value::Array(all) };
    object.insert(key.to_owned(), value);
    true
}

/// An id, or the first of several.
fn first_id(value: &Value) -> Option<TokenId> {
    let value = value.as_array().and_then(|several| several.first()).unwrap_or(value);
    value.as_u64().and_then(|id| TokenId::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(files: &[(&'static str, &str)]) -> SideFiles {
        let files = files.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect();
        SideFiles { files, ids: Map::new() }
    }

    fn template(files: &[(&'static str, &str)]) -> Result<Option<ChatTemplate>, Wrong> {
        side(files).chat_template(&|file| Path::new("model").join(file))
    }

    #[test]
    fn templates_by_name_and_tokens_as_objects() {
        let config = r#"{"bos_token": {"content": "<s>", "special": true}, "eos_token": "</s>",
            "pad_token": null, "add_bos_token": true, "chat_template": [
            {"name": "tool_use", "template": "T"},
            {"name": "default", "template": "{{ bos_token }}D{{ eos_token }}{{ cls_token }}"}]}"#;
        let map = r#"{"eos_token": "other", "cls_token": "<c>"}"#;
        let render = |template: Result<Option<ChatTemplate>, Wrong>| {
            template.expect("reads").map(|t| t.render(&[], false).expect("renders"))
        };
        let own = template(&[(TOKENIZER_CONFIG, config), (SPECIAL_TOKENS, map)]);
        assert_eq!(render(own).as_deref(), Some("<s>D</s><c>"));
        let given = template(&[(TOKENIZER_CONFIG, config), (TEMPLATE, "{{ eos_token }}!")]);
        assert_eq!(render(given).as_deref(), Some("</s>!"));
        assert!(template(&[(TOKENIZER_CONFIG, "{}")]).expect("reads").is_none());
        let (file, _) = template(&[(TOKENIZER_CONFIG, "[]")]).expect_err("refused");
        assert_eq!(file, TOKENIZER_CONFIG);
    }

    #[test]
    fn a_broken_template_is_an_error_of_whoever_uses_it() {
        let in_config = r#"{"chat_template": "{{"}"#;
        for (file, text) in [(TOKENIZER_CONFIG, in_config), (TEMPLATE, "{% if %}")] {
            let read = template(&[(file, text)]).expect("reads").expect("a template");
            let error = read.render(&[], false).expect_err("refused").to_string();
            let place = Path::new("model").join(file).display().to_string();
            assert!(error.contains(&place) && error.contains("line 1"), "{error}");
        }
    }
}
