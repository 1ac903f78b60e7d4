//! A server's tasks, and the sessions that are open with it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Map, Value};
use ureq::Agent;

use super::address::Address;
use super::connection::{Connection, Trouble};
use super::episode::Episode;
use super::schema::ActionField;
use crate::remote::agreement::Agreement;
use crate::remote::place::Place;
use crate::remote::{Notice, start_of};
use crate::{Env, EnvError, Split, Task, TaskSet};

/// How a server is asked.
#[derive(Clone, Debug)]
pub struct OpenEnvOptions {
    /// `http://HOST:PORT`.
    pub url: String,
    /// The action's field that takes the policy's text; by default what the server's schema suggests.
    pub action_field: Option<String>,
    /// The observation's field that the policy reads, dots leading inwards; by default the first of
    /// the usual names that is there.
    pub observation_field: Option<String>,
    /// Added to every reset. `{split}`, `{index}`, `{seed}` and `{task}` in texts are filled in.
    pub reset: Map<String, Value>,
    /// Longest wait for an answer. It is not repeated.
    pub timeout: Duration,
    /// How often a connection that cannot be had, or that a full server refuses, is tried again.
    pub retries: u32,
    /// Pause before the first repetition; it doubles with each, up to 10 s.
    pub backoff: Duration,
    /// Sessions at a time.
    pub sessions: usize,
    /// Tasks of each split; `None`: without end.
    pub tasks: Option<u64>,
    /// Who is told of what is no error.
    pub notice: Notice,
}

impl OpenEnvOptions {
    /// 60 s, four repetitions after 0.25, 0.5, 1 and 2 s, 64 sessions, tasks without end.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            action_field: None,
            observation_field: None,
            reset: Map::new(),
            timeout: Duration::from_mins(1),
            retries: 4,
            backoff: Duration::from_millis(250),
            sessions: 64,
            tasks: None,
            notice: Notice::default(),
        }
    }
}

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often connections that nobody uses are looked after. Servers ask every 20 s whether one is
/// still there.
const TENDING: Duration = Duration::from_secs(4);
/// Longest description of a server that is read.
const LONGEST_DESCRIPTION: u64 = 4 << 20;

/// The tasks of an OpenEnv server.
#[derive(Clone, Debug)]
pub struct OpenEnvSet {
    server: Arc<Server>,
    max_steps: Option<u32>,
}

/// A session that is tended while it is not used.
pub(super) type Line = Arc<Mutex<Connection>>;

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// An observation with reward and end.
    Observation(Value),
    /// An error by its code.
    Refused { code: String, message: String },
}

#[derive(Debug)]
pub(super) struct Server {
    address: Address,
    pub(super) options: OpenEnvOptions,
    pub(super) action: ActionField,
    pub(super) agreement: Agreement,
    kind: String,
    /// Sessions that no episode uses.
    idle: Mutex<Vec<Line>>,
    /// All sessions.
    lines: Mutex<Vec<Weak<Mutex<Connection>>>>,
}

impl OpenEnvSet {
    /// Asks the server what its actions look like.
    ///
    /// # Errors
    /// An address that cannot be used, a server that does not answer, actions without a field for
    /// a text.
    pub fn connect(options: OpenEnvOptions) -> Result<Self, EnvError> {
        let address = Address::read(&options.url)?;
        let patience = options.timeout.min(Duration::from_secs(30));
        let config = Agent::config_builder()
            .timeout_global(Some(patience))
            .http_status_as_error(false)
            .max_redirects(3)
            .proxy(None)
            .build();
        let agent = Agent::from(config);
        let schema = description(&agent, &address, "schema", &options)?;
        let failed =
            |what: String| EnvError::Failed(format!("the server at {}: {what}", address.http));
        let action = schema.as_ref().and_then(|schema| schema.get("action"));
        let action =
            ActionField::choose(options.action_field.as_deref(), action).map_err(failed)?;
        let metadata = description(&agent, &address, "metadata", &options)?;
        let name = metadata.as_ref().and_then(|m| m.get("name")?.as_str());
        let kind = match name.map(str::trim) {
            Some(name) if !name.is_empty() && name.len() <= 64 => name.to_owned(),
            _ => "openenv".to_owned(),
        };
        let agreement = Agreement::new(options.notice.clone());
        let (idle, lines) = (Mutex::default(), Mutex::default());
        let server = Arc::new(Server { address, options, action, agreement, kind, idle, lines });
        tend(&server);
        Ok(Self { server, max_steps: None })
    }

    /// The same server; episodes are cut off after so many steps.
    #[must_use]
    pub fn with(&self, max_steps: Option<u32>) -> Self {
        Self { server: Arc::clone(&self.server), max_steps }
    }

    /// The field of an action that takes the policy's text.
    pub fn action_field(&self) -> &str {
        self.server.action.name()
    }

    /// What the server calls itself.
    pub fn kind(&self) -> &str {
        &self.server.kind
    }
}

impl TaskSet for OpenEnvSet {
    fn name(&self) -> &'static str {
        "openenv"
    }

    fn len(&self, _: Split) -> Option<u64> {
        self.server.options.tasks
    }

    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError> {
        let place = Place::at(split, index, self.server.options.tasks, "openenv")?;
        Ok(place.task(&self.server.kind))
    }

    fn place(&self, seed: u64) -> Option<(Split, u64)> {
        Some(Place::of_seed(seed))
    }

    fn make(&self) -> Box<dyn Env> {
        Box::new(Episode::new(Arc::clone(&self.server), self.max_steps))
    }

    fn elsewhere(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.server.options.sessions.max(1))
    }
}

impl Server {
    /// Starts an episode: a reset on a session that is free, or else on a new one.
    pub(super) fn begin(&self, reset: &str) -> Result<(Line, Answer), String> {
        loop {
            let free = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(line) = free else { break };
            match self.ask(&line, reset) {
                // It was closed while nobody used it.
                Err(Trouble::Lost(_) | Trouble::Unreachable(_)) => {}
                Err(trouble) => return Err(self.in_words(&trouble, "a reset", 1)),
                Ok(answer) => return Ok((line, answer)),
            }
        }
        self.fresh(reset)
    }

    /// Starts an episode on a new session.
    pub(super) fn fresh(&self, reset: &str) -> Result<(Line, Answer), String> {
        let options = &self.options;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let opened = Connection::open(&self.address, options.timeout);
            let opened = opened.map(|connection| Arc::new(Mutex::new(connection)));
            let failed = match opened.and_then(|line| Ok((self.ask(&line, reset)?, line))) {
                Ok((Answer::Refused { code, message }, _)) if code == "CAPACITY_REACHED" => {
                    Trouble::Unreachable(format!(
                        "{message} (fewer sessions at a time: env.sessions, now {})",
                        options.sessions
                    ))
                }
                Ok((answer, line)) => {
                    let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.retain(|line| line.strong_count() > 0);
                    lines.push(Arc::downgrade(&line));
                    return Ok((line, answer));
                }
                Err(trouble) => trouble,
            };
            let again = matches!(failed, Trouble::Unreachable(_) | Trouble::Lost(_));
            if !again || attempts > options.retries {
                return Err(self.in_words(&failed, "a reset", attempts));
            }
            pause(options, attempts);
        }
    }

    /// One question and its answer.
    pub(super) fn ask(&self, line: &Line, message: &str) -> Result<Answer, Trouble> {
        let mut connection = line.lock().unwrap_or_else(PoisonError::into_inner);
        let text = connection.ask(message, self.options.timeout)?;
        let nonsense = |what: &str| {
            Trouble::Nonsense(format!("{what}; its answer begins with {:?}", start_of(&text)))
        };
        let answer: Value = serde_json::from_str(&text).map_err(|e| nonsense(&e.to_string()))?;
        let data = || answer.get("data").cloned().unwrap_or_default();
        match answer.get("type").and_then(Value::as_str) {
            Some("observation") => Ok(Answer::Observation(data())),
            Some("error") => {
                let data = data();
                let part = |name: &str| data.get(name).and_then(Value::as_str).map(start_of);
                let code = part("code").unwrap_or_default();
                let mut message = part("message").unwrap_or_else(|| start_of(&data.to_string()));
                // What pydantic has against the first field that it refuses.
                if let Some(detail) = data.pointer("/errors/0/msg").and_then(Value::as_str) {
                    message = format!("{message}: {}", start_of(detail));
                }
                Ok(Answer::Refused { code, message })
            }
            _ => Err(nonsense("expected an observation or an error")),
        }
    }

    /// Takes back the session of an episode that is over.
    pub(super) fn give_back(&self, line: Line) {
        if line.lock().unwrap_or_else(PoisonError::into_inner).alive() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    /// The sentence for who reads why an episode failed.
    pub(super) fn in_words(&self, trouble: &Trouble, during: &str, attempts: u32) -> String {
        let url = &self.address.http;
        match trouble {
            Trouble::Unreachable(why) => {
                let times = if attempts == 1 { "attempt" } else { "attempts" };
                format!("cannot reach the environment at {url} ({attempts} {times}): {why}")
            }
            Trouble::Lost(why) => {
                format!("the connection to the environment at {url} was lost in {during}: {why}")
            }
            Trouble::Timeout(limit) => format!(
                "the environment at {url} did not answer {during} within {} s (env.timeout)",
                limit.as_secs_f64()
            ),
            Trouble::Nonsense(what) => {
                format!("the environment at {url} answered nonsense to {during}: {what}")
            }
        }
    }
}

/// Waits longer after every attempt.
fn pause(options: &OpenEnvOptions, attempts: u32) {
    let factor = 1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX);
    std::thread::sleep(options.backoff.saturating_mul(factor).min(LONGEST_PAUSE));
}

/// Looks after the sessions for as long as the server is used.
fn tend(server: &Arc<Server>) {
    let server = Arc::downgrade(server);
    let tending = std::thread::Builder::new().name("openenv-sessions".to_owned());
    // Without the thread long pauses may cost a session, which is opened anew.
    let _ = tending.spawn(move || {
        loop {
            std::thread::sleep(TENDING);
            let Some(server) = server.upgrade() else { return };
            let lines: Vec<Line> = {
                let mut lines = server.lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.retain(|line| line.strong_count() > 0);
                lines.iter().filter_map(Weak::upgrade).collect()
            };
            for line in lines {
                // One that is locked is being used.
                if let Ok(mut connection) = line.try_lock() {
                    connection.tend();
                }
            }
        }
    });
}

/// What the server says at a GET address; `None` where it says nothing that can be read.
fn description(
    agent: &Agent,
    address: &Address,
    what: &str,
    options: &OpenEnvOptions,
) -> Result<Option<Value>, EnvError> {
    let url = format!("{}/{what}", address.http);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (why, again) = match agent.get(&url).header("accept", "application/json").call() {
            Ok(mut response) => {
                let status = response.status().as_u16();
                if status < 500 && status != 429 {
                    let body = response.body_mut().with_config().limit(LONGEST_DESCRIPTION);
                    let text = body.read_to_string().unwrap_or_default();
                    let readable = (200..300).contains(&status);
                    return Ok(readable.then(|| serde_json::from_str(&text).ok()).flatten());
                }
                (format!("GET /{what} was answered with status {status}"), true)
            }
            Err(ureq::Error::Timeout(_)) => {
                (format!("GET /{what} was not answered in time"), false)
            }
            Err(error) => (error.to_string(), true),
        };
        if !again || attempts > options.retries {
            let times = if attempts == 1 { "attempt" } else { "attempts" };
            return Err(EnvError::Failed(format!(
                "cannot reach an OpenEnv server at {} ({attempts} {times}): {why}. Is it running? \
                 One of ours starts with: empg serve env households",
                address.http
            )));
        }
        pause(options, attempts);
    }
}
