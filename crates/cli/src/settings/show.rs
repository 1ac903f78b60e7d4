//! A configuration as TOML with a comment above every key.

use std::fmt::Write as _;

use empg_train::Config;
use toml::{Table, Value};

use super::keys::KEYS;

/// The configuration as a table.
pub(crate) fn table(config: &Config) -> anyhow::Result<Table> {
    // Through text, so that an f32 reads 0.7 and not 0.699999988.
    Ok(toml::from_str(&toml::to_string(config)?)?)
}

/// The configuration as commented TOML; open keys stand there commented out.
pub(crate) fn commented(config: &Config) -> anyhow::Result<String> {
    written(config, &|_, _| true)
}

/// A file to edit: what is not as it usually is stands in it, and the choices that everything else
/// follows from. The rest is commented out, so that another environment, model or recipe decides it.
pub(crate) fn template(config: &Config, usual: &Config) -> anyhow::Result<String> {
    let usual = table(usual)?;
    let chosen = ["seed", "env.name", "model.path", "algo.name", "empg.enabled"];
    written(config, &|name, value| chosen.contains(&name) || lookup(&usual, name) != Some(value))
}

/// The configuration as commented TOML, in which keys count where `counts` says so.
fn written(config: &Config, counts: &dyn Fn(&str, &Value) -> bool) -> anyhow::Result<String> {
    let table = table(config)?;
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            text.push_str("\n[");
            text.push_str(section);
            text.push_str("]\n");
        }
        text.push_str("# ");
        text.push_str(key.meaning);
        text.push('\n');
        let _ = match lookup(&table, key.name) {
            Some(value) if counts(key.name, value) => writeln!(text, "{} = {value}", key.leaf()),
            Some(value) => writeln!(text, "# {} = {value}", key.leaf()),
            None => writeln!(text, "# {} =", key.leaf()),
        };
    }
    Ok(text)
}

fn lookup<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    let mut parts = name.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described_and_every_description_is_of_a_key() {
        let mut config = Config::default().resolve().unwrap();
        config.env.data = Some("data".into());
        config.env.corpus = Some("passages.jsonl".into());
        config.env.url = Some("http://localhost:8000".into());
        config.env.command = Some("python env.py".into());
        config.env.action_field = Some("message".into());
        config.env.observation_field = Some("message".into());
        config.env.reset.insert("split".into(), "{split}".into());
        config.model.lora = Some(empg_llm::LoraConfig::default());
        config.model.tape_gb = 0.5;
        config.rollout.top_k = Some(5);
        config.rollout.top_p = Some(0.7);
        config.reward.overlong = Some(empg::Overlong { max: 10, buffer: 5, penalty: 1.0 });
        let table = table(&config).unwrap();
        for key in KEYS {
            assert!(lookup(&table, key.name).is_some(), "{} is no key", key.name);
        }
        let leaves: usize = table.iter().map(|(_, v)| v.as_table().map_or(1, Table::len)).sum();
        assert_eq!(leaves, KEYS.len());
        let text = commented(&config).unwrap();
        assert!(text.contains("\ntop_p = 0.7\n"), "{text}");
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }
}
