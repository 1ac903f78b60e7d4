//! Which field of an action takes the policy's text.

use serde_json::{Map, Value};

/// Names that a text goes to where an action has several, in this order.
const USUAL: [&str; 9] =
    ["text", "action", "command", "message", "content", "answer", "query", "code", "input"];

/// The field of an action that is filled, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ActionField {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Number,
}

impl ActionField {
    /// The named field, or the one that the action's schema suggests; without a schema `text`.
    ///
    /// # Errors
    /// In words: an action that a text cannot be put into.
    pub(super) fn choose(named: Option<&str>, action: Option<&Value>) -> Result<Self, String> {
        let empty = Map::new();
        let schema = action.and_then(Value::as_object).unwrap_or(&empty);
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let kinds: Vec<(&str, Option<Kind>)> = properties
            .iter()
            .filter(|(name, _)| name.as_str() != "metadata")
            .map(|(name, property)| (name.as_str(), kind(property, schema, 8)))
            .collect();
        let field = |name: &str, kind| Self { name: name.to_owned(), kind };
        if let Some(named) = named {
            let known = kinds.iter().find(|(name, _)| *name == named);
            if known.is_none() && !kinds.is_empty() {
                return Err(format!(
                    "its actions have no field {named:?} (env.action_field); they have {}",
                    names(&kinds)
                ));
            }
            return Ok(field(named, known.and_then(|(_, kind)| *kind).unwrap_or(Kind::Text)));
        }
        if kinds.is_empty() {
            return Ok(field(USUAL[0], Kind::Text));
        }
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let of = |kinds: &[(&str, Option<Kind>)]| -> Option<Self> {
            let texts: Vec<&str> = kinds
                .iter()
                .filter(|(_, kind)| *kind == Some(Kind::Text))
                .map(|(name, _)| *name)
                .collect();
            let usual = USUAL.iter().find(|name| texts.contains(name)).copied();
            if let Some(name) = usual.or_else(|| (texts.len() == 1).then(|| texts[0])) {
                return Some(field(name, Kind::Text));
            }
            match kinds {
                [(name, Some(kind))] => Some(field(name, *kind)),
                _ => None,
            }
        };
        let needed: Vec<_> =
            kinds.iter().filter(|(name, _)| required.contains(name)).copied().collect();
        of(&needed).or_else(|| of(&kinds)).ok_or_else(|| {
            format!(
                "its actions have the fields {}: name the one that takes the text with \
                 env.action_field",
                names(&kinds)
            )
        })
    }

    /// The action for a text.
    pub(super) fn action(&self, text: &str) -> Value {
        let typed = match self.kind {
            Kind::Text => None,
            Kind::Whole => text.trim().parse::<i64>().ok().map(Value::from),
            Kind::Number => text.trim().parse::<f64>().ok().map(Value::from),
        };
        // What is no number is the server's to refuse.
        let value = typed.filter(|v| !v.is_null()).unwrap_or_else(|| Value::from(text));
        Value::Object(Map::from_iter([(self.name.clone(), value)]))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

fn names(kinds: &[(&str, Option<Kind>)]) -> String {
    kinds.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// What a property holds; definitions and alternatives are looked into, so many levels deep.
fn kind(property: &Value, schema: &Map<String, Value>, depth: u8) -> Option<Kind> {
    let depth = depth.checked_sub(1)?;
    if let Some(name) = property.get("$ref").and_then(Value::as_str) {
        let name = name.strip_prefix("#/$defs/")?;
        return kind(schema.get("$defs")?.get(name)?, schema, depth);
    }
    for list in ["anyOf", "oneOf"] {
        if let Some(choices) = property.get(list).and_then(Value::as_array) {
            return choices.iter().take(8).find_map(|choice| kind(choice, schema, depth));
        }
    }
    match property.get("type").and_then(Value::as_str) {
        Some("string") => Some(Kind::Text),
        Some("integer") => Some(Kind::Whole),
        Some("number") => Some(Kind::Number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn choose(named: Option<&str>, action: &Value) -> Result<ActionField, String> {
        ActionField::choose(named, Some(action))
    }

    #[test]
    fn the_field_of_common_environments() {
        let text = json!({"type": "string"});
        let metadata = json!({"type": "object"});
        for (properties, required, expected) in [
            (json!({"metadata": metadata, "message": text}), json!(["message"]), "message"),
            (json!({"answer": text, "text": text}), json!(["answer"]), "answer"),
            (json!({"odd": text, "n": {"type": "integer"}}), json!([]), "odd"),
            (json!({"move": {"$ref": "#/$defs/Move"}}), json!(["move"]), "move"),
            (json!({"note": {"anyOf": [{"type": "null"}, {"type": "string"}]}}), json!([]), "note"),
            (json!({}), json!([]), "text"),
        ] {
            let schema = json!({"properties": properties, "required": required,
                "$defs": {"Move": {"enum": ["UP"], "type": "string"}}});
            assert_eq!(choose(None, &schema).unwrap().name(), expected, "{schema}");
        }
        assert_eq!(ActionField::choose(None, None).unwrap().name(), "text");
    }

    #[test]
    fn numbers_are_sent_as_numbers() {
        let schema = json!({"properties": {"action": {"type": "integer"}}, "required": ["action"]});
        let field = choose(None, &schema).unwrap();
        assert_eq!(field.action(" 3 "), json!({"action": 3}));
        assert_eq!(field.action("left"), json!({"action": "left"}));
        let schema = json!({"properties": {"x": {"type": "number"}}});
        assert_eq!(choose(None, &schema).unwrap().action("0.5"), json!({"x": 0.5}));
        assert_eq!(choose(None, &schema).unwrap().action("nan"), json!({"x": "nan"}));
    }

    #[test]
    fn what_cannot_be_chosen_is_asked_for() {
        let text = json!({"type": "string"});
        let schema = json!({"properties": {"a": text, "b": text}});
        let error = choose(None, &schema).unwrap_err();
        assert!(error.contains("a, b") && error.contains("env.action_field"), "{error}");
        let error = choose(Some("c"), &schema).unwrap_err();
        assert!(error.contains("\"c\"") && error.contains("a, b"), "{error}");
        assert_eq!(choose(Some("b"), &schema).unwrap().name(), "b");
        // Schemas that refer to themselves end.
        let endless = json!({"properties": {"a": {"$ref": "#/$defs/A"}},
            "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}}});
        assert!(choose(None, &endless).is_err());
    }
}
