//! One run as the dashboard knows it: read once, then followed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use empg_report::arms::four_digits;
use empg_report::run_data::RunData;
use empg_run::{Follower, Run, TrajectoryEntry};
use serde::Serialize;
use serde_json::Value;

use super::scan::{Found, Stamp, leads_out};

/// Points of the list's small curve.
const SPARK: usize = 48;
/// A writer that has committed nothing for so long, and for ten times its usual step, is stalled.
const PATIENCE: Duration = Duration::from_mins(2);
/// What cannot be read is tried again after so many looks, where its manifest stays as it is.
const LOOKS: u32 = 30;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// A process is writing it.
    Running,
    /// A process holds it, but has committed nothing for long.
    Stalled,
    /// All steps are there.
    Finished,
    /// Nobody writes it, and steps are missing.
    Stopped,
    /// It cannot be read.
    Damaged,
}

/// A run and how far it has been read.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) found: Found,
    follower: Option<Follower>,
    pub(super) data: Option<Arc<RunData>>,
    pub(super) recorded: Arc<Vec<TrajectoryEntry>>,
    error: Option<String>,
    /// Looks until what could not be read is tried again.
    rest: u32,
    written: Option<bool>,
    pub(super) line: Line,
}

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    id: String,
    name: String,
    pub(super) state: State,
    algorithm: String,
    environment: String,
    model: String,
    seed: Option<u64>,
    step: Option<u64>,
    steps: Option<u64>,
    /// Mean success of the last five training steps.
    success: Option<f64>,
    spark: Vec<Option<f64>>,
    /// Success on the headline split before training and at the newest evaluation.
    before: Option<f64>,
    after: Option<f64>,
    split: Option<String>,
    recorded: usize,
    /// Median seconds of the last steps.
    seconds_a_step: Option<f64>,
    /// When something was committed last, in seconds since 1970.
    updated: Option<f64>,
    notes: Vec<String>,
}

impl LiveRun {
    /// A run that was just found.
    pub(super) fn new(root: &Path, found: Found) -> Self {
        let mut run = Self {
            line: Line::empty(&found),
            found,
            follower: None,
            data: None,
            recorded: Arc::default(),
            error: None,
            rest: 0,
            written: None,
        };
        run.read(root);
        run
    }

    /// Looks again; whether anything is new.
    pub(super) fn look(&mut self, root: &Path, stamp: Stamp) -> bool {
        // A writer may end without another commit, or come back long before its next one, and a
        // damaged file may be mended.
        let held = self.follower.as_ref().is_some_and(|follower| {
            self.written != Some(false) || follower.run().being_written() != Some(false)
        });
        let changed = self.found.stamp != stamp;
        self.rest = self.rest.saturating_sub(1);
        let again = self.error.is_some() && self.rest == 0;
        if !changed && !held && !again {
            return false;
        }
        let before = (self.line.clone(), self.recorded.len());
        self.found.stamp = stamp;
        if changed || again {
            self.read(root);
        } else {
            self.settle();
        }
        (&before.0, before.1) != (&self.line, self.recorded.len())
    }

    fn read(&mut self, root: &Path) {
        let followed = match leads_out(root, &self.found.path) {
            Some(name) => Err(format!("{name} is a link that leads out of the folder")),
            None => self.follow().map_err(|error| error.to_string()),
        };
        if let Err(error) = followed {
            // What was read stays on show; the next look begins anew.
            self.follower = None;
            self.rest = LOOKS;
            self.error = Some(error);
        } else {
            self.error = None;
        }
        self.settle();
    }

    fn follow(&mut self) -> empg_run::Result<()> {
        let mut follower = if let Some(follower) = self.follower.take() {
            follower
        } else {
            self.data = None;
            Follower::open(&self.found.path)?
        };
        loop {
            let news = follower.look()?;
            if news.rewound {
                self.data = None;
            }
            let count = news.steps.len();
            let (metrics, timings): (Vec<_>, Vec<_>) = news
                .steps
                .into_iter()
                .map(|mut step| {
                    if !step.timings.is_empty() {
                        step.timings.insert("step".to_owned(), Value::from(step.step));
                    }
                    (step.metrics, step.timings)
                })
                .unzip();
            match &mut self.data {
                Some(data) => Arc::make_mut(data).extend(follower.run(), &metrics, &timings),
                None => {
                    self.data = Some(Arc::new(RunData::of(follower.run(), &metrics, &timings)));
                }
            }
            if follower.caught_up() || count == 0 {
                break;
            }
        }
        self.recorded = Arc::new(follower.run().manifest().trajectories.clone());
        self.follower = Some(follower);
        Ok(())
    }

    /// What the run is doing, and its row.
    fn settle(&mut self) {
        let run = self.follower.as_ref().map(Follower::run);
        let written = run.and_then(Run::being_written);
        if self.written == Some(true)
            && written != Some(true)
            && let (Some(run), Some(data)) = (run, &mut self.data)
        {
            // Tables of analyses come after the last step.
            Arc::make_mut(data).extend(run, &[], &[]);
        }
        self.written = written;
        let mut line = match &self.data {
            Some(data) => Line::of(&self.found, data, self.recorded.len()),
            None => Line::empty(&self.found),
        };
        let finished = self.data.as_ref().is_some_and(|d| d.finished);
        let Stamp { committed, configured, begun, .. } = self.found.stamp;
        let alive = [committed, configured, begun].into_iter().flatten().max();
        let age = alive.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        let usual = Duration::try_from_secs_f64(line.seconds_a_step.unwrap_or(0.0) * 10.0);
        let silent = age > PATIENCE.max(usual.unwrap_or_default());
        line.state = match (&self.error, written) {
            (Some(_), _) => State::Damaged,
            (None, Some(true)) if silent && !finished => State::Stalled,
            (None, Some(true)) => State::Running,
            (None, _) if finished => State::Finished,
            (None, Some(false)) => State::Stopped,
            (None, None) if silent => State::Stopped,
            (None, None) => State::Running,
        };
        if let Some(error) = &self.error {
            line.notes.insert(0, error.clone());
        }
        self.line = line;
    }
}

impl Line {
    fn empty(found: &Found) -> Self {
        let name = if found.id == "." {
            found.path.file_name().map_or_else(|| ".".into(), |n| n.to_string_lossy().into_owned())
        } else {
            found.id.clone()
        };
        Self {
            id: found.id.clone(),
            name,
            state: State::Damaged,
            algorithm: String::new(),
            environment: String::new(),
            model: String::new(),
            seed: None,
            step: None,
            steps: None,
            success: None,
            spark: Vec::new(),
            before: None,
            after: None,
            split: None,
            recorded: 0,
            seconds_a_step: None,
            updated: found.stamp.committed.and_then(seconds),
            notes: Vec::new(),
        }
    }

    fn of(found: &Found, data: &RunData, recorded: usize) -> Self {
        let text = |key: &str| data.info.get(key).and_then(Value::as_str).map(str::to_owned);
        let setting = |key: &str| data.settings.get(key).cloned();
        let algorithm = text("algo").or_else(|| {
            let on = setting("empg.enabled").as_deref() == Some("true");
            let half = if on { " + EMPG" } else { "" };
            setting("algo.name").map(|name| name.to_uppercase() + half)
        });
        let success = data.curves.get("success").map_or(&[][..], Vec::as_slice);
        let finite: Vec<f64> = success.iter().copied().filter(|v| v.is_finite()).collect();
        let last = &finite[finite.len().saturating_sub(5)..];
        let split = data.splits().pop();
        let evaluated = |of: Option<&empg_report::study::SplitResult>| of.map(|r| r.success);
        Self {
            algorithm: algorithm.unwrap_or_default(),
            environment: text("env").or_else(|| setting("env.name")).unwrap_or_default(),
            model: setting("model.path").unwrap_or_default(),
            seed: setting("seed").and_then(|s| s.parse().ok()),
            step: data.steps.last().map(|s| *s as u64),
            steps: setting("steps").and_then(|s| s.parse().ok()),
            success: (!last.is_empty())
                .then(|| four_digits(last.iter().sum::<f64>() / last.len() as f64)),
            spark: spark(success),
            before: split.as_deref().and_then(|s| evaluated(data.before(s))),
            after: split.as_deref().and_then(|s| evaluated(data.newest(s))),
            split,
            recorded,
            seconds_a_step: data.curves.get("total_s").and_then(|all| usual(all)),
            notes: data.notes.clone(),
            ..Self::empty(found)
        }
    }
}

/// At most [`SPARK`] points of a curve: means of equal pieces, nothing where a piece has no number.
fn spark(curve: &[f64]) -> Vec<Option<f64>> {
    let points = curve.len().min(SPARK);
    (0..points)
        .map(|i| {
            let piece = &curve[i * curve.len() / points..(i + 1) * curve.len() / points];
            let finite: Vec<f64> = piece.iter().copied().filter(|v| v.is_finite()).collect();
            let n = finite.len();
            (n > 0).then(|| four_digits(finite.iter().sum::<f64>() / n as f64))
        })
        .collect()
}

/// The median of the last ten numbers.
fn usual(curve: &[f64]) -> Option<f64> {
    let mut last: Vec<f64> =
        curve[curve.len().saturating_sub(10)..].iter().copied().filter(|v| v.is_finite()).collect();
    last.sort_by(f64::total_cmp);
    last.get(last.len() / 2).copied().map(four_digits)
}

fn seconds(time: SystemTime) -> Option<f64> {
    time.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_curves_keep_gaps() {
        let curve: Vec<f64> =
            (0..96).map(|i| if i < 2 { f64::NAN } else { f64::from(i) }).collect();
        let points = spark(&curve);
        assert_eq!((points.len(), points[0], points[1]), (SPARK, None, Some(2.5)));
        assert_eq!(spark(&[]), []);
        assert_eq!(spark(&[f64::INFINITY, 1.0]), [None, Some(1.0)]);
    }

    #[test]
    fn the_usual_step_is_the_median_of_the_last() {
        assert_eq!(usual(&[]), None);
        assert_eq!(usual(&[f64::NAN]), None);
        let mut curve = vec![1.0; 50];
        curve.extend([3.0; 10]);
        assert_eq!(usual(&curve), Some(3.0));
    }
}
