//! A run's configuration, flat.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// Every setting by its dotted key. A text that is no TOML has none: a tracker shows what it can.
pub(crate) fn flat(config: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Ok(table) = config.parse::<Table>() {
        push(&mut found, "", &table);
    }
    found
}

fn push(found: &mut BTreeMap<String, String>, prefix: &str, table: &Table) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(table) if !table.is_empty() => push(found, &key, table),
            Value::String(text) => {
                found.insert(key, text.clone());
            }
            other => {
                found.insert(key, other.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_flat_and_texts_bare() {
        let config = "seed = 3\n[env]\nname = \"ü\"\nreset = { split = \"{split}\" }\nempty = {}\n\
                      [optim]\nlr = 1e-4\nsplits = [\"seen\", \"unseen\"]\n";
        let found = flat(config);
        let found: Vec<(&str, &str)> =
            found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            found,
            [
                ("env.empty", "{}"),
                ("env.name", "ü"),
                ("env.reset.split", "{split}"),
                ("optim.lr", "0.0001"),
                ("optim.splits", "[\"seen\", \"unseen\"]"),
                ("seed", "3"),
            ]
        );
        assert!(flat("= nonsense").is_empty());
    }
}
