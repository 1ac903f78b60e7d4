//! Trackers: what names them, and runs that are mirrored to them while they are written.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use empg_track::{Address, Credentials, Mirror, MirrorOptions, Status, TrackError, Trust};
use indicatif::ProgressBar;

use crate::output;
use crate::settings::SettingsError;

/// Time between looks at a run.
const LOOK: Duration = Duration::from_secs(2);
/// First and longest pause after a failure; it doubles in between.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of a run waits for its trackers.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// A tracker that a run may be mirrored to.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    options: MirrorOptions,
}

impl Tracker {
    /// The trackers of `record.track`.
    ///
    /// # Errors
    /// A name that is none, an address that cannot be one.
    pub(crate) fn all(names: &[String]) -> Result<Vec<Self>, SettingsError> {
        names.iter().map(|name| Self::named(name)).collect()
    }

    fn named(name: &str) -> Result<Self, SettingsError> {
        let refuse = |what: String| SettingsError::Refused { key: "record.track", what };
        let (kind, url) = match name.split_once('=') {
            Some((kind, url)) => (kind, Some(url)),
            None => (name, None),
        };
        match kind {
            "mlflow" if url.is_none() && variable("MLFLOW_TRACKING_URI").is_none() => {
                return Err(refuse(
                    "mlflow alone takes the server from MLFLOW_TRACKING_URI, which is not set; \
                     mlflow=URL names it"
                        .to_owned(),
                ));
            }
            "mlflow" => {}
            "wandb" => {
                return Err(refuse(
                    "W&B is spoken to by its Python package: run `python -m empg.track wandb RUN \
                     --follow` beside the training"
                        .to_owned(),
                ));
            }
            "tensorboard" | "jsonl" => {
                return Err(refuse(format!("{kind} needs no tracker: every run has its file")));
            }
            _ => return Err(refuse(format!("{name:?} is no tracker: mlflow or mlflow=URL"))),
        }
        let tracker = Self::mlflow(url, None).map_err(|error| refuse(error.to_string()))?;
        if url.is_some() && tracker.options.address.has_credentials() {
            return Err(refuse(
                "the run's config.toml would keep the password: give it by MLFLOW_TRACKING_USERNAME \
                 and MLFLOW_TRACKING_PASSWORD"
                    .to_owned(),
            ));
        }
        Ok(tracker)
    }

    /// An MLflow server: the one at `url`, else `MLFLOW_TRACKING_URI`'s; who asks, whom to believe
    /// and the experiment are taken from the variables that MLflow's own clients read.
    ///
    /// # Errors
    /// No address, or none that a server can be reached at.
    pub(crate) fn mlflow(
        url: Option<&str>,
        experiment: Option<String>,
    ) -> Result<Self, TrackError> {
        let url = url.map(str::to_owned).or_else(|| variable("MLFLOW_TRACKING_URI"));
        let address = Address::parse(&url.unwrap_or_default())?;
        let credentials =
            match (variable("MLFLOW_TRACKING_USERNAME"), variable("MLFLOW_TRACKING_TOKEN")) {
                (Some(user), _) => {
                    let password = variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default();
                    Credentials::Basic { user, password }
                }
                (None, Some(token)) => Credentials::Bearer(token),
                (None, None) => Credentials::None,
            };
        let trust = match variable("MLFLOW_TRACKING_SERVER_CERT_PATH") {
            Some(path) => Trust::File(PathBuf::from(path)),
            None if variable("MLFLOW_TRACKING_INSECURE_TLS").is_some_and(|v| v == "true") => {
                Trust::Everyone
            }
            None => Trust::Public,
        };
        let experiment = experiment.or_else(|| variable("MLFLOW_EXPERIMENT_NAME"));
        let experiment = experiment.unwrap_or_else(|| "empg".to_owned());
        let options = MirrorOptions { address, credentials, trust, experiment, timeout: TIMEOUT };
        Ok(Self { options })
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        self.options.address.url()
    }

    /// The run in `path`, mirrored there.
    ///
    /// # Errors
    /// As [`Mirror::open`].
    pub(crate) fn mirror(&self, path: &Path) -> Result<Mirror, TrackError> {
        Mirror::open(path, self.options.clone())
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How long to wait after failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    failures: u32,
}

impl Patience {
    /// The pause after one more failure.
    pub(crate) fn pause(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures += 1;
        FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
    }

    /// Something worked; gives whether there had been failures.
    pub(crate) fn restore(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// How many failures there were in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

/// Threads that mirror the run of this process. They only read what is committed: whatever happens
/// to a tracker, training neither fails nor waits.
#[derive(Debug)]
pub(crate) struct Following {
    threads: Vec<Follow>,
    run: PathBuf,
}

#[derive(Debug)]
struct Follow {
    url: String,
    end: Sender<Status>,
    done: Receiver<()>,
}

impl Following {
    /// Starts to mirror the run in `path`.
    pub(crate) fn start(path: &Path, trackers: Vec<Tracker>, bar: Option<&ProgressBar>) -> Self {
        let mut threads = Vec::new();
        for tracker in trackers {
            let (end, told) = mpsc::channel();
            let (finished, done) = mpsc::channel();
            let url = tracker.url().to_owned();
            let (path, voice) = (path.to_owned(), Voice { bar: bar.cloned() });
            let body = move || {
                follow(&tracker, &path, &told, &voice);
                let _ = finished.send(());
            };
            match thread::Builder::new().name("tracker".to_owned()).spawn(body) {
                Ok(_) => threads.push(Follow { url, end, done }),
                Err(error) => crate::say!("warning: {url} is not told of this run: {error}"),
            }
        }
        Self { threads, run: path.to_owned() }
    }

    /// Tells the trackers how the run ended, and waits a while for them.
    pub(crate) fn finish(self, status: Status) {
        for thread in &self.threads {
            let _ = thread.end.send(status);
        }
        let deadline = Instant::now() + LAST_WORDS;
        for thread in &self.threads {
            let left = deadline.saturating_duration_since(Instant::now());
            if thread.done.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                let run = output::quoted(self.run.display());
                let url = output::quoted(&thread.url);
                crate::say!(
                    "warning: {} has not taken the whole run; send it the rest with: empg track \
                     {run} --mlflow {url}",
                    thread.url
                );
            }
        }
    }
}

/// What is said beside a progress bar.
struct Voice {
    bar: Option<ProgressBar>,
}

impl Voice {
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.println(text),
            _ => crate::say!("{text}"),
        }
    }
}

/// Mirrors until told of the run's end and done with it, or until the tracker refuses for good.
fn follow(tracker: &Tracker, path: &Path, told: &Receiver<Status>, voice: &Voice) {
    let later = || {
        let (run, url) = (output::quoted(path.display()), output::quoted(tracker.url()));
        format!("empg track {run} --mlflow {url}")
    };
    let mut mirror = match tracker.mirror(path) {
        Ok(mirror) => mirror,
        Err(error) => return voice.say(&format!("warning: the run is not tracked: {error}")),
    };
    let mut patience = Patience::default();
    let mut announced = false;
    let mut status = Status::Running;
    let mut given_up = false;
    loop {
        let pause = match mirror.pass(status) {
            Ok(_) => {
                if patience.restore() {
                    voice.say(&format!("{} is back and up to date", tracker.url()));
                }
                if let Some(page) = mirror.page().filter(|_| !announced) {
                    voice.say(&format!("  tracked at   {page}"));
                    announced = true;
                }
                if status != Status::Running {
                    return;
                }
                LOOK
            }
            // It was gone before the end: the end does not wait for its return.
            Err(error) if error.may_pass() && status != Status::Running && given_up => {
                return voice.say(&format!("warning: {error}; send the run with: {}", later()));
            }
            Err(error) if error.may_pass() => {
                if patience.failures() == 0 {
                    voice.say(&format!(
                        "warning: {error}; training goes on, and the tracker is tried again"
                    ));
                }
                patience.pause()
            }
            Err(error) => {
                return voice.say(&format!(
                    "warning: the run is not tracked any more: {error}; later: {}",
                    later()
                ));
            }
        };
        if status == Status::Running {
            match told.recv_timeout(pause) {
                Ok(end) => {
                    status = end;
                    given_up = patience.failures() > 0;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            // The end waits for us: try often.
            thread::sleep(pause.min(FIRST_PAUSE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> String {
        Tracker::all(&[name.to_owned()]).unwrap_err().to_string()
    }

    #[test]
    fn trackers_are_read_from_their_names() {
        let all = Tracker::all(&["mlflow=http://127.0.0.1:5000/".to_owned()]).unwrap();
        assert_eq!(all[0].url(), "http://127.0.0.1:5000");
        assert!(refused("wandb").contains("python -m empg.track wandb"));
        assert!(refused("tensorboard").contains("every run has its file"));
        assert!(refused("comet").contains("comet"));
        assert!(refused("mlflow=sqlite:///m.db").contains("http"));
        let error = refused("mlflow=http://me:secret@host");
        assert!(error.contains("MLFLOW_TRACKING_PASSWORD") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn patience_grows_to_a_limit_and_is_restored() {
        let mut patience = Patience::default();
        assert!(!patience.restore());
        let pauses: Vec<u64> = (0..7).map(|_| patience.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        patience.failures = 40;
        assert_eq!(patience.pause(), LONGEST_PAUSE);
        assert!(patience.restore() && patience.failures() == 0);
    }
}
