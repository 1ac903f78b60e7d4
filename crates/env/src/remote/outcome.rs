//! What an answer from elsewhere says: text, reward, end.

use empg::Limit;
use serde_json::{Map, Value};

use crate::{EnvEnd, Observation, Transition};

/// An observation with what came along.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) admissible: Vec<String>,
    pub(super) reward: f64,
    pub(super) done: bool,
    pub(super) won: bool,
    pub(super) effect: bool,
    pub(super) truncated: bool,
}

/// Names under which a text is looked for, in this order.
const TEXTS: [&str; 11] = [
    "text",
    "observation",
    "message",
    "messages",
    "output",
    "content",
    "response",
    "result",
    "question",
    "stdout",
    "prompt",
];
const ADMISSIBLE: [&str; 2] = ["admissible", "admissible_commands"];
const WON: [&str; 2] = ["won", "success"];
/// What is true or false where it stands beside the observation.
const FLAGS: [&str; 3] = ["won", "effect", "truncated"];

impl Outcome {
    /// Reads `{"observation": text or object, "reward", "done"}`. What only one side tells
    /// (`admissible`, `won`, `effect`, `truncated`) may stand in the observation, which has fields of
    /// its own and may mean something else by it, or beside it.
    ///
    /// # Errors
    /// In words: a part of the wrong type, a field that is not there.
    pub(super) fn read(answer: &Value, field: Option<&str>) -> Result<Self, String> {
        let Value::Object(answer) = answer else {
            return Err("the answer is no object".to_owned());
        };
        let observation = match answer.get("observation") {
            Some(observation @ (Value::String(_) | Value::Object(_))) => observation,
            Some(_) => return Err("its \"observation\" is neither a text nor an object".to_owned()),
            None => return Err("it has no \"observation\"".to_owned()),
        };
        let reward = match answer.get("reward") {
            None | Some(Value::Null) => 0.0,
            Some(Value::Bool(yes)) => f64::from(u8::from(*yes)),
            Some(Value::Number(n)) => n.as_f64().unwrap_or(f64::NAN),
            Some(_) => return Err("its \"reward\" is no number".to_owned()),
        };
        if !reward.is_finite() {
            return Err("its \"reward\" is not finite".to_owned());
        }
        let done = match answer.get("done") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(done)) => *done,
            Some(_) => return Err("its \"done\" is neither true nor false".to_owned()),
        };
        let inner = observation.as_object();
        for name in FLAGS {
            if answer.get(name).is_some_and(|v| !v.is_null() && !v.is_boolean()) {
                return Err(format!("its {name:?} is neither true nor false"));
            }
        }
        let texts = |v: &Value| v.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        if answer.get("admissible").is_some_and(|v| !v.is_null() && !texts(v)) {
            return Err("its \"admissible\" is no list of texts".to_owned());
        }
        let places = |name: &str| [inner.and_then(|o| o.get(name)), answer.get(name)];
        let flag = |names: &[&str]| {
            names.iter().flat_map(|name| places(name)).flatten().find_map(Value::as_bool)
        };
        let mut lists = ADMISSIBLE.iter().flat_map(|name| places(name)).flatten();
        Ok(Self {
            text: text_of(observation, field)?,
            admissible: lists
                .find_map(Value::as_array)
                .map(|list| list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
                .unwrap_or_default(),
            reward,
            done,
            won: flag(&WON).unwrap_or(done && reward > 0.0),
            effect: flag(&["effect"]).unwrap_or(true),
            truncated: done && flag(&["truncated"]).unwrap_or(false),
        })
    }

    /// As a transition; `out_of_steps`: our own limit ends the episode here.
    pub(super) fn transition(self, out_of_steps: bool) -> Transition {
        let end = if self.done && !self.truncated {
            Some(EnvEnd::Terminated)
        } else {
            (self.done || out_of_steps).then_some(EnvEnd::Truncated(Limit::Turns))
        };
        Transition {
            observation: Observation { text: self.text },
            reward: self.reward,
            end,
            won: self.won,
            effect: self.effect,
        }
    }
}

/// The text of an observation: the named field (dots lead inwards); else the first of the usual
/// names; else the only text that there is; else the object as JSON.
fn text_of(observation: &Value, field: Option<&str>) -> Result<String, String> {
    if let Value::String(text) = observation {
        return Ok(text.clone());
    }
    let empty = Map::new();
    let object = observation.as_object().unwrap_or(&empty);
    if let Some(field) = field {
        let found = field.split('.').try_fold(observation, |value, part| match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            value => value.get(part),
        });
        return found.map(plain).ok_or_else(|| {
            let there: Vec<&str> = object.keys().map(String::as_str).collect();
            format!(
                "its observation has no {field:?} (env.observation_field); it has {}",
                there.join(", ")
            )
        });
    }
    for name in TEXTS {
        match object.get(name) {
            Some(Value::String(text)) => return Ok(text.clone()),
            Some(Value::Array(messages)) if name == "messages" => {
                let contents: Option<Vec<&str>> =
                    messages.iter().map(|m| m.get("content")?.as_str()).collect();
                if let Some(contents) = contents.filter(|c| !c.is_empty()) {
                    return Ok(contents.join("\n"));
                }
            }
            _ => {}
        }
    }
    let mut texts = object.values().filter_map(Value::as_str);
    match (texts.next(), texts.next()) {
        (Some(only), None) => Ok(only.to_owned()),
        _ => Ok(observation.to_string()),
    }
}

/// A text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(observation: &Value) -> String {
        Outcome::read(&json!({"observation": observation}), None).unwrap().text
    }

    #[test]
    fn texts_are_found_where_environments_put_them() {
        assert_eq!(text(&json!("plain")), "plain");
        assert_eq!(text(&json!({"message": "m", "text": "t"})), "t");
        assert_eq!(text(&json!({"echoed": "e", "length": 3})), "e");
        assert_eq!(
            text(&json!({"prompt": "p", "messages": [{"content": "a"}, {"content": "b"}]})),
            "a\nb"
        );
        assert_eq!(text(&json!({"prompt": "p", "messages": []})), "p");
        assert_eq!(text(&json!({"x": 1, "y": [2]})), r#"{"x":1,"y":[2]}"#);
        assert_eq!(text(&json!({"one": "a", "two": "b"})), r#"{"one":"a","two":"b"}"#);
        let read = |field| {
            Outcome::read(&json!({"observation": {"a": {"b": [1, "x"]}, "text": "t"}}), Some(field))
        };
        assert_eq!(read("a.b.1").unwrap().text, "x");
        assert_eq!(read("a").unwrap().text, r#"{"b":[1,"x"]}"#);
        let error = read("a.c").unwrap_err();
        assert!(error.contains("\"a.c\"") && error.contains("a, text"), "{error}");
    }

    #[test]
    fn rewards_and_ends() {
        let read = |answer: Value| Outcome::read(&answer, None);
        let over = read(json!({"observation": "o", "reward": 0.5, "done": true})).unwrap();
        assert!(over.won && over.done && over.effect && !over.truncated);
        assert_eq!(over.transition(true).end, Some(EnvEnd::Terminated));
        let lost =
            read(json!({"observation": {"text": "o", "won": false}, "reward": true, "done": true}));
        let lost = lost.unwrap();
        assert!(!lost.won && lost.reward == 1.0);
        let cut =
            read(json!({"observation": {"text": "o", "truncated": true}, "done": true})).unwrap();
        assert_eq!(cut.transition(false).end, Some(EnvEnd::Truncated(Limit::Turns)));
        let going = read(json!({"observation": {"text": "o", "admissible": ["a", 3, "b"]},
            "reward": null, "effect": false, "won": null, "success": 0.5}));
        let going = going.unwrap();
        assert_eq!(going.admissible, ["a", "b"]);
        assert!(!going.effect && !going.won);
        assert_eq!(going.clone().transition(false).end, None);
        assert_eq!(going.transition(true).end, Some(EnvEnd::Truncated(Limit::Turns)));
        // An observation's own fields are no part of the answer, and hide none.
        let named = read(json!({"observation": {"text": "o", "effect": "splash", "won": 1},
            "effect": false, "won": true, "admissible": null}));
        let named = named.unwrap();
        assert!(named.won && !named.effect && named.admissible.is_empty());
    }

    #[test]
    fn nonsense_is_named() {
        for (answer, part) in [
            (json!([1]), "no object"),
            (json!({}), "no \"observation\""),
            (json!({"observation": 3}), "neither a text nor an object"),
            (json!({"observation": "o", "reward": "1"}), "\"reward\""),
            (json!({"observation": "o", "done": 1}), "\"done\""),
            (json!({"observation": "o", "won": 1}), "\"won\" is neither"),
            (
                json!({"observation": {"text": "o", "won": true}, "won": "yes"}),
                "\"won\" is neither",
            ),
            (json!({"observation": "o", "effect": "none"}), "\"effect\" is neither"),
            (json!({"observation": "o", "truncated": 0}), "\"truncated\" is neither"),
            (json!({"observation": "o", "admissible": "look"}), "\"admissible\" is no list"),
            (json!({"observation": "o", "admissible": ["a", 3]}), "\"admissible\" is no list"),
        ] {
            let error = Outcome::read(&answer, None).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
