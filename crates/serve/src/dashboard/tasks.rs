//! The tasks of a run's evaluations: which they were, and how the initial policy did where the run
//! knows.

use std::collections::BTreeMap;
use std::path::Path;

use empg_run::Run;
use serde_json::{Map, Value, json};

use super::board::RunView;
use super::scan::is_within;

/// Tasks of a panel that are sent.
const MOST: usize = 10_000;

/// Panels and evaluations as JSON.
pub(super) fn tasks(root: &Path, view: &RunView) -> Value {
    let evaluations: Vec<Value> = view
        .data
        .iter()
        .flat_map(|data| &data.evaluations)
        .map(|(step, splits)| json!({ "step": step, "splits": splits }))
        .collect();
    let mut notes: Vec<String> = Vec::new();
    let mut panels = Vec::new();
    match Run::open(&view.path) {
        Ok(run) => {
            let outcomes = outcomes(root, &run);
            for name in run.panels().unwrap_or_default() {
                let path = view.path.join("panels").join(format!("{name}.jsonl"));
                if !is_within(root, &path) {
                    notes.push(format!("{name}: a link that leads out of the folder"));
                    continue;
                }
                match run.panel(&name) {
                    Ok(lines) => panels.push(panel(&name, &lines, &outcomes)),
                    Err(error) => notes.push(error.to_string()),
                }
            }
        }
        Err(error) => notes.push(error.to_string()),
    }
    json!({ "evaluations": evaluations, "panels": panels, "notes": notes })
}

fn panel(name: &str, lines: &[Map<String, Value>], outcomes: &BTreeMap<String, bool>) -> Value {
    let text = |line: &Map<String, Value>, key: &str| {
        line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let tasks: Vec<Value> = lines
        .iter()
        .take(MOST)
        .map(|line| {
            let id = text(line, "id");
            let won = outcomes.get(&id);
            json!({ "id": id, "kind": text(line, "kind"), "won_before": won })
        })
        .collect();
    json!({ "name": name, "count": lines.len(), "tasks": tasks })
}

/// Which tasks the initial policy won, of those that were kept for the entropy dynamics.
fn outcomes(root: &Path, run: &Run) -> BTreeMap<String, bool> {
    if !is_within(root, &run.path().join("analyses/entropy-dynamics.jsonl")) {
        return BTreeMap::new();
    }
    let lines = run.analysis("entropy-dynamics").unwrap_or_default();
    lines
        .iter()
        .filter_map(|l| Some((l.get("task")?.as_str()?.to_owned(), l.get("won")?.as_bool()?)))
        .collect()
}
