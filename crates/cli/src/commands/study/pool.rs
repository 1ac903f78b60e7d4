//! Runs cells as processes of their own, several at a time: a crash takes one cell with it, and
//! a run that was stopped goes on from its last checkpoint.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use empg_report::study::Cell;
use empg_run::{Run, RunError};

use super::plan::{Plan, PlannedCell};
use crate::progress::duration;

/// Between two looks at a child.
const TICK: Duration = Duration::from_millis(100);

/// What the workers share.
pub(super) struct Pool<'a> {
    pub(super) plan: &'a Plan,
    /// Where the runs lie while they are under way.
    pub(super) runs: &'a Path,
    pub(super) keep_runs: bool,
    pub(super) stop: &'a AtomicBool,
}

impl Pool<'_> {
    /// Runs the cells; gives the names of those that failed.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub(super) fn run(&self, cells: Vec<PlannedCell>, jobs: usize) -> anyhow::Result<Vec<String>> {
        fs::create_dir_all(self.runs)
            .with_context(|| format!("cannot create {}", self.runs.display()))?;
        let total = cells.len();
        let queue = Mutex::new(VecDeque::from(cells));
        let failed = Mutex::new(Vec::new());
        let done = AtomicUsize::new(0);
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..jobs.min(total) {
                scope.spawn(|| {
                    while !self.stop.load(Ordering::Relaxed) {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(cell) = next else { break };
                        let name = cell.key.name();
                        let outcome = self.cell(&cell);
                        let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                        match outcome {
                            Ok(Some(result)) => {
                                let elapsed = started.elapsed().as_secs_f64();
                                let left = elapsed / n as f64 * (total - n) as f64;
                                let success = result.after.last().map_or(0.0, |r| r.success);
                                crate::say!(
                                    "[{n}/{total}] {name}: {:.1} % in {}, about {} left",
                                    success * 100.0,
                                    duration(result.seconds),
                                    duration(left),
                                );
                            }
                            Ok(None) => {}
                            Err(error) => {
                                crate::say!("[{n}/{total}] {name} failed: {error:#}");
                                failed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                            }
                        }
                    }
                });
            }
        });
        Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs one cell to its end; `None` where it was stopped.
    fn cell(&self, cell: &PlannedCell) -> anyhow::Result<Option<Cell>> {
        let (settings, run) = self.places(cell)?;
        let mut log = run.clone().into_os_string();
        log.push(".log");
        let log = PathBuf::from(log);
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.arg("train");
        if is_begun(&run)? {
            command.arg("--resume").arg(&run);
        } else {
            fs::write(&settings, toml::to_string(&cell.layer)?)
                .with_context(|| format!("cannot write {}", settings.display()))?;
            command.arg("--config").arg(&settings).args(["--env", &cell.env]);
            command.args(["--seed", &cell.key.seed.to_string()]);
            command.args(["--threads", &self.plan.threads.to_string()]);
            command.arg("--out").arg(&run);
        }
        let errors = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        detach(&mut command);
        let child = command.spawn().context("cannot start a run")?;
        let Some(status) = self.wait(child)? else { return Ok(None) };
        if !status.success() {
            bail!("{status}: {} ({})", last_line(&log), log.display());
        }
        let seconds = seconds(&run)?;
        let result = Cell::of_run(
            cell.key.clone(),
            &run,
            cell.settings.clone(),
            env!("CARGO_PKG_VERSION"),
            seconds,
        )?;
        result.write(&self.plan.file(&cell.key))?;
        if !self.keep_runs {
            for path in [&settings, &log] {
                let _ = fs::remove_file(path);
            }
            fs::remove_dir_all(&run).with_context(|| format!("cannot remove {}", run.display()))?;
        }
        Ok(Some(result))
    }

    /// The settings' file and the run's directory of a cell. Their names depend on the settings, so
    /// that a run of other ones is never continued.
    fn places(&self, cell: &PlannedCell) -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&cell.settings)?.hash(&mut hasher);
        self.plan.name.hash(&mut hasher);
        let name = format!("{}--{:08x}", cell.key.name(), hasher.finish() as u32);
        let run = self.runs.join(name);
        // Names may hold dots: an ending is added, never replaced.
        let mut settings = run.clone().into_os_string();
        settings.push(".toml");
        Ok((settings.into(), run))
    }

    /// Waits for a run; kills it, which loses nothing that is committed, when the study is stopped.
    fn wait(&self, mut child: Child) -> anyhow::Result<Option<std::process::ExitStatus>> {
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for a run")? {
                return Ok(Some(status));
            }
            if self.stop.load(Ordering::Relaxed) {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(None);
            }
            thread::sleep(TICK);
        }
    }
}

/// Whether a cell's run has begun. What a start left that was killed before its manifest is cleared;
/// a run that cannot be read is not, since it may be whole.
fn is_begun(run: &Path) -> anyhow::Result<bool> {
    match Run::open(run) {
        Ok(_) => Ok(true),
        Err(RunError::NotARun { .. }) => {
            if run.exists() {
                fs::remove_dir_all(run)
                    .with_context(|| format!("cannot clear {}", run.display()))?;
            }
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The terminal's Ctrl-C reaches the study only, which then stops its runs.
#[cfg(unix)]
fn detach(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0);
}

#[cfg(not(unix))]
fn detach(_: &mut Command) {}

/// Seconds that a run's steps took, evaluations included, however often it was stopped.
fn seconds(run: &Path) -> anyhow::Result<f64> {
    let timings = Run::open(run)?.timings()?;
    Ok(timings.iter().filter_map(|line| line.get("total_s")?.as_f64()).sum())
}

fn last_line(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().rev();
    lines.map(str::trim).find(|l| !l.is_empty()).unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_cannot_be_read_is_not_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("cell");
        assert!(!is_begun(&run).unwrap());
        fs::create_dir(&run).unwrap();
        fs::write(run.join("config.toml.tmp"), "half").unwrap();
        assert!(!is_begun(&run).unwrap() && !run.exists());

        fs::create_dir(&run).unwrap();
        let manifest = run.join("manifest.json");
        for damage in ["{\"format\": 1", "{\"format\": 99}"] {
            fs::write(&manifest, damage).unwrap();
            let error = is_begun(&run).unwrap_err().to_string();
            assert!(error.contains("manifest.json") && manifest.exists(), "{error}");
        }
    }
}
