//! The numbers of a line of metrics, under the names that charts give them.

use serde_json::{Map, Value};

/// Every number of a line with its name: nested keys are joined by `/`. An object in a list is
/// named by its split (`eval/unseen/success` for `"eval": [{"split": "unseen", …}]`), else by its
/// only text, or by its place in the list. Numbers that stand in a list by themselves, flags and
/// nulls are no scalars.
pub fn scalars(values: &Map<String, Value>) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    push(&mut found, "", values);
    found
}

fn push(found: &mut Vec<(String, f64)>, prefix: &str, values: &Map<String, Value>) {
    for (key, value) in values {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}/{key}") };
        match value {
            Value::Number(number) => found.extend(number.as_f64().map(|number| (name, number))),
            Value::Object(nested) => push(found, &name, nested),
            Value::Array(list) => {
                for (index, element) in list.iter().enumerate() {
                    let Some(nested) = element.as_object() else { continue };
                    let own = own_name(nested).map_or_else(|| index.to_string(), str::to_owned);
                    push(found, &format!("{name}/{own}"), nested);
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
}

/// The name of an object in a list. An evaluation has a second text where an episode failed, which
/// says why.
fn own_name(element: &Map<String, Value>) -> Option<&str> {
    let mut texts = element.values().filter_map(Value::as_str);
    let only = texts.next().filter(|_| texts.next().is_none());
    element.get("split").and_then(Value::as_str).or(only).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_numbers_have_names_and_the_rest_has_none() {
        let line = json!({
            "loss": 0.5, "flag": true, "note": "x", "gone": null, "list": [1, 2],
            "entropy": {"mean": 1, "by": {"heat": 2.5}},
            "eval": [
                {"split": "unseen", "success": 0.25, "by_task": {"cool": {"won": 3}}},
                {"a": "two", "b": "texts", "success": 1},
                {"failure": "the shop is closed", "split": "seen", "success": 0.5},
            ],
        });
        let found = scalars(line.as_object().unwrap());
        let expected = [
            ("entropy/by/heat", 2.5),
            ("entropy/mean", 1.0),
            ("eval/1/success", 1.0),
            ("eval/seen/success", 0.5),
            ("eval/unseen/by_task/cool/won", 3.0),
            ("eval/unseen/success", 0.25),
            ("loss", 0.5),
        ];
        let mut found: Vec<(&str, f64)> = found.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        found.sort_by(|a, b| a.0.cmp(b.0));
        assert_eq!(found, expected);
    }
}
