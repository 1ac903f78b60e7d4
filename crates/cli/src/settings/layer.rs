//! One layer of settings: TOML text whose every key and value is checked with its place.

use std::fmt;
use std::path::{Path, PathBuf};

use empg_train::Config;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::keys;

/// Where a layer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A preset in the binary.
    Preset(&'static str),
    /// A file.
    File(PathBuf),
    /// `--set`, as it was given.
    Flag(String),
}

impl Origin {
    /// The place of a byte of the layer's text.
    fn at(&self, text: &str, offset: Option<usize>) -> Place {
        let line = match (self, offset) {
            (Self::Flag(_), _) | (_, None) => None,
            (_, Some(at)) => Some(text[..at.min(text.len())].matches('\n').count() + 1),
        };
        Place { origin: self.clone(), line }
    }
}

/// A layer and the line in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    origin: Origin,
    line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Preset(name) => write!(f, "preset {name}")?,
            Origin::File(path) => write!(f, "{}", path.display())?,
            Origin::Flag(text) => write!(f, "--set {text}")?,
        }
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A file that cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Text that is not TOML.
    #[error("{place}: this is not TOML: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// The parser's reason.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: there is no key `{key}`{}", suggestion(*nearest))]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type.
    #[error("{place}: `{key}` {message}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What was found and what is expected.
        message: String,
    },
    /// `--set` without `=`.
    #[error("--set {text}: write KEY=VALUE, for example --set optim.lr=1e-4")]
    NotAnAssignment {
        /// What was given.
        text: String,
    },
    /// A value that no run could train with.
    #[error("configuration: `{key}` {what}")]
    Refused {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Conflict(String),
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; `empg config show` lists all keys".to_owned(),
    }
}

/// Reads a file as a layer.
pub(crate) fn read(path: &Path) -> Result<Table, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    parse(&text, &Origin::File(path.to_owned()))
}

/// Reads `KEY=VALUE` as a layer. The value is TOML; anything else is a string.
pub(crate) fn assignment(text: &str) -> Result<Table, SettingsError> {
    let origin = Origin::Flag(text.to_owned());
    let refuse = || SettingsError::NotAnAssignment { text: text.to_owned() };
    let (key, value) = text.split_once('=').ok_or_else(refuse)?;
    let (key, value) = (key.trim(), value.trim());
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if !key.split('.').all(plain) {
        return Err(refuse());
    }
    let typed = format!("{key} = {value}");
    // A value with a line break could carry further keys.
    let is_toml = !value.contains('\n') && DeTable::parse(&typed).is_ok();
    let line = if is_toml { typed } else { format!("{key} = {}", Value::String(value.to_owned())) };
    parse(&line, &origin)
}

/// Reads TOML text as a layer and checks every key and value.
pub(crate) fn parse(text: &str, origin: &Origin) -> Result<Table, SettingsError> {
    let syntax = |error: &toml::de::Error| SettingsError::Syntax {
        place: origin.at(text, error.span().map(|s| s.start)),
        message: error.message().to_owned(),
    };
    let spanned = DeTable::parse(text).map_err(|e| syntax(&e))?;
    let table: Table = toml::from_str(text).map_err(|e| syntax(&e))?;
    check(spanned.get_ref(), &table, "", &|at| origin.at(text, Some(at)))?;
    Ok(table)
}

fn check(
    spanned: &DeTable<'_>,
    table: &Table,
    prefix: &str,
    place: &dyn Fn(usize) -> Place,
) -> Result<(), SettingsError> {
    for (name, inner) in spanned {
        let place_of_key = place(name.span().start);
        let name = name.get_ref().as_ref();
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let Some(value) = table.get(name) else { continue };
        if keys::find(&key).is_some() {
            if let Err(message) = check_value(&key, value) {
                return Err(SettingsError::Value { place: place_of_key, key, message });
            }
        } else if keys::is_section(&key) {
            if let (DeValue::Table(spanned), Value::Table(table)) = (inner.get_ref(), value) {
                check(spanned, table, &key, place)?;
            } else {
                let message = format!("is a section with keys of its own, found {value}");
                return Err(SettingsError::Value { place: place_of_key, key, message });
            }
        } else {
            let nearest = keys::nearest(&key);
            return Err(SettingsError::UnknownKey { place: place_of_key, key, nearest });
        }
    }
    Ok(())
}

/// Reads one key alone into a configuration: every other key has a default, so that an error is
/// this key's.
fn check_value(key: &str, value: &Value) -> Result<(), String> {
    let mut nested = value.clone();
    for part in key.rsplit('.') {
        nested = Value::Table(Table::from_iter([(part.to_owned(), nested)]));
    }
    match nested.try_into::<Config>() {
        Ok(_) => Ok(()),
        Err(error) => Err(in_words(error.message())),
    }
}

/// Serde's sentence with the names that a user of TOML knows.
fn in_words(message: &str) -> String {
    let words = [
        ("invalid type: ", "has the wrong type: found "),
        ("invalid value: ", "has a value out of range: "),
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        ("expected a boolean", "expected true or false"),
        ("expected path string", "expected a path in quotes"),
        ("expected a string", "expected text in quotes"),
        ("expected a sequence", "expected a list"),
        ("unknown variant ", "has the unknown value "),
        ("unknown field ", "has the unknown part "),
        ("missing field ", "misses the part "),
    ];
    let text = words.iter().fold(message.trim().to_owned(), |t, (from, to)| t.replace(from, to));
    if text.starts_with("has ") || text.starts_with("misses ") {
        text
    } else {
        format!("cannot be read: {text}")
    }
}

/// Puts one layer over another: tables are merged, anything else is replaced.
pub(crate) fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text, &Origin::File("empg.toml".into())).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_place_key_and_expectation() {
        assert_eq!(
            message("seed = 1\n[rollout]\ngroup_sise = 4\n"),
            "empg.toml:3: there is no key `rollout.group_sise`; did you mean `rollout.group_size`?"
        );
        assert_eq!(
            message("[rollout]\n\ngroups = \"many\"\n"),
            "empg.toml:3: `rollout.groups` has the wrong type: found string \"many\", expected a \
             whole number, 0 or more"
        );
        assert_eq!(
            message("rollout = 3"),
            "empg.toml:1: `rollout` is a section with keys of its own, found 3"
        );
        assert!(message("a = [1,\n\n").starts_with("empg.toml:"), "{}", message("a = [1,\n\n"));
        assert!(message("seed = -1").contains("seed"), "{}", message("seed = -1"));
        assert!(message("[algo]\nname = \"ppo\"").contains("`grpo`"));
    }

    #[test]
    fn values_of_set_are_toml_or_else_text() {
        let get = |text: &str, a: &str, b: &str| assignment(text).unwrap()[a][b].clone();
        assert_eq!(get("algo.name=grpo", "algo", "name"), Value::from("grpo"));
        assert_eq!(get("env.data_version = 2.1.1", "env", "data_version"), Value::from("2.1.1"));
        assert_eq!(get("optim.lr=1e-4", "optim", "lr"), Value::from(1e-4));
        assert_eq!(
            get("rollout.context={window=4}", "rollout", "context")["window"],
            Value::from(4)
        );
        for text in ["seed", "=3", "a b=3", "seed..x=1"] {
            assert!(
                matches!(assignment(text), Err(SettingsError::NotAnAssignment { .. })),
                "{text}"
            );
        }
        let many = assignment("rollout.system=a\nseed=3").unwrap();
        assert_eq!(many["rollout"]["system"], Value::from("a\nseed=3"));
    }
}
