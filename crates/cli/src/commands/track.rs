//! `empg track`: runs mirrored to a tracker.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use empg_track::{Mirror, Status, TrackError};
use empg_train::TrainError;
use serde_json::json;

use crate::settings::SettingsError;
use crate::track::{Patience, Tracker};
use crate::{failure, interrupt, output};

/// Time between looks at runs that are followed.
const LOOK: Duration = Duration::from_secs(1);
/// Steps in which a pause is waited for, so that Ctrl-C ends it.
const NAP: Duration = Duration::from_millis(50);

/// Arguments of `empg track`.
#[derive(Args, Debug)]
#[command(after_help = "\
The run directory stays the truth and is not changed. The server is asked what it has, so that a run
may be sent again, or further, at any time: nothing is told twice. A run is known again by the moment
of its creation, wherever it lies.

MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, MLFLOW_TRACKING_USERNAME and _PASSWORD,
MLFLOW_TRACKING_TOKEN, MLFLOW_TRACKING_SERVER_CERT_PATH and MLFLOW_TRACKING_INSECURE_TLS are read as
MLflow's own clients read them. TensorBoard reads a run directory as it is; for W&B:
python -m empg.track wandb RUN.

Examples:
  empg track runs/NAME --mlflow http://127.0.0.1:5000
  empg track runs/* --mlflow https://mlflow.example.org --experiment households
  empg track runs/NAME --follow                 until the run ends
  empg train --track mlflow=http://127.0.0.1:5000")]
pub(crate) struct TrackArgs {
    /// Run directories
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The MLflow server [default: MLFLOW_TRACKING_URI]
    #[arg(long, value_name = "URL")]
    mlflow: Option<String>,
    /// The experiment, made if it does not exist [default: MLFLOW_EXPERIMENT_NAME, else empg]
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Go on while the runs are being written
    #[arg(long)]
    follow: bool,
    /// How often in a row a server that does not answer is tried again (--follow: without end)
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
}

/// A run and what has become of it.
struct Tracked {
    path: PathBuf,
    mirror: Mirror,
    points: usize,
    known: usize,
    status: Option<Status>,
    failed: bool,
}

/// Runs the command.
pub(crate) fn run(args: TrackArgs, json: bool) -> anyhow::Result<()> {
    let TrackArgs { runs, mlflow, experiment, follow, retries } = args;
    let named = mlflow.is_some();
    let tracker = Tracker::mlflow(mlflow.as_deref(), experiment).map_err(|error| match error {
        TrackError::Address { address, .. } if address.is_empty() && !named => {
            SettingsError::Conflict(
                "which tracker? --mlflow URL, or MLFLOW_TRACKING_URI; W&B: python -m empg.track \
                 wandb RUN"
                    .to_owned(),
            )
        }
        error => SettingsError::Conflict(error.to_string()),
    })?;
    let mut failures = Failures { of: runs.len(), all: Vec::new() };
    let mut tracked = Vec::new();
    for path in runs {
        match tracker.mirror(&path) {
            Ok(mirror) => {
                let (points, known, status, failed) = (0, 0, None, false);
                tracked.push(Tracked { path, mirror, points, known, status, failed });
            }
            Err(error) => failures.add(error.into()),
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    interrupt::watch(stop.clone(), None, "stopping; the same command goes on where this one ends");
    let mut patience = Patience::default();
    let mut pending: Vec<&mut Tracked> = tracked.iter_mut().collect();
    loop {
        let mut failed = false;
        let mut still = Vec::new();
        for one in pending {
            match pass(one) {
                Ok(status) => {
                    one.status = Some(status);
                    if follow && status == Status::Running {
                        still.push(one);
                    }
                }
                Err(error) if error.may_pass() && (follow || patience.failures() < retries) => {
                    if patience.failures() == 0 && !failed {
                        crate::say!("warning: {error}; trying again");
                    }
                    failed = true;
                    still.push(one);
                }
                Err(error) => {
                    one.failed = true;
                    let what = format!("{} has not been sent", one.path.display());
                    failures.add(anyhow::Error::from(error).context(what));
                }
            }
            if stop.load(Ordering::SeqCst) {
                return Err(TrainError::Interrupted.into());
            }
        }
        if still.is_empty() {
            break;
        }
        pending = still;
        // Runs that fail together fail once.
        let pause = if failed {
            patience.pause()
        } else {
            patience.restore();
            LOOK
        };
        wait(pause, &stop)?;
    }
    tracked.retain(|one| !one.failed);
    if !tracked.is_empty() {
        report(&tracked, json)?;
    }
    failures.end()
}

/// What went wrong with runs; it keeps no other from being sent.
struct Failures {
    /// How many runs there are.
    of: usize,
    all: Vec<anyhow::Error>,
}

impl Failures {
    /// Where there are other runs, a failure is told at once: they may take long.
    fn add(&mut self, error: anyhow::Error) {
        if self.of > 1 {
            crate::say_part!("{}", failure::in_words(&error));
        }
        self.all.push(error);
    }

    fn end(mut self) -> anyhow::Result<()> {
        match (self.all.len(), self.of) {
            (0, _) => Ok(()),
            (1, 1) => Err(self.all.remove(0)),
            (failed, of) => bail!("{failed} of {of} runs have not been sent"),
        }
    }
}

fn pass(one: &mut Tracked) -> Result<Status, TrackError> {
    let status = one.mirror.status()?;
    let passed = one.mirror.pass(status)?;
    one.points += passed.points;
    one.known += passed.known;
    Ok(passed.status)
}

fn wait(pause: Duration, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut waited = Duration::ZERO;
    while waited < pause {
        if stop.load(Ordering::SeqCst) {
            return Err(TrainError::Interrupted.into());
        }
        thread::sleep(NAP);
        waited += NAP;
    }
    Ok(())
}

fn report(tracked: &[Tracked], json: bool) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for Tracked { path, mirror, points, known, status, .. } in tracked {
        let (Some(page), Some(id), Some(status)) = (mirror.page(), mirror.run_id(), status) else {
            bail!("{} has not been sent", path.display());
        };
        if json {
            lines.push(json!({
                "run": path.display().to_string(), "run_id": id, "url": page, "points": points, "known": known,
                "status": status.word(),
            }));
        } else {
            let before = if *known > 0 { format!(", {known} there before") } else { String::new() };
            output::line(&format!(
                "{}: {points} points sent{before}, {}, {page}",
                path.display(),
                status.word().to_lowercase()
            ))?;
        }
    }
    if json {
        output::line(&json!({ "runs": lines }).to_string())?;
    }
    Ok(())
}
