//! Episodes with the credit of every step, as the credit viewer shows them: from a run's recorded
//! trajectories, or from any trainer's lines as `empg advantage` writes them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use empg_run::TrajectoryRow;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arms::four_digits;
pub use crate::vocabulary::Vocabulary;
use crate::vocabulary::spoken_tokens;

/// One agent step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Turn {
    /// What the agent saw.
    pub observation: String,
    /// What it did.
    pub action: String,
    /// Sampled tokens as text, where they are known; together they are what was written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
    /// Entropy of each sampled token (nats).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entropies: Vec<f64>,
    /// H: mean entropy of the step (nats).
    pub h: f64,
    /// H normalised over the batch.
    pub h_norm: f64,
    /// Factor of the base advantage.
    pub g: f64,
    /// f of the next step.
    pub f_next: Option<f64>,
    /// Base advantage A.
    pub base: f64,
    /// Future-clarity bonus.
    pub bonus: f64,
    /// Subtracted batch mean.
    pub centring: f64,
    /// Final advantage.
    pub advantage: f64,
}

/// One episode.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Episode {
    /// Where it comes from: a run's name or a file's; no two of a page have the same ([`sources`]).
    pub source: String,
    /// Training step; 0 where there is none.
    pub step: u64,
    /// Rollouts of one task share it.
    pub group: String,
    /// Which rollout of the group.
    pub rollout: u32,
    /// The task.
    pub task: String,
    /// Its type.
    pub kind: String,
    /// The episode's return.
    pub reward: Option<f64>,
    /// Whether it was won; by the sign of the return where nobody said.
    pub won: bool,
    /// How it ended.
    pub end: String,
    /// The steps.
    pub turns: Vec<Turn>,
}

/// Lines that hold no credited trajectory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpisodesError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A line that is no credited trajectory.
    #[error("{path}:{line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// Names for runs and files, no two alike: the last part of each path, with the folder where
/// several end alike, and with a number where that is not enough.
pub fn sources(paths: &[PathBuf]) -> Vec<String> {
    let of = |path: &Path| {
        path.file_name()
            .map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
    };
    let mut counts: HashMap<String, usize> = HashMap::new();
    for path in paths {
        *counts.entry(of(path)).or_default() += 1;
    }
    let mut taken = HashSet::new();
    paths
        .iter()
        .map(|path| {
            let last = of(path);
            let folder = path.parent().and_then(Path::file_name).filter(|_| counts[&last] > 1);
            let name = folder.map_or_else(
                || last.clone(),
                |folder| format!("{}/{last}", folder.to_string_lossy()),
            );
            let mut unique = name.clone();
            let mut number = 1;
            while !taken.insert(unique.clone()) {
                number += 1;
                unique = format!("{name} ({number})");
            }
            unique
        })
        .collect()
}

/// The episodes of rows that stand episode by episode; the vocabulary gives tokens their texts.
pub fn of_rows(source: &str, rows: &[TrajectoryRow], vocabulary: &Vocabulary) -> Vec<Episode> {
    let mut episodes: Vec<Episode> = Vec::new();
    let mut last = None;
    for row in rows {
        let key = (row.step, row.group, row.rollout);
        if last != Some(key) {
            last = Some(key);
            episodes.push(Episode {
                source: source.to_owned(),
                step: row.step,
                group: row.group.to_string(),
                rollout: row.rollout,
                task: row.task.clone(),
                kind: row.kind.clone(),
                reward: Some(row.reward),
                won: row.won,
                end: row.end.clone(),
                turns: Vec::new(),
            });
        }
        let turn = Turn {
            observation: row.observation.clone(),
            action: row.action.clone(),
            tokens: vocabulary.texts(&row.tokens),
            entropies: row.entropy.iter().map(|h| four_digits(f64::from(*h))).collect(),
            h: four_digits(row.h),
            h_norm: four_digits(row.h_norm),
            g: four_digits(row.g),
            f_next: row.f_next.map(four_digits),
            base: four_digits(row.base),
            bonus: four_digits(row.bonus),
            centring: four_digits(row.centring),
            advantage: four_digits(row.advantage),
        };
        if let Some(episode) = episodes.last_mut() {
            episode.turns.push(turn);
        }
    }
    episodes
}

/// Reads the lines that `empg advantage` writes: `credit` per step, with `messages` or `tokens_text`
/// where the conversation is to be shown.
///
/// # Errors
/// A file that cannot be read; a line (but an unfinished last one) that is no JSON object or has no
/// `credit`.
pub fn of_lines(source: &str, path: &Path) -> Result<(Vec<Episode>, Vec<String>), EpisodesError> {
    let fail = |source| EpisodesError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(fail)?);
    let (mut episodes, mut notes) = (Vec::new(), Vec::new());
    let mut unlike = Vec::new();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        if reader.read_line(&mut text).map_err(fail)? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        let bad = |what: String| EpisodesError::Line { path: path.to_owned(), line, what };
        let object: Map<String, Value> = match serde_json::from_str(&text) {
            Ok(object) => object,
            Err(_) if !text.ends_with('\n') => {
                notes.push(format!("{}:{line}: the last line is cut off", path.display()));
                break;
            }
            Err(error) => return Err(bad(format!("this is no JSON object: {}", in_line(&error)))),
        };
        let (episode, fits) =
            of_line(source, line, &object).map_err(|what| bad(what.to_owned()))?;
        episodes.push(episode);
        if !fits {
            unlike.push(line);
        }
    }
    if let Some(first) = unlike.first() {
        notes.push(format!(
            "{}: {} line{} (the first is {first}) with fewer answers in \"messages\" than steps in \
             \"credit\"; they are shown by \"tokens_text\", if they have it",
            path.display(),
            unlike.len(),
            if unlike.len() == 1 { "" } else { "s" },
        ));
    }
    Ok((episodes, notes))
}

/// The episode of a line, and whether its messages fit its steps.
fn of_line(
    source: &str,
    line: usize,
    object: &Map<String, Value>,
) -> Result<(Episode, bool), &'static str> {
    let credit = object
        .get("credit")
        .and_then(Value::as_array)
        .ok_or("there is no \"credit\": pass the lines through `empg advantage` first")?;
    let entropy = object.get("entropy").and_then(Value::as_array);
    let tokens = object.get("tokens_text").and_then(Value::as_array);
    let tokens = tokens.map(|tokens| spoken_tokens(tokens)).unwrap_or_default();
    let messages = object.get("messages").and_then(Value::as_array);
    let conversation = messages.map(|messages| exchanges(messages, credit.len()));
    let fits = !matches!(conversation, Some(None));
    let mut conversation = conversation.flatten().unwrap_or_default().into_iter();
    let mut turns = Vec::with_capacity(credit.len());
    let mut seen = 0;
    for step in credit {
        let value = |name: &str| step.get(name).and_then(Value::as_f64);
        let need = |name: &str| value(name).map(four_digits);
        let advantage = need("advantage").ok_or("a step of \"credit\" has no \"advantage\"")?;
        let start = value("start").map_or(seen, |v| v as usize);
        let end = value("end").map_or(start, |v| v as usize);
        let text = |from, to| tokens.get(from..to).unwrap_or_default();
        let own = text(start, end).to_vec();
        let (observation, action) = conversation
            .next()
            .unwrap_or_else(|| (text(seen.min(start), start).concat(), own.concat()));
        seen = end;
        turns.push(Turn {
            observation,
            action,
            tokens: own,
            entropies: entropy
                .and_then(|all| all.get(start..end))
                .unwrap_or_default()
                .iter()
                .map(|h| h.as_f64().map_or(0.0, four_digits))
                .collect(),
            h: need("entropy").unwrap_or_default(),
            h_norm: need("h_norm").unwrap_or_default(),
            g: need("g").unwrap_or(1.0),
            f_next: need("f_next"),
            base: need("base").unwrap_or(advantage),
            bonus: need("bonus").unwrap_or_default(),
            centring: need("centring").unwrap_or_else(|| {
                let parts = need("base").unwrap_or(advantage) * need("g").unwrap_or(1.0);
                four_digits(parts + need("bonus").unwrap_or_default() - advantage)
            }),
            advantage,
        });
    }
    let reward = object.get("reward").and_then(Value::as_f64);
    let name = |key: &str| object.get(key).filter(|value| !value.is_null()).map(plain);
    let episode = Episode {
        source: source.to_owned(),
        step: object.get("step").and_then(Value::as_u64).unwrap_or_default(),
        group: name("group").unwrap_or_else(|| "0".to_owned()),
        rollout: line as u32,
        task: name("task").or_else(|| name("group")).unwrap_or_else(|| format!("line {line}")),
        kind: name("kind").unwrap_or_default(),
        reward,
        won: object
            .get("won")
            .and_then(Value::as_bool)
            .unwrap_or_else(|| reward.is_some_and(|r| r > 0.0)),
        end: name("end").unwrap_or_default(),
        turns,
    };
    Ok((episode, fits))
}

/// (what was said to the agent, what it answered) at each of `steps` steps. The steps are the last
/// answers: those before them are examples that a prompt brought, and part of what was said. `None`
/// where there are fewer answers than steps, so that nothing tells which belongs to which.
fn exchanges(messages: &[Value], steps: usize) -> Option<Vec<(String, String)>> {
    let answers =
        |message: &Value| message.get("role").and_then(Value::as_str) == Some("assistant");
    let all = messages.iter().filter(|message| answers(message)).count();
    let mut examples = all.checked_sub(steps)?;
    let mut turns = Vec::with_capacity(steps);
    let mut heard = String::new();
    for message in messages {
        let text = spoken(message);
        if answers(message) && examples == 0 {
            turns.push((std::mem::take(&mut heard), text));
            continue;
        }
        examples -= usize::from(answers(message));
        if !heard.is_empty() && !text.is_empty() {
            heard.push('\n');
        }
        heard.push_str(&text);
    }
    Some(turns)
}

/// What a message says: its text, or the texts among its parts, then a line for each tool it calls.
fn spoken(message: &Value) -> String {
    let mut text = match message.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.as_str().or_else(|| part.get("text").and_then(Value::as_str)))
            .collect(),
        Some(other) => plain(other),
    };
    for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        let function = call.get("function").unwrap_or(call);
        let part = |key: &str| function.get(key).filter(|v| !v.is_null()).map(plain);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&part("name").unwrap_or_default());
        text.push('(');
        text.push_str(&part("arguments").unwrap_or_default());
        text.push(')');
    }
    text
}

/// What is wrong with a line's JSON and where; which line it is is told beside it.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    if error.column() == 0 {
        what.to_owned()
    } else {
        format!("{what} (column {})", error.column())
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<Episode>, Vec<String>), EpisodesError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        std::fs::write(&path, text).unwrap();
        of_lines("t.jsonl", &path)
    }

    const LINE: &str = r#"{"group": "a", "reward": 1, "entropy": [0.5, 0.1, 0.2, 0.3], "tokens_text": ["see", "go", " on", "stop"], "credit": [{"start": 1, "end": 3, "advantage": 0.7, "base": 1.0, "g": 0.8, "entropy": 0.15, "h_norm": 0.1, "bonus": 0.0, "centring": 0.1, "f_next": null}]}"#;

    #[test]
    fn tokens_or_messages_are_the_conversation() {
        let (episodes, notes) = read(&format!("{LINE}\n\n{{\"cut")).unwrap();
        assert_eq!(notes.len(), 1);
        let turn = &episodes[0].turns[0];
        assert_eq!((turn.observation.as_str(), turn.action.as_str()), ("see", "go on"));
        assert_eq!((turn.entropies.as_slice(), turn.advantage), (&[0.1, 0.2][..], 0.7));
        assert!(episodes[0].won);
        let messages = r#""messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "<b>"}], "credit""#;
        let (episodes, _) = read(&LINE.replacen("\"credit\"", messages, 1)).unwrap();
        let turn = &episodes[0].turns[0];
        assert_eq!((turn.observation.as_str(), turn.action.as_str()), ("s\nu", "<b>"));
    }

    /// A line with these messages and as many steps as `advantages`.
    fn chat(messages: &Value, advantages: &[f64], more: &str) -> String {
        let credit: Vec<Value> = advantages
            .iter()
            .enumerate()
            .map(|(i, a)| serde_json::json!({"start": i, "end": i + 1, "advantage": a}))
            .collect();
        let credit = Value::from(credit);
        format!("{{\"reward\": 1, {more} \"messages\": {messages}, \"credit\": {credit}}}\n")
    }

    #[test]
    fn credit_stands_at_the_last_answers() {
        let messages = serde_json::json!([
            {"role": "system", "content": "rules"},
            {"role": "user", "content": "example?"},
            {"role": "assistant", "content": "example!"},
            {"role": "user", "content": "u1"},
            {"role": "assistant", "content": "a1"},
            {"role": "user", "content": "u2"},
            {"role": "assistant", "content": "a2"},
        ]);
        let (episodes, notes) = read(&chat(&messages, &[0.5, -0.5], "")).unwrap();
        let turns: Vec<(&str, &str)> =
            episodes[0].turns.iter().map(|t| (t.observation.as_str(), t.action.as_str())).collect();
        assert_eq!(turns, [("rules\nexample?\nexample!\nu1", "a1"), ("u2", "a2")]);
        assert!(notes.is_empty(), "{notes:?}");

        // Fewer answers than steps: the tokens are right, and a note says why they are shown.
        let tokens = r#""tokens_text": ["t1", "t2", "t3", "t4"],"#;
        let line = chat(&messages, &[0.1, 0.2, 0.3, 0.4], tokens);
        let (episodes, notes) = read(&format!("{LINE}\n{line}{line}")).unwrap();
        let actions: Vec<&str> = episodes[1].turns.iter().map(|t| t.action.as_str()).collect();
        assert_eq!(actions, ["t1", "t2", "t3", "t4"]);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("2 lines (the first is 2)"), "{notes:?}");
    }

    #[test]
    fn messages_show_their_parts_and_their_calls() {
        let messages = serde_json::json!([
            {"role": "user", "content": [
                {"type": "text", "text": "look "}, {"type": "image_url", "image_url": {}}, "here"
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"type": "function", "function": {"name": "go", "arguments": "{\"to\": 1}"}},
                {"name": "stop", "arguments": {"now": true}}
            ]},
            {"role": "tool", "content": null},
            {"role": "assistant", "content": "done"},
        ]);
        let (episodes, _) = read(&chat(&messages, &[0.5, 0.5], "\"kind\": null,")).unwrap();
        let turns = &episodes[0].turns;
        assert_eq!(turns[0].observation, "look here");
        assert_eq!(turns[0].action, "go({\"to\": 1})\nstop({\"now\":true})");
        assert_eq!((turns[1].observation.as_str(), turns[1].action.as_str()), ("", "done"));
        assert_eq!(episodes[0].kind, "");
    }

    #[test]
    fn lines_without_credit_are_refused_with_their_number() {
        let error = read(&format!("{LINE}\n{{\"reward\": 1}}\n")).unwrap_err().to_string();
        assert!(error.contains("t.jsonl:2") && error.contains("empg advantage"), "{error}");
        let error = read("[]\n").unwrap_err().to_string();
        assert!(error.contains("t.jsonl:1"), "{error}");
        assert!(matches!(of_lines("x", Path::new("nowhere")), Err(EpisodesError::Read { .. })));
    }

    #[test]
    fn no_two_sources_have_one_name() {
        let of = |paths: &[&str]| sources(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["runs/a", "b"]), ["a", "b"]);
        assert_eq!(of(&["x/s0", "y/s0", "s1"]), ["x/s0", "y/s0", "s1"]);
        assert_eq!(of(&["x/s0", "z/x/s0", "s0"]), ["x/s0", "x/s0 (2)", "s0"]);
        assert_eq!(of(&["a.jsonl", "a.jsonl"]), ["a.jsonl", "a.jsonl (2)"]);
    }

    #[test]
    fn tokens_of_lines_are_read_as_their_text() {
        let of = |tokens: &str| {
            let line = LINE.replacen(r#"["see", "go", " on", "stop"]"#, tokens, 1);
            let (episodes, _) = read(&format!("{line}\n")).unwrap();
            let turn = episodes.into_iter().next().unwrap().turns.remove(0);
            (turn.observation, turn.action, turn.tokens)
        };
        let (observation, action, tokens) = of(r#"["Ġsee", "Ġgr", "Ã¼n", "<|im_end|>"]"#);
        assert_eq!((observation.as_str(), action.as_str()), (" see", " grün"));
        assert_eq!(tokens, [" gr", "ün"]);
        assert_eq!(of(r#"["see", "▁go", "ne", "x"]"#).1, " gone");
        // Texts with blanks in them are no tokenizer's own.
        assert_eq!(of(r#"["see", "Ġurnata", " ta", "x"]"#).1, "Ġurnata ta");
    }
}
