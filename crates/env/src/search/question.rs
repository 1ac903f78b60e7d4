//! One question, read from any of the formats in use.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One question with its accepted answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Identifier; unique within a set.
    pub id: String,
    /// Which data set it comes from, e.g. `hotpotqa`.
    #[serde(rename = "data_source")]
    pub source: String,
    /// The question.
    pub question: String,
    /// Answers that are accepted.
    pub golden_answers: Vec<String>,
    /// The part of its data set that it belongs to, as the file says it, e.g. `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Whatever else the file tells.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
}

impl Question {
    /// Reads one record: a line of JSON, or a row of Search-R1's or verl-agent's Parquet files.
    ///
    /// - question: `question`, else `env_kwargs.question`, else what follows the last `Question:` of
    ///   the last message of `prompt` (or all of it);
    /// - answers: `golden_answers`, else `reward_model.ground_truth.target`, else
    ///   `env_kwargs.ground_truth.target`, else `answers`, else `answer`: a text or a list of them;
    /// - source: `data_source`, else `fallback_source`;
    /// - split: that of `metadata`, else of `extra_info`, else of the record;
    /// - identifier: `id`, else empty (the set gives it one).
    ///
    /// # Errors
    /// A record without a question or a list of answers. The list may be empty: a set leaves such
    /// questions out.
    pub fn from_value(mut record: Value, fallback_source: &str) -> Result<Self, String> {
        if !record.is_object() {
            return Err("a question is a JSON object".to_owned());
        }
        let question = text_at(&record, "/question")
            .or_else(|| text_at(&record, "/env_kwargs/question"))
            .or_else(|| from_prompt(record.get("prompt")?))
            .filter(|question| !question.trim().is_empty())
            .ok_or("no `question` (a text), and no `prompt` that holds one")?;
        let golden_answers = [
            "/golden_answers",
            "/reward_model/ground_truth/target",
            "/env_kwargs/ground_truth/target",
            "/answers",
            "/answer",
        ]
        .iter()
        .find_map(|pointer| texts(record.pointer(pointer)?))
        .ok_or("no `golden_answers` (a list of texts) and no `reward_model.ground_truth.target`")?;
        let source = text_at(&record, "/data_source")
            .filter(|source| !source.is_empty())
            .unwrap_or_else(|| fallback_source.to_owned());
        let split = ["/metadata/split", "/extra_info/split", "/split"]
            .iter()
            .find_map(|pointer| text_at(&record, pointer));
        let id = record.get("id").and_then(scalar).unwrap_or_default();
        let metadata = record.get_mut("metadata").map(Value::take).unwrap_or_default();
        Ok(Self { id, source, question, golden_answers, split, metadata })
    }

    /// Reads one line of JSON.
    ///
    /// # Errors
    /// No JSON; as [`Question::from_value`].
    pub fn parse(line: &str, fallback_source: &str) -> Result<Self, String> {
        let value = serde_json::from_str(line)
            .map_err(|e| format!("not a question: {}", super::lines::in_line(&e)))?;
        Self::from_value(value, fallback_source)
    }
}

fn text_at(record: &Value, pointer: &str) -> Option<String> {
    record.pointer(pointer)?.as_str().map(str::to_owned)
}

/// A text, or a number or truth value as a text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// One text or a list of them.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(scalar).collect(),
        other => scalar(other).map(|text| vec![text]),
    }
}

/// The question in a chat prompt, or in a prompt that is one text.
fn from_prompt(prompt: &Value) -> Option<String> {
    let content = match prompt {
        Value::Array(messages) => messages.last()?.get("content")?.as_str()?,
        other => other.as_str()?,
    };
    let question = content.rsplit_once("Question:").map_or(content, |(_, question)| question);
    Some(question.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_every_format() {
        let line = r#"{"id": 3, "data_source": "nq", "question": "q", "golden_answers": ["a", 1],
            "metadata": {"split": "dev", "x": 2}}"#;
        let question = Question::parse(line, "file").unwrap();
        assert_eq!((question.id.as_str(), question.source.as_str()), ("3", "nq"));
        assert_eq!(question.golden_answers, ["a", "1"]);
        assert_eq!(question.split.as_deref(), Some("dev"));
        assert_eq!(question.metadata["x"], 2);

        let row = json!({"prompt": [{"role": "user", "content": "Think. Question: who?\n"}],
            "reward_model": {"style": "rule", "ground_truth": {"target": ["a"]}},
            "extra_info": {"split": "test", "index": 4}});
        let question = Question::from_value(row, "file").unwrap();
        assert_eq!((question.question.as_str(), question.source.as_str()), ("who?", "file"));
        assert_eq!(question.split.as_deref(), Some("test"));

        let row = json!({"env_kwargs": {"question": "q", "ground_truth": {"target": "a"}}});
        assert_eq!(Question::from_value(row, "f").unwrap().golden_answers, ["a"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        for (line, part) in [
            ("{\"question\": \"q\"}", "golden_answers"),
            ("{\"question\": \"q\", \"golden_answers\": [{}]}", "golden_answers"),
            ("{\"question\": \" \", \"golden_answers\": [\"a\"]}", "no `question`"),
            ("{\"prompt\": [], \"golden_answers\": [\"a\"]}", "no `question`"),
            ("[1]", "object"),
            ("{", "not a question"),
        ] {
            let error = Question::parse(line, "f").unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
