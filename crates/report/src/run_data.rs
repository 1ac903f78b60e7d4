//! What a report knows about a run: read once, leniently. A run that is still being written, or of
//! an older version, shows what it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use empg_run::Run;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::dynamics::{Bin, bins};
use crate::study::{SplitResult, split_results};

/// Bins of the entropy dynamics.
const BINS: usize = 20;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunData {
    /// The directory's name.
    pub name: String,
    /// The directory.
    #[serde(skip)]
    pub path: PathBuf,
    /// Facts that the run recorded about itself: version, environment, algorithm, seed.
    pub info: Map<String, Value>,
    /// The resolved settings by dotted key, as text.
    pub settings: BTreeMap<String, String>,
    /// The steps of the curves' points.
    pub steps: Vec<f64>,
    /// Curves by metric, one value a step; NaN where a step has none.
    #[serde(skip)]
    pub curves: BTreeMap<String, Vec<f64>>,
    /// Evaluations by step: (step, one result per split).
    pub evaluations: Vec<(f64, Vec<SplitResult>)>,
    /// Step entropy before and after training.
    pub entropy_dynamics: Vec<Bin>,
    /// Steps whose trajectories were recorded.
    pub recorded: Vec<u64>,
    /// Whether the last step of the settings is committed.
    pub finished: bool,
    /// What could not be read, in words.
    pub notes: Vec<String>,
}

impl RunData {
    /// Reads a run.
    ///
    /// # Errors
    /// A directory that is no run, or whose metrics are damaged.
    pub fn read(path: &Path) -> Result<Self, empg_run::RunError> {
        let run = Run::open(path)?;
        let mut notes = Vec::new();
        let metrics = run.metrics()?;
        let settings = match run.config().map(|text| text.parse::<toml::Table>()) {
            Ok(Ok(table)) => {
                let mut flat = BTreeMap::new();
                flatten("", &toml::Value::Table(table), &mut flat);
                flat
            }
            Ok(Err(error)) => {
                notes.push(format!("config.toml is not TOML: {error}"));
                BTreeMap::new()
            }
            Err(error) => {
                notes.push(error.to_string());
                BTreeMap::new()
            }
        };
        let timings = run.timings().unwrap_or_else(|error| {
            notes.push(error.to_string());
            Vec::new()
        });

        let mut steps = Vec::new();
        let mut curves: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut evaluations = Vec::new();
        for line in &metrics {
            let step = number(line, "step").unwrap_or(f64::NAN);
            if let Some(results) = line.get("eval").and_then(split_results) {
                evaluations.push((step, results));
            }
            if step > 0.0 {
                steps.push(step);
                for (key, value) in line {
                    if let Some(value) = value.as_f64().filter(|_| key != "step") {
                        put(&mut curves, key, steps.len(), value);
                    }
                }
            }
        }
        for line in &timings {
            let Some(step) = number(line, "step") else { continue };
            let Some(at) = steps.iter().position(|s| *s == step) else { continue };
            for (key, value) in line {
                if let Some(value) = value.as_f64().filter(|_| key != "step") {
                    put(&mut curves, key, at + 1, value);
                }
            }
        }
        for values in curves.values_mut() {
            values.resize(steps.len(), f64::NAN);
        }

        let entropy_dynamics = match run.analysis("entropy-dynamics") {
            Ok(table) => {
                let pairs =
                    table.iter().filter_map(|l| Some((number(l, "before")?, number(l, "after")?)));
                bins(pairs, BINS)
            }
            Err(_) => Vec::new(),
        };
        let planned = settings.get("steps").and_then(|s| s.parse::<f64>().ok());
        Ok(Self {
            name: path.file_name().map_or_else(
                || path.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            ),
            path: path.to_owned(),
            info: match run.manifest().info() {
                Value::Object(info) => info,
                _ => Map::new(),
            },
            finished: planned.is_none_or(|n| steps.last().is_some_and(|s| *s >= n)),
            recorded: run.manifest().trajectories.iter().map(|t| t.step).collect(),
            settings,
            steps,
            curves,
            evaluations,
            entropy_dynamics,
            notes,
        })
    }

    /// The results of a split before training.
    pub fn before(&self, split: &str) -> Option<&SplitResult> {
        let (_, first) = self.evaluations.iter().find(|(step, _)| *step == 0.0)?;
        first.iter().find(|r| r.split == split)
    }

    /// The newest results of a split after step 0.
    pub fn after(&self, split: &str) -> Option<&SplitResult> {
        let (_, last) = self.evaluations.iter().rev().find(|(step, _)| *step > 0.0)?;
        last.iter().find(|r| r.split == split)
    }

    /// The splits that were evaluated, in order.
    pub fn splits(&self) -> Vec<String> {
        let last = self.evaluations.last();
        last.map(|(_, r)| r.iter().map(|r| r.split.clone()).collect()).unwrap_or_default()
    }
}

/// Puts a value at the `count`-th point of a curve that may be shorter.
fn put(curves: &mut BTreeMap<String, Vec<f64>>, key: &str, count: usize, value: f64) {
    if !curves.contains_key(key) {
        curves.insert(key.to_owned(), Vec::new());
    }
    if let Some(curve) = curves.get_mut(key) {
        if curve.len() < count {
            curve.resize(count, f64::NAN);
        }
        curve[count - 1] = value;
    }
}

fn number(line: &Map<String, Value>, name: &str) -> Option<f64> {
    line.get(name).and_then(Value::as_f64)
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, into);
            }
        }
        toml::Value::String(text) => {
            into.insert(prefix.to_owned(), text.clone());
        }
        other => {
            into.insert(prefix.to_owned(), other.to_string());
        }
    }
}
