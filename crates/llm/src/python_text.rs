//! Values as Python prints them: templates were written for Jinja2, which runs in Python.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};

/// How `json.dumps` is asked to write.
#[derive(Clone, Debug)]
pub(crate) struct JsonStyle {
    pub(crate) indent: Option<usize>,
    pub(crate) sort_keys: bool,
    pub(crate) ascii: bool,
    /// Between items, and between key and value; Python's depend on `indent`.
    pub(crate) separators: Option<(String, String)>,
}

/// Levels of values within values that are printed, as many as are read from JSON: a template can
/// build any number of them, and the stack is finite.
const DEEPEST: usize = 128;
/// Bytes of one printed value: a template can repeat a list as often as it likes.
const LONGEST: usize = 32 << 20;

/// Refuses what a template can build without end.
fn in_bounds(depth: usize, out: &str) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("lists or mappings within one another on more than {DEEPEST} levels"));
    }
    if out.len() > LONGEST {
        return Err(format!("a value that is printed in more than {LONGEST} bytes"));
    }
    Ok(())
}

/// What `str(value)` gives.
///
/// # Errors
/// Values within values on too many levels, texts that are too long.
pub(crate) fn text(value: &Value) -> Result<String, String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut out = String::new();
            repr(value, 0, &mut out)?;
            Ok(out)
        }
    }
}

fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), String> {
    in_bounds(depth, out)?;
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out),
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&item, depth + 1, out)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or(Value::UNDEFINED), depth + 1, out)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// A string as `repr` writes it: in single quotes unless only those occur in it.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn number(value: &Value, out: &mut String) {
    if value.is_integer() {
        out.push_str(&value.to_string());
        return;
    }
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    // The shortest digits that read back, with the thresholds of Rust's debug form, which are
    // Python's; only the exponent is spelt differently.
    let text = if number.is_nan() { "nan".to_owned() } else { format!("{number:?}") };
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) =
                exponent.strip_prefix('-').map_or(("+", exponent), |rest| ("-", rest));
            let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
        }
        None => out.push_str(&text),
    }
}

/// What `json.dumps(value)` gives.
///
/// # Errors
/// A value that JSON has no form for, values within values on too many levels, texts that are too long.
pub(crate) fn json(value: &Value, style: &JsonStyle) -> Result<String, String> {
    let mut out = String::new();
    write_json(value, style, 0, &mut out)?;
    Ok(out)
}

fn write_json(
    value: &Value,
    style: &JsonStyle,
    depth: usize,
    out: &mut String,
) -> Result<(), String> {
    in_bounds(depth, out)?;
    let (item_end, colon) = match &style.separators {
        Some((item, key)) => (item.as_str(), key.as_str()),
        None if style.indent.is_some() => (",", ": "),
        None => (", ", ": "),
    };
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = style.indent {
            out.push('\n');
            // Once more than is allowed, the next value is refused.
            out.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth).min(LONGEST)));
        }
    };
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let mut text = String::new();
            number(value, &mut text);
            out.push_str(match text.as_str() {
                "nan" => "NaN",
                "inf" => "Infinity",
                "-inf" => "-Infinity",
                finite => finite,
            });
        }
        ValueKind::String => json_string(value.as_str().unwrap_or_default(), style.ascii, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut empty = true;
            out.push('[');
            for item in value.try_iter().map_err(|e| e.to_string())? {
                out.push_str(if empty { "" } else { item_end });
                empty = false;
                line(out, depth + 1);
                write_json(&item, style, depth + 1, out)?;
            }
            if !empty {
                line(out, depth);
            }
            out.push(']');
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter().map_err(|e| e.to_string())?.collect();
            if style.sort_keys {
                keys.sort_by_cached_key(|key| text(key).unwrap_or_default());
            }
            out.push('{');
            for (i, key) in keys.iter().enumerate() {
                out.push_str(if i > 0 { item_end } else { "" });
                line(out, depth + 1);
                let name = match key.kind() {
                    ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                    ValueKind::None => "null".to_owned(),
                    ValueKind::Bool => key.is_true().to_string(),
                    ValueKind::Number => text(key)?,
                    kind => return Err(format!("a key of kind {kind} has no form in JSON")),
                };
                json_string(&name, style.ascii, out);
                out.push_str(colon);
                let item = value.get_item(key).map_err(|e| e.to_string())?;
                write_json(&item, style, depth + 1, out)?;
            }
            if !keys.is_empty() {
                line(out, depth);
            }
            out.push('}');
        }
        kind => return Err(format!("a value of kind {kind} has no form in JSON")),
    }
    Ok(())
}

fn json_string(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || (ascii && !c.is_ascii()) || (ascii && c == '\u{7f}') => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn texts_are_pythons() {
        for (json, python) in [
            ("null", "None"),
            ("true", "True"),
            ("-3", "-3"),
            ("2.0", "2.0"),
            ("1e22", "1e+22"),
            ("1.5e-7", "1.5e-07"),
            ("\"it's\"", "it's"),
            (
                r#"["it's", "a\"b", "x\n", [null, false]]"#,
                r#"["it's", 'a"b', 'x\n', [None, False]]"#,
            ),
            (r#"{"z": 1, "a": {"b": 0.1}}"#, "{'z': 1, 'a': {'b': 0.1}}"),
        ] {
            assert_eq!(text(&value(json)).as_deref(), Ok(python));
        }
        assert_eq!(text(&Value::UNDEFINED).as_deref(), Ok(""));
    }

    #[test]
    fn json_keeps_the_order_of_keys_and_pythons_spaces() {
        let plain = JsonStyle { indent: None, sort_keys: false, ascii: false, separators: None };
        let v = value(r#"{"b":[1,2.50,"é<\u0001"],"a":{},"c":[]}"#);
        assert_eq!(
            json(&v, &plain).as_deref(),
            Ok(r#"{"b": [1, 2.5, "é<\u0001"], "a": {}, "c": []}"#)
        );
        let styled = JsonStyle { indent: Some(2), sort_keys: true, ascii: true, separators: None };
        assert_eq!(
            json(&v, &styled).as_deref(),
            Ok(
                "{\n  \"a\": {},\n  \"b\": [\n    1,\n    2.5,\n    \"\\u00e9<\\u0001\"\n  ],\n  \"c\": []\n}"
            )
        );
        let tight = JsonStyle { separators: Some((",".into(), ":".into())), ..plain.clone() };
        assert_eq!(json(&v, &tight).as_deref(), Ok(r#"{"b":[1,2.5,"é<\u0001"],"a":{},"c":[]}"#));
        assert!(json(&Value::UNDEFINED, &plain).is_err());
    }
}
