//! One cell of a study: what is kept of one run, as a small JSON file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use empg_run::Run;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dynamics::{self, Bin};
use crate::run_data::{OF_AN_UPDATE, learned};
use crate::stability::{Stability, of_curves};

/// The version of the file's format.
const FORMAT: u32 = 1;
/// Percentile bins of the entropy dynamics.
const BINS: usize = 20;
/// The curves that are kept of the metrics, one value a step.
const CURVES: [&str; 17] = [
    "success",
    "return",
    "turns",
    "ineffective",
    "step_entropy",
    "step_entropy_min",
    "step_entropy_max",
    "token_entropy",
    "kl_reference",
    "kl_old",
    "clip_fraction",
    "grad_norm",
    "g_std",
    "bonus",
    "groups_flat",
    "groups_dropped",
    "updates",
];

/// Which cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellKey {
    /// The environment.
    pub environment: String,
    /// The arm.
    pub arm: String,
    /// The seed.
    pub seed: u64,
}

impl CellKey {
    /// `households--dapo-empg--s0`: the cell's name in file names.
    pub fn name(&self) -> String {
        format!("{}--{}--s{}", self.environment, self.arm, self.seed)
    }
}

/// Successes on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitResult {
    /// `seen` or `unseen`.
    pub split: String,
    /// Share of episodes won, 0–1.
    pub success: f64,
    /// Episodes.
    pub episodes: u64,
    /// Share won by task type, 0–1.
    pub by_task: BTreeMap<String, f64>,
}

/// What is kept of a finished cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Version of this format.
    pub format: u32,
    /// Which cell.
    #[serde(flatten)]
    pub key: CellKey,
    /// The program's version.
    pub empg: String,
    /// The resolved settings that bear on the result, by dotted key.
    pub settings: BTreeMap<String, Value>,
    /// Training steps.
    pub steps: u64,
    /// Wall-clock seconds of the run; depends on the machine.
    pub seconds: f64,
    /// Before training, one per split.
    pub before: Vec<SplitResult>,
    /// After training, one per split.
    pub after: Vec<SplitResult>,
    /// The run's late stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stability: Option<Stability>,
    /// Step entropy before and after training.
    #[serde(default)]
    pub entropy_dynamics: Vec<Bin>,
    /// Curves over the steps, rounded to five digits; `null` where a step had no value.
    pub curves: BTreeMap<String, Vec<Option<f64>>>,
}

/// A cell that cannot be read, written or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// The run behind it.
    #[error(transparent)]
    Run(#[from] empg_run::RunError),
    /// A run that has not been evaluated before and after.
    #[error("{path}: the run has no evaluation {when} training")]
    Unfinished {
        /// The run.
        path: PathBuf,
        /// `before` or `after`.
        when: &'static str,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file that holds something else.
    #[error("{path}: {what}; remove the file to run the cell again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Cell {
    /// What is kept of a finished run.
    ///
    /// # Errors
    /// A run that cannot be read or has no evaluation before or after training.
    pub fn of_run(
        key: CellKey,
        path: &Path,
        settings: BTreeMap<String, Value>,
        empg: &str,
        seconds: f64,
    ) -> Result<Self, CellError> {
        let run = Run::open(path)?;
        let metrics = run.metrics()?;
        let steps: Vec<&Map<String, Value>> =
            metrics.iter().filter(|line| number(line, "step").is_some_and(|s| s > 0.0)).collect();
        let evaluated = |line: Option<&Map<String, Value>>, when| {
            line.and_then(|line| line.get("eval"))
                .and_then(results)
                .ok_or_else(|| CellError::Unfinished { path: path.to_owned(), when })
        };
        let first = metrics.iter().find(|line| number(line, "step") == Some(0.0));
        let before = evaluated(first, "before")?;
        let after = evaluated(steps.last().copied(), "after")?;
        // A step that learned nothing has no numbers of an update, though older versions wrote zeros.
        let value = |name: &str, line: &Map<String, Value>| {
            let gap = OF_AN_UPDATE.contains(&name) && !learned(|name| number(line, name));
            number(line, name).filter(|_| !gap)
        };
        let curves = CURVES
            .iter()
            .map(|&name| {
                let values = steps.iter().map(|line| value(name, line).map(five_digits));
                (name.to_owned(), values.collect())
            })
            .collect();
        let entropy_dynamics = if run.analyses()?.iter().any(|n| n == "entropy-dynamics") {
            let pairs = dynamics::pairs(&run.analysis("entropy-dynamics")?);
            let round = |bin: Bin| Bin {
                before: five_digits(bin.before),
                after: five_digits(bin.after),
                change_std: five_digits(bin.change_std),
                standard_error: bin.standard_error.map(five_digits),
                ..bin
            };
            dynamics::bins(pairs, BINS).into_iter().map(round).collect()
        } else {
            Vec::new()
        };
        Ok(Self {
            format: FORMAT,
            key,
            empg: empg.to_owned(),
            settings,
            steps: steps.len() as u64,
            seconds: (seconds * 10.0).round() / 10.0,
            before,
            after,
            stability: of_curves(steps.len(), |name, i| number(steps[i], name)),
            entropy_dynamics,
            curves,
        })
    }

    /// Reads a cell's file; `None` where there is none.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no cell of this format.
    pub fn read(path: &Path) -> Result<Option<Self>, CellError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(CellError::Io { action: "read", path: path.to_owned(), source });
            }
        };
        let damaged = |what: String| CellError::Damaged { path: path.to_owned(), what };
        let cell: Self = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        if cell.format != FORMAT {
            return Err(damaged(format!("it has format {}, not {FORMAT}", cell.format)));
        }
        Ok(Some(cell.with_gaps()))
    }

    /// Cells of older versions have zeros where a step learned nothing. They become gaps, and the
    /// late stage is judged without them.
    fn with_gaps(mut self) -> Self {
        let value = |curves: &BTreeMap<String, Vec<Option<f64>>>, name: &str, i: usize| {
            curves.get(name).and_then(|curve| *curve.get(i)?)
        };
        let points = self.curves.get("kl_reference").map_or(0, Vec::len);
        let idle: Vec<bool> =
            (0..points).map(|i| !learned(|name| value(&self.curves, name, i))).collect();
        if self.curves.contains_key("updates") || !idle.contains(&true) {
            return self;
        }
        for (_, curve) in self.curves.iter_mut().filter(|c| OF_AN_UPDATE.contains(&c.0.as_str())) {
            curve.iter_mut().zip(&idle).filter(|(_, idle)| **idle).for_each(|(v, _)| *v = None);
        }
        let updates = idle.iter().map(|idle| idle.then_some(0.0)).collect();
        self.curves.insert("updates".to_owned(), updates);
        self.stability = of_curves(points, |name, i| value(&self.curves, name, i));
        self
    }

    /// Writes the cell's file by one rename, durably: the run behind it may be removed then.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), CellError> {
        let fail = |source| CellError::Io { action: "write", path: path.to_owned(), source };
        let mut text = serde_json::to_string(self).map_err(|e| fail(e.into()))?;
        text.push('\n');
        let partial = path.with_extension("json.tmp");
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, path)?;
            // Elsewhere a folder cannot be opened as a file, and renames are durable by themselves.
            if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&partial);
            fail(source)
        })
    }

    /// The result of a split after training.
    pub fn after(&self, split: &str) -> Option<&SplitResult> {
        self.after.iter().find(|r| r.split == split)
    }

    /// The result of a split before training.
    pub fn before(&self, split: &str) -> Option<&SplitResult> {
        self.before.iter().find(|r| r.split == split)
    }

    /// The last value of a curve.
    pub fn last(&self, curve: &str) -> Option<f64> {
        self.curves.get(curve)?.iter().rev().find_map(|v| *v)
    }
}

fn number(line: &Map<String, Value>, name: &str) -> Option<f64> {
    line.get(name).and_then(Value::as_f64)
}

fn five_digits(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

pub(crate) fn results(eval: &Value) -> Option<Vec<SplitResult>> {
    eval.as_array()?
        .iter()
        .map(|one| {
            let by_task = one.get("by_task")?.as_object()?.iter();
            Some(SplitResult {
                split: one.get("split")?.as_str()?.to_owned(),
                success: one.get("success")?.as_f64()?,
                episodes: one.get("episodes")?.as_u64()?,
                by_task: by_task
                    .map(|(kind, tally)| Some((kind.clone(), tally.get("success")?.as_f64()?)))
                    .collect::<Option<_>>()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD_RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../run/tests/compat/run_v1");

    fn key() -> CellKey {
        CellKey { environment: "households".into(), arm: "grpo".into(), seed: 3 }
    }

    #[test]
    fn files_round_trip_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.json");
        assert_eq!(Cell::read(&path).unwrap(), None);
        let cell = Cell {
            format: FORMAT,
            key: key(),
            empg: "0.1.0".into(),
            settings: BTreeMap::from([("optim.lr".into(), serde_json::json!(5e-4))]),
            steps: 2,
            seconds: 1.5,
            before: Vec::new(),
            after: Vec::new(),
            stability: None,
            entropy_dynamics: Vec::new(),
            curves: BTreeMap::from([("success".into(), vec![Some(0.5), None])]),
        };
        cell.write(&path).unwrap();
        assert_eq!(Cell::read(&path).unwrap().as_ref(), Some(&cell));
        assert_eq!(cell.last("success"), Some(0.5));
        // What cannot be put in its place leaves nothing.
        let taken = folder.path().join("taken.json");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("x"), "").unwrap();
        assert!(matches!(cell.write(&taken), Err(CellError::Io { action: "write", .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        fs::write(&path, "{\"format\": 1").unwrap();
        let error = Cell::read(&path).unwrap_err().to_string();
        assert!(error.contains("cell.json") && error.contains("remove the file"), "{error}");
    }

    #[test]
    fn zeros_of_steps_that_learned_nothing_are_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.json");
        let mut kl = vec![Some(0.2); 30];
        kl[10..17].fill(Some(0.0));
        kl[29] = Some(0.0);
        let grad_norm = kl.iter().map(|kl| kl.map(|kl| kl * 2.0)).collect();
        let curves = BTreeMap::from([
            ("success".to_owned(), vec![Some(0.5); 30]),
            ("kl_reference".to_owned(), kl),
            ("grad_norm".to_owned(), grad_norm),
        ]);
        let judged = of_curves(30, |name, i| curves.get(name)?[i]);
        let mut written = serde_json::json!({
            "format": 1, "environment": "webshop", "arm": "dapo", "seed": 0, "empg": "0.1.0",
            "settings": {}, "steps": 30, "seconds": 1.0, "before": [], "after": [],
            // As an older version judged: with the zeros in the middle, and in the end with none.
            "stability": {"kl_middle": 0.06, "kl_late": null, "success_best": 0.5,
                "success_late": 0.5, "kl_runs_away": true, "success_collapses": false},
            "curves": curves,
        });
        fs::write(&path, written.to_string()).unwrap();
        let cell = Cell::read(&path).unwrap().unwrap();
        assert_eq!((cell.last("kl_reference"), cell.last("grad_norm")), (Some(0.2), Some(0.4)));
        assert_eq!(cell.curves["kl_reference"][9..11], [Some(0.2), None]);
        assert_eq!(cell.last("success"), Some(0.5));
        assert_eq!(cell.stability, judged);
        assert!(cell.stability.as_ref().unwrap().stable(), "{:?}", cell.stability);
        // Read again, nothing is different; and what was judged with numbers stays as it is.
        cell.write(&path).unwrap();
        assert_eq!(Cell::read(&path).unwrap().unwrap(), cell);
        written["curves"]["grad_norm"] = serde_json::json!(vec![0.1; 30]);
        fs::write(&path, written.to_string()).unwrap();
        assert!(Cell::read(&path).unwrap().unwrap().stability.unwrap().kl_runs_away);
    }

    #[test]
    fn a_run_without_evaluations_is_unfinished() {
        let error = Cell::of_run(key(), Path::new(OLD_RUN), BTreeMap::new(), "0", 1.0).unwrap_err();
        assert!(matches!(error, CellError::Unfinished { .. }), "{error}");
        assert!(Cell::of_run(key(), Path::new("nowhere"), BTreeMap::new(), "0", 1.0).is_err());
    }

    #[test]
    fn names_are_file_names() {
        assert_eq!(key().name(), "households--grpo--s3");
        assert_eq!(five_digits(0.123_456_789), 0.12346);
    }
}
