//! A line of `empg score`: what is read from it, and the line written back.

use std::fmt::Write as _;

use anyhow::{anyhow, bail};
use empg::{TokenId, TokenScore};
use empg_llm::ModelConfig;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::output::in_line;

/// A line with its tokens; everything else is kept as it is written.
#[derive(Debug)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) tokens: Vec<TokenId>,
    fields: Vec<(String, Box<RawValue>)>,
}

/// Fields that this command writes.
const WRITTEN: [&str; 2] = ["logprobs", "entropy"];

impl Line {
    /// Reads a line for a model of this shape.
    pub(super) fn read(number: usize, text: &[u8], config: &ModelConfig) -> anyhow::Result<Self> {
        let fault = |what: String| anyhow!("line {number}: {what}");
        if text.first() != Some(&b'{') {
            return Err(fault("not a JSON object".into()));
        }
        let mut reader = serde_json::Deserializer::from_slice(text);
        let mut fields = reader
            .deserialize_map(Fields)
            .and_then(|fields| reader.end().map(|()| fields))
            .map_err(|e| fault(format!("not JSON: {}", in_line(&e))))?;
        fields.retain(|(name, _)| !WRITTEN.contains(&name.as_str()));
        let mut given = fields.iter().filter(|(name, _)| name == "tokens");
        let (Some((_, raw)), twice) = (given.next(), given.next()) else {
            return Err(fault("\"tokens\" is missing".into()));
        };
        if twice.is_some() {
            return Err(fault("\"tokens\" is given twice".into()));
        }
        let tokens: Vec<TokenId> = serde_json::from_str(raw.get()).map_err(|e| {
            fault(format!("\"tokens\": {}; expected an array of token ids", in_line(&e)))
        })?;
        let (size, limit) = (config.vocab_size, config.max_position_embeddings);
        if let Some(index) = tokens.iter().position(|t| *t as usize >= size) {
            let token = tokens[index];
            bail!(fault(format!("token {token} at index {index}: the vocabulary has {size}")));
        }
        if tokens.len() > limit {
            let length = tokens.len();
            bail!(fault(format!("{length} tokens; the model's context holds {limit}")));
        }
        Ok(Self { number, tokens, fields })
    }

    /// The line with its scores, those of all tokens but the first.
    pub(super) fn with(&self, scores: &[TokenScore]) -> String {
        let mut out = String::from("{");
        for (name, value) in &self.fields {
            let _ = write!(out, "{}:{},", serde_json::Value::from(name.as_str()), value.get());
        }
        let column = |name: &str, value: fn(&TokenScore) -> f32, out: &mut String| {
            let _ = write!(out, "\"{name}\":[");
            out.push_str(if self.tokens.is_empty() { "" } else { "null" });
            for score in scores {
                let _ = write!(out, ",{}", value(score));
            }
            out.push(']');
        };
        column("logprobs", |s| s.logprob, &mut out);
        out.push(',');
        column("entropy", |s| s.entropy, &mut out);
        out.push_str("}\n");
        out
    }
}

/// Reads an object's fields in order, their values unread.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = map.next_entry()? {
            fields.push(entry);
        }
        Ok(fields)
    }
}
