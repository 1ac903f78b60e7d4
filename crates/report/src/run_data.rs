//! What a report knows about a run: read once, leniently. A run that is still being written, or of
//! an older version, shows what it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use empg_run::{FileStamp, Run};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::coupling::{Coupling, coupling};
use crate::dynamics::{Bin, bins, pairs};
use crate::study::{Cell, SplitResult, split_results};

/// Bins of the entropy dynamics.
const BINS: usize = 20;
/// Bins of the score norms.
const COUPLING_BINS: usize = 8;
/// Files that are read again when they change: the settings, and two tables.
const CONFIG: &str = "config";
const DYNAMICS: &str = "entropy-dynamics";
const NORMS: &str = "score-norms";

/// What only an update has. Older versions wrote zeros for a step that learned nothing, where dynamic
/// sampling had dropped every group; they are read as gaps.
pub(crate) const OF_AN_UPDATE: [&str; 8] = [
    "token_entropy",
    "loss",
    "kl_reference",
    "kl_old",
    "clip_fraction",
    "max_log_ratio",
    "grad_norm",
    "lr",
];

/// Whether the step with these numbers was learned from. Where nothing counts its updates, one that
/// neither moved from the reference nor had a gradient was not.
pub(crate) fn learned(number: impl Fn(&str) -> Option<f64>) -> bool {
    match number("updates").filter(|n| !n.is_nan()) {
        Some(updates) => updates > 0.0,
        None => ["kl_reference", "grad_norm"].iter().any(|name| number(name) != Some(0.0)),
    }
}

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
    /// Score norms of the initial policy's steps.
    pub coupling: Option<Coupling>,
    /// Steps whose trajectories were recorded.
    pub recorded: Vec<u64>,
    /// Whether the last step of the settings is committed.
    pub finished: bool,
    /// What it was started on, in words; empty where that is unknown.
    pub machine: String,
    /// What could not be read, in words.
    pub notes: Vec<String>,
    /// Of which state of their files the settings and the tables are.
    #[serde(skip)]
    seen: BTreeMap<&'static str, FileStamp>,
}

impl RunData {
    /// Reads a run.
    ///
    /// # Errors
    /// A directory that is no run, or whose metrics are damaged.
    pub fn read(path: &Path) -> Result<Self, empg_run::RunError> {
        let run = Run::open(path)?;
        let metrics = run.metrics()?;
        let (timings, note) = match run.timings() {
            Ok(timings) => (timings, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let mut data = Self::of(&run, &metrics, &timings);
        data.notes.extend(note);
        Ok(data)
    }

    /// A run with these lines of its metrics and timings.
    pub fn of(run: &Run, metrics: &[Map<String, Value>], timings: &[Map<String, Value>]) -> Self {
        let path = run.path();
        let mut data = Self {
            name: path.file_name().map_or_else(
                || path.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            ),
            path: path.to_owned(),
            info: match run.manifest().info() {
                Value::Object(info) => info,
                _ => Map::new(),
            },
            settings: BTreeMap::new(),
            steps: Vec::new(),
            curves: BTreeMap::new(),
            evaluations: Vec::new(),
            entropy_dynamics: Vec::new(),
            coupling: None,
            recorded: Vec::new(),
            finished: false,
            machine: run.machine().map(|m| m.to_string()).unwrap_or_default(),
            notes: Vec::new(),
            seen: BTreeMap::new(),
        };
        data.is_new(CONFIG, run.config_stamp());
        data.read_settings(run);
        data.extend(run, metrics, timings);
        data
    }

    /// Reads the settings; where they cannot be read, a note says why and those before stay.
    fn read_settings(&mut self, run: &Run) {
        match run.config().map(|text| text.parse::<toml::Table>()) {
            Ok(Ok(table)) => {
                self.settings.clear();
                flatten("", &toml::Value::Table(table), &mut self.settings);
            }
            Ok(Err(error)) => self.note(format!("config.toml is not TOML: {error}")),
            Err(error) => self.note(error.to_string()),
        }
    }

    /// Whether a file is another than the one that was read last.
    fn is_new(&mut self, name: &'static str, stamp: Option<FileStamp>) -> bool {
        stamp.is_some_and(|stamp| self.seen.insert(name, stamp) != Some(stamp))
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds what the run has committed since: lines of its metrics and of its timings. Settings and
    /// tables that were written since (a run went on for more steps) take the place of those before.
    pub fn extend(
        &mut self,
        run: &Run,
        metrics: &[Map<String, Value>],
        timings: &[Map<String, Value>],
    ) {
        let Self { steps, curves, evaluations, .. } = self;
        for line in metrics {
            let step = number(line, "step").unwrap_or(f64::NAN);
            if let Some(results) = line.get("eval").and_then(split_results) {
                evaluations.push((step, results));
            }
            if step > 0.0 {
                steps.push(step);
                let learned = learned(|name| number(line, name));
                if !learned {
                    put(curves, "updates", steps.len(), 0.0);
                }
                for (key, value) in line {
                    let gap = key == "step" || (!learned && OF_AN_UPDATE.contains(&key.as_str()));
                    if let Some(value) = value.as_f64().filter(|_| !gap) {
                        put(curves, key, steps.len(), value);
                    }
                }
                let size = number(line, "advantage_abs").filter(|size| *size > 0.0);
                if let (Some(bonus), Some(size)) = (number(line, "bonus"), size) {
                    put(curves, "bonus_share", steps.len(), bonus / size);
                }
            }
        }
        for line in timings {
            let Some(step) = number(line, "step") else { continue };
            let Ok(at) = steps.binary_search_by(|s| s.total_cmp(&step)) else { continue };
            for (key, value) in line {
                if let Some(value) = value.as_f64().filter(|_| key != "step") {
                    put(curves, key, at + 1, value);
                }
            }
        }
        for values in curves.values_mut() {
            values.resize(steps.len(), f64::NAN);
        }
        if self.is_new(CONFIG, run.config_stamp()) {
            self.read_settings(run);
        }
        // A run that has not come to its end has no tables yet.
        if self.is_new(DYNAMICS, run.analysis_stamp(DYNAMICS)) {
            self.entropy_dynamics = bins(pairs(&self.table(run, DYNAMICS)), BINS);
        }
        if self.is_new(NORMS, run.analysis_stamp(NORMS)) {
            self.coupling = coupling(&self.table(run, NORMS), COUPLING_BINS);
        }
        let planned = self.settings.get("steps").and_then(|s| s.parse::<f64>().ok());
        self.finished = planned.is_none_or(|n| self.steps.last().is_some_and(|s| *s >= n));
        self.recorded = run.manifest().trajectories.iter().map(|t| t.step).collect();
    }

    /// A table of the run; one that cannot be read is noted, once.
    fn table(&mut self, run: &Run, name: &str) -> Vec<Map<String, Value>> {
        run.analysis(name).unwrap_or_else(|error| {
            self.note(error.to_string());
            Vec::new()
        })
    }

    /// What a study kept of a run.
    pub fn of_cell(cell: &Cell) -> Self {
        let settings: BTreeMap<String, String> =
            cell.settings.iter().map(|(key, value)| (key.clone(), setting(value))).collect();
        let seed = ("seed".to_owned(), cell.key.seed.to_string());
        let points = cell.curves.values().map(Vec::len).max().unwrap_or_default();
        let curve = |values: &Vec<Option<f64>>| -> Vec<f64> {
            let mut curve: Vec<f64> = values.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
            curve.resize(points, f64::NAN);
            curve
        };
        Self {
            name: cell.key.name(),
            path: PathBuf::new(),
            info: Map::from_iter([("empg".to_owned(), Value::from(cell.empg.as_str()))]),
            settings: settings.into_iter().chain([seed]).collect(),
            steps: (1..=points).map(|step| step as f64).collect(),
            curves: cell.curves.iter().map(|(name, v)| (name.clone(), curve(v))).collect(),
            evaluations: vec![(0.0, cell.before.clone()), (cell.steps as f64, cell.after.clone())],
            entropy_dynamics: cell.entropy_dynamics.clone(),
            coupling: None,
            recorded: Vec::new(),
            finished: true,
            machine: String::new(),
            notes: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// The results of a split before training.
    pub fn before(&self, split: &str) -> Option<&SplitResult> {
        let (_, first) = self.evaluations.iter().find(|(step, _)| *step == 0.0)?;
        first.iter().find(|r| r.split == split)
    }

    /// The results of a split after training; none of a run that has not come to its end, whose
    /// newest ones are of half-way.
    pub fn after(&self, split: &str) -> Option<&SplitResult> {
        self.newest(split).filter(|_| self.finished)
    }

    /// The newest results of a split after step 0.
    pub fn newest(&self, split: &str) -> Option<&SplitResult> {
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

/// A setting as `config.toml` would say it.
fn setting(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap_or(0.0)),
        other => other.to_string(),
    }
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

#[cfg(test)]
mod tests {
    use empg_run::{RunDir, StepRecord};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_or_no_number_is_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rün <b>");
        let config = "steps = 4\n[env]\nname = \"households\"\n";
        let mut run = RunDir::create(&path, config, &json!({})).unwrap();
        let lines = [
            json!({"eval": [{"split": "unseen", "success": 0.5, "episodes": 4, "by_task": {}}]}),
            json!({"success": 0.5, "bonus": 0.1, "advantage_abs": 0.4}),
            json!({"success": null, "grad_norm": 1e300, "bonus": 0.1, "advantage_abs": 0.0}),
            json!({"success": 0.75, "eval": "damaged"}),
        ];
        for (step, line) in lines.into_iter().enumerate() {
            let Value::Object(metrics) = line else { unreachable!() };
            let record = StepRecord { step: step as u64, metrics, ..StepRecord::default() };
            run.commit(&record).unwrap();
        }
        let data = RunData::read(&path).unwrap();
        assert_eq!(data.steps, [1.0, 2.0, 3.0]);
        let success = &data.curves["success"];
        assert!(success[1].is_nan() && success[2] == 0.75 && success.len() == 3);
        assert!(data.curves["grad_norm"][0].is_nan() && data.curves["grad_norm"][2].is_nan());
        assert!((data.curves["bonus_share"][0] - 0.25).abs() < 1e-12);
        assert!(data.curves["bonus_share"][1].is_nan());
        assert!(data.before("unseen").is_some() && data.after("unseen").is_none());
        assert!(!data.finished && data.notes.is_empty() && data.coupling.is_none());
        assert!(data.machine.contains(std::env::consts::ARCH), "{}", data.machine);
        let contents = crate::html::Contents { runs: vec![data], ..Default::default() };
        let page = crate::html::page(&contents);
        assert!(page.contains("rün &lt;b&gt;") && !page.contains("NaN"));
    }

    #[test]
    fn a_run_that_goes_on_is_read_with_its_new_settings_and_tables() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunDir::create(folder.path().join("run"), "steps = 1\n", &json!({})).unwrap();
        let line = |entropy: f64| format!("{{\"before\": 1.0, \"after\": {entropy:.2}}}\n");
        let step = |step| StepRecord { step, ..StepRecord::default() };
        run.commit(&step(1)).unwrap();
        run.write_analysis("entropy-dynamics", line(0.5).as_bytes()).unwrap();
        let mut read = Run::open(run.path()).unwrap();
        let mut data = RunData::of(&read, &read.metrics().unwrap(), &[]);
        assert!(data.finished && data.entropy_dynamics[0].after == 0.5);

        std::fs::write(run.path().join("config.toml"), "steps = 20\n").unwrap();
        run.commit(&step(2)).unwrap();
        read.refresh().unwrap();
        data.extend(&read, &read.metrics().unwrap()[1..], &[]);
        assert_eq!(data.settings["steps"], "20");
        assert!(!data.finished && data.notes.is_empty());

        // As long as before; the time of its change tells it apart.
        std::thread::sleep(std::time::Duration::from_millis(20));
        run.write_analysis("entropy-dynamics", line(0.25).as_bytes()).unwrap();
        data.extend(&read, &[], &[]);
        assert_eq!(data.entropy_dynamics[0].after, 0.25);
        // What cannot be read hides nothing that was.
        std::fs::write(run.path().join("config.toml"), "steps = ").unwrap();
        data.extend(&read, &[], &[]);
        assert_eq!((data.settings["steps"].as_str(), data.notes.len()), ("20", 1));
    }

    #[test]
    fn zeros_of_steps_that_learned_nothing_are_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunDir::create(folder.path().join("run"), "", &json!({})).unwrap();
        let lines = [
            // As they are written, as they were written once, and where nothing counts updates.
            json!({"success": 0.5, "kl_reference": 0.2, "grad_norm": 0.1, "updates": 4}),
            json!({"success": 1.0, "updates": 0}),
            json!({"success": 1.0, "kl_reference": 0.0, "grad_norm": 0.0, "lr": 0.0, "updates": 0}),
            json!({"success": 1.0, "kl_reference": 0.0, "grad_norm": 0.0}),
            json!({"success": 1.0, "kl_reference": 0.0, "grad_norm": 0.3}),
            json!({"success": 1.0, "kl_reference": null, "grad_norm": 0.3, "updates": 4}),
        ];
        for (step, line) in lines.into_iter().enumerate() {
            let Value::Object(metrics) = line else { unreachable!() };
            let record = StepRecord { step: step as u64 + 1, metrics, ..StepRecord::default() };
            run.commit(&record).unwrap();
        }
        let data = RunData::read(run.path()).unwrap();
        let kl = &data.curves["kl_reference"];
        assert_eq!((kl[0], kl[4]), (0.2, 0.0));
        assert!(kl[1].is_nan() && kl[2].is_nan() && kl[3].is_nan() && kl[5].is_nan());
        assert!(data.curves["grad_norm"][3].is_nan() && data.curves["grad_norm"][5] == 0.3);
        assert_eq!(data.curves["updates"][1..4], [0.0; 3]);
        assert_eq!(data.curves["success"][1..], [1.0; 5]);
    }
}
