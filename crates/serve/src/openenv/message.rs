//! What comes and goes over a session's WebSocket.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::refusal::{Detail, Refusal};
use super::session::ResetArguments;

/// What a client may say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Reset(ResetArguments),
    Step(String),
    State,
    Close,
    /// JSON-RPC inside of a message; no environment of ours has tools.
    Mcp(Value),
}

/// Why a message is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// No JSON.
    Json(String),
    /// JSON, but no object: OpenEnv ends the session.
    Shape(String),
    /// A type that does not exist.
    Type(String),
    /// A field that is missing, too much, or of the wrong type.
    Invalid(Detail),
    /// Known fields with values that the environment refuses.
    Refused(String),
}

impl From<Detail> for Unreadable {
    fn from(detail: Detail) -> Self {
        Self::Invalid(detail)
    }
}

impl Message {
    /// Reads a message.
    pub(crate) fn read(text: &str) -> Result<Self, Unreadable> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| Unreadable::Json(e.to_string()))?;
        let Value::Object(message) = value else {
            return Err(Unreadable::Shape("a message is a JSON object with a \"type\"".to_owned()));
        };
        let named = message.get("type").map_or(Some(""), Value::as_str);
        let fields: &[&str] = match named {
            Some("reset" | "step" | "mcp") => &["type", "data"],
            Some("state" | "close") => &["type"],
            _ => {
                let given = match message.get("type") {
                    None => String::new(),
                    Some(Value::String(given)) => given.clone(),
                    Some(other) => other.to_string(),
                };
                return Err(Unreadable::Type(given.chars().take(100).collect()));
            }
        };
        if let Some(extra) = message.keys().find(|key| !fields.contains(&key.as_str())) {
            let detail = Detail::new("extra_forbidden", &[], "Extra inputs are not permitted");
            return Err(detail.of(extra).into());
        }
        let data = match message.get("data") {
            Some(Value::Object(data)) => Some(data),
            Some(_) => {
                let what = "Input should be a valid dictionary";
                return Err(Detail::new("dict_type", &["data"], what).into());
            }
            None => None,
        };
        let required = || data.ok_or_else(|| Detail::new("missing", &["data"], "Field required"));
        match named {
            Some("reset") => {
                let none = Map::new();
                let arguments = ResetArguments::read(data.unwrap_or(&none), &["data"]);
                // OpenEnv leaves the values to the environment, whose refusal is another error.
                arguments.map(Self::Reset).map_err(|detail| {
                    let field = detail.field.unwrap_or_default();
                    Unreadable::Refused(format!("{field}: {}", detail.message))
                })
            }
            Some("step") => Ok(Self::Step(action(required()?, &[])?)),
            Some("state") => Ok(Self::State),
            Some("close") => Ok(Self::Close),
            _ => Ok(Self::Mcp(Value::Object(required()?.clone()))),
        }
    }
}

/// Reads `{"text": …}`, with `metadata` where there is any.
///
/// # Errors
/// A text that is missing, anything that does not belong there.
pub(crate) fn action(
    action: &Map<String, Value>,
    place: &'static [&'static str],
) -> Result<String, Detail> {
    for (key, value) in action {
        match key.as_str() {
            "text" => {}
            "metadata" if value.is_object() => {}
            "metadata" => {
                let what = "Input should be a valid dictionary";
                return Err(Detail::new("dict_type", place, what).of(key));
            }
            _ => {
                let what = "Extra inputs are not permitted";
                return Err(Detail::new("extra_forbidden", place, what).of(key));
            }
        }
    }
    match action.get("text") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => {
            Err(Detail::new("string_type", place, "Input should be a valid string").of("text"))
        }
        None => Err(Detail::new("missing", place, "Field required").of("text")),
    }
}

/// `{"type": "observation" | "state", "data": …}`.
pub(crate) fn answer(kind: &str, data: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Answer<'a, T> {
        r#type: &'a str,
        data: &'a T,
    }
    // Texts and finite numbers cannot fail to be written to memory.
    serde_json::to_string(&Answer { r#type: kind, data }).unwrap_or_default()
}

/// `{"type": "error", "data": {"message", "code", …}}`.
pub(crate) fn error(code: &str, message: &str) -> String {
    json!({"type": "error", "data": {"message": message, "code": code}}).to_string()
}

/// The error that a client is told instead of an answer.
pub(crate) fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Invalid(detail) => json!({"type": "error", "data": {
            "message": "Invalid message", "code": "VALIDATION_ERROR", "errors": [detail.json(&[])]}})
        .to_string(),
        Refusal::Failed(what) => error("EXECUTION_ERROR", what),
    }
}

impl Detail {
    /// `{"type", "loc", "msg"}`, the way beginning with `prefix`.
    pub(crate) fn json(&self, prefix: &[&str]) -> Value {
        let mut place: Vec<&str> = prefix.to_vec();
        place.extend(&self.place);
        place.extend(self.field.as_deref());
        json!({"type": self.kind, "loc": place, "msg": self.message})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_openenv_reads_them() {
        let read = Message::read;
        assert_eq!(
            read(r#"{"type": "reset"}"#).unwrap(),
            Message::Reset(ResetArguments::default())
        );
        assert_eq!(
            read(r#"{"type": "step", "data": {"text": "look", "metadata": {}}}"#).unwrap(),
            Message::Step("look".to_owned())
        );
        assert_eq!(read(r#"{"type": "state"}"#).unwrap(), Message::State);
        assert_eq!(read(r#"{"type": "close"}"#).unwrap(), Message::Close);
        assert!(matches!(read("{"), Err(Unreadable::Json(_))));
        assert!(matches!(read("[1]"), Err(Unreadable::Shape(_))));
        assert!(matches!(read(r#"{"type": "jump"}"#), Err(Unreadable::Type(t)) if t == "jump"));
        assert!(matches!(read("{}"), Err(Unreadable::Type(_))));
        assert!(matches!(read(r#"{"type": 3}"#), Err(Unreadable::Type(t)) if t == "3"));
        for (text, kind) in [
            (r#"{"type": "step"}"#, "missing"),
            (r#"{"type": "step", "data": {}}"#, "missing"),
            (r#"{"type": "step", "data": {"text": 3}}"#, "string_type"),
            (r#"{"type": "step", "data": {"text": "a", "command": "b"}}"#, "extra_forbidden"),
            (r#"{"type": "step", "data": {"text": "a", "metadata": 3}}"#, "dict_type"),
            (r#"{"type": "step", "data": "a"}"#, "dict_type"),
            (r#"{"type": "state", "data": {}}"#, "extra_forbidden"),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                matches!(&error, Unreadable::Invalid(d) if d.kind == kind),
                "{text}: {error:?}"
            );
        }
        assert!(matches!(
            read(r#"{"type": "reset", "data": {"seed": -1}}"#),
            Err(Unreadable::Refused(what)) if what.starts_with("seed: ")
        ));
    }
}
