//! A run directory and its image on a server.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use empg_run::{FollowedStep, Follower, scalars};
use sha2::{Digest as _, Sha256};

use crate::connection::{Address, Connection, Credentials, Trust};
use crate::mlflow::{Known, Mlflow, Point};
use crate::{Result, names, settings};

/// Where a run goes and how.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    /// The tracking server.
    pub address: Address,
    /// Who asks, where the address does not say it.
    pub credentials: Credentials,
    /// Whom to believe over https.
    pub trust: Trust,
    /// The experiment; it is made if it does not exist.
    pub experiment: String,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It goes on.
    Running,
    /// It has taken all of its steps.
    Finished,
    /// It was stopped by an error.
    Failed,
    /// It was stopped, and may be resumed.
    Stopped,
}

impl Status {
    /// MLflow's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Stopped => "KILLED",
        }
    }
}

/// What a pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Points that were sent.
    pub points: usize,
    /// Points that the server had already.
    pub known: usize,
    /// The status that the image has now.
    pub status: Status,
}

/// A run directory and its image on a server.
#[derive(Debug)]
pub struct Mirror {
    follower: Follower,
    server: Mlflow,
    experiment: String,
    name: String,
    identity: String,
    queue: VecDeque<Point>,
    image: Option<Image>,
    /// Whether anything was sent that the server did not have.
    grown: bool,
    /// Wall time of the last step read, or the run's creation.
    milliseconds: i64,
    last_step: Option<u64>,
}

/// What was found on the server since the connection was last in doubt.
#[derive(Debug)]
struct Image {
    experiment: String,
    known: Known,
}

impl Mirror {
    /// Prepares to mirror the run in `path`; nothing is asked of the server yet.
    ///
    /// # Errors
    /// No run, certificates that cannot be read.
    pub fn open(path: &Path, options: MirrorOptions) -> Result<Self> {
        let MirrorOptions { address, credentials, trust, experiment, timeout } = options;
        let follower = Follower::open(path)?;
        let connection = Connection::new(address, &credentials, &trust, timeout)?;
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = whole.file_name().map_or("run".into(), |n| n.to_string_lossy().into_owned());
        let created = follower.run().created().unwrap_or_default();
        Ok(Self {
            identity: identity(&whole),
            server: Mlflow::new(connection),
            experiment,
            name,
            queue: VecDeque::new(),
            image: None,
            grown: false,
            milliseconds: milliseconds(created),
            last_step: None,
            follower,
        })
    }

    /// Brings the image up to date with what is committed, and its status to `status`. A run that is
    /// stopped stays failed there if it has not gone on since: its directory does not say why it
    /// stopped, its training did. After an error nothing is lost: the next pass first asks the server
    /// what has arrived.
    ///
    /// # Errors
    /// Those of the network ([`TrackError::may_pass`](crate::TrackError::may_pass)), refusals, a
    /// damaged run.
    pub fn pass(&mut self, status: Status) -> Result<Passed> {
        let passed = self.try_pass(status);
        if passed.is_err() {
            // A request without an answer may have been carried out.
            self.image = None;
        }
        passed
    }

    /// The run's page on the server, once a pass has found or made it.
    pub fn page(&self) -> Option<String> {
        let image = self.image.as_ref()?;
        Some(self.server.page(&image.experiment, &image.known.id))
    }

    /// The run's identifier on the server, once a pass has found or made it.
    pub fn run_id(&self) -> Option<&str> {
        self.image.as_ref().map(|image| image.known.id.as_str())
    }

    /// How the run stands by what its directory shows.
    ///
    /// # Errors
    /// A directory that holds no run any more.
    pub fn status(&self) -> Result<Status> {
        // The lock first: a run that ends in between has committed its last step by then.
        let written = self.follower.run().is_being_written();
        let run = empg_run::Run::open(self.follower.run().path())?;
        let steps = run.config().ok().and_then(|c| settings::flat(&c).get("steps")?.parse().ok());
        Ok(match (written, run.manifest().step, steps) {
            (true, ..) => Status::Running,
            (_, Some(done), Some::<u64>(steps)) if done >= steps => Status::Finished,
            _ => Status::Stopped,
        })
    }

    fn try_pass(&mut self, status: Status) -> Result<Passed> {
        let mut passed = Passed { points: 0, known: 0, status };
        let mut image = match self.image.take() {
            Some(image) => image,
            None => self.find()?,
        };
        passed.known += self.forget_known(&image.known);
        loop {
            while !self.queue.is_empty() {
                let sent = self.server.log(&image.known.id, self.queue.make_contiguous())?;
                self.queue.drain(..sent);
                self.grown = true;
                passed.points += sent;
            }
            let news = self.follower.look()?;
            self.enqueue(news.steps);
            passed.known += self.forget_known(&image.known);
            if self.queue.is_empty() && self.follower.caught_up() {
                break;
            }
        }
        let failed = image.known.status == Status::Failed.word();
        if status == Status::Stopped && failed && !self.grown {
            passed.status = Status::Failed;
        }
        let word = passed.status.word();
        if image.known.status != word {
            let end = (status != Status::Running).then_some(self.milliseconds);
            self.server.set_status(&image.known.id, word, end)?;
            word.clone_into(&mut image.known.status);
        }
        self.image = Some(image);
        Ok(passed)
    }

    /// Points of steps that were not told before; a run that was resumed repeats some.
    fn enqueue(&mut self, steps: Vec<FollowedStep>) {
        for FollowedStep { step, seconds, metrics, timings } in steps {
            if self.last_step.is_some_and(|last| step <= last) {
                continue;
            }
            self.last_step = Some(step);
            // Clocks may be set back; charts over time may not go back.
            let now = seconds.map_or(self.milliseconds, milliseconds);
            self.milliseconds = self.milliseconds.max(now);
            for (name, value) in [metrics, timings].iter().flat_map(scalars) {
                if name != "step" && value.is_finite() {
                    let (key, milliseconds) = (names::key(&name), self.milliseconds);
                    self.queue.push_back(Point { key, value, step, milliseconds });
                }
            }
        }
    }

    /// Drops points that the server has; gives how many those were.
    fn forget_known(&mut self, known: &Known) -> usize {
        let before = self.queue.len();
        self.queue.retain(|p| known.last.get(&p.key).is_none_or(|&last| p.step > last));
        before - self.queue.len()
    }

    /// The run on the server, made and described if it is not there yet.
    fn find(&self) -> Result<Image> {
        let experiment = self.server.experiment(&self.experiment)?;
        let run = self.follower.run();
        let known = if let Some(known) = self.server.find(&experiment, &self.identity)? {
            known
        } else {
            let created = run.created().map_or(self.milliseconds, milliseconds);
            self.server.create(&experiment, &self.identity, &self.name, created)?
        };
        let mut params = Vec::new();
        let directory = fs::canonicalize(run.path()).unwrap_or_else(|_| run.path().to_owned());
        let mut tags = vec![("empg.directory".to_owned(), directory.display().to_string())];
        if let serde_json::Value::Object(facts) = run.manifest().info() {
            tags.extend(facts.into_iter().map(|(key, value)| {
                let key = if key == "empg" { "version" } else { key.as_str() };
                (format!("empg.{key}"), value.as_str().map_or(value.to_string(), str::to_owned))
            }));
        }
        for (key, value) in settings::flat(&run.config()?) {
            let (key, value) = (names::key(&key), names::param(&value));
            match known.params.get(&key) {
                None => params.push((key, value)),
                // Parameters cannot be changed; a run that is trained further has other ones.
                Some(then) if *then != value => tags.push((format!("empg.now.{key}"), value)),
                Some(_) => {}
            }
        }
        for (key, value) in &mut tags {
            *key = names::key(key);
            *value = names::tag(value);
        }
        self.server.describe(&known.id, &params, &tags)?;
        Ok(Image { experiment, known })
    }
}

fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// What a run is known by, wherever it lies and however far it has come: a hash of what was written
/// when it was created. A run that lacks it is known by its place.
fn identity(root: &Path) -> String {
    let created = fs::read(root.join("created.json"));
    let bytes = created.unwrap_or_else(|_| root.to_string_lossy().into_owned().into_bytes());
    let mut text = String::new();
    for byte in &Sha256::digest(bytes)[..8] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
