//! One environment: an episode on a session of its own.

use std::sync::Arc;

use serde_json::{Value, json};

use super::connection::Trouble;
use super::set::{Answer, Line, Server};
use crate::remote::agreement::digest;
use crate::remote::outcome::Outcome;
use crate::remote::place::reset_arguments;
use crate::remote::start_of;
use crate::{Env, EnvError, Observation, Transition};

pub(super) struct Episode {
    server: Arc<Server>,
    max_steps: Option<u32>,
    line: Option<Line>,
    /// The reset of the episode that is running.
    reset: Option<String>,
    /// What was sent, and what came back: should the session be lost, they are played again.
    played: Vec<(String, u64)>,
    begins: u64,
    admissible: Vec<String>,
}

impl Episode {
    pub(super) fn new(server: Arc<Server>, max_steps: Option<u32>) -> Self {
        let (line, reset, played) = (None, None, Vec::new());
        Self { server, max_steps, line, reset, played, begins: 0, admissible: Vec::new() }
    }

    fn read(&self, data: &Value, during: &str) -> Result<Outcome, String> {
        Outcome::read(data, self.server.options.observation_field.as_deref()).map_err(|what| {
            let what = format!("{what}; it is {}", start_of(&data.to_string()));
            self.server.in_words(&Trouble::Nonsense(what), during, 1)
        })
    }

    /// Ends the episode; its session is of use for another where the server is in order.
    fn over(&mut self, reusable: bool) {
        self.reset = None;
        self.admissible.clear();
        if let Some(line) = self.line.take()
            && reusable
        {
            self.server.give_back(line);
        }
    }

    fn start(&mut self, task: &str, reset: &str) -> Result<Outcome, String> {
        let (line, answer) = self.server.begin(reset)?;
        self.line = Some(line);
        let data = match answer {
            Answer::Observation(data) => data,
            Answer::Refused { code, message } => {
                return Err(format!(
                    "the environment refused to reset to {task}: {message} ({code})"
                ));
            }
        };
        self.begins = digest(&data.to_string());
        let outcome = self.read(&data, "a reset")?;
        if outcome.done {
            return Err(format!("the episode of {task} was over before its first step"));
        }
        Ok(outcome)
    }

    /// Takes the action, on a new session where the old one was lost.
    fn act(&mut self, message: &str, during: &str) -> Result<Answer, String> {
        let Some(line) = &self.line else { return Err("there is no session".to_owned()) };
        match self.server.ask(line, message) {
            Ok(answer) => Ok(answer),
            Err(Trouble::Lost(why)) => {
                self.line = None;
                let lost = Trouble::Lost(why);
                self.again()
                    .map_err(|e| format!("{}; {e}", self.server.in_words(&lost, during, 1)))?;
                let Some(line) = &self.line else { return Err("there is no session".to_owned()) };
                self.server.ask(line, message).map_err(|e| self.server.in_words(&e, during, 1))
            }
            Err(trouble) => Err(self.server.in_words(&trouble, during, 1)),
        }
    }

    /// Plays on a new session what was played on the one that was lost. The server must answer as
    /// it did.
    fn again(&mut self) -> Result<(), String> {
        let reset = self.reset.clone().unwrap_or_default();
        let (line, answer) = self.server.fresh(&reset)?;
        let differs = || Err("played again it went another way".to_owned());
        let mut expected = self.begins;
        let mut answer = answer;
        for (message, next) in &self.played {
            if sees(&answer) != Some(expected) {
                return differs();
            }
            answer = self
                .server
                .ask(&line, message)
                .map_err(|e| self.server.in_words(&e, "an episode played again", 1))?;
            expected = *next;
        }
        if sees(&answer) != Some(expected) {
            return differs();
        }
        self.line = Some(line);
        Ok(())
    }
}

/// What the agent would see, in short; `None` where it would see nothing.
fn sees(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Observation(data) => Some(digest(&data.to_string())),
        Answer::Refused { code, message } => (code == INVALID).then(|| digest(message)),
    }
}

/// How a server refuses an action that is none: the policy's mistake, not the environment's.
const INVALID: &str = "VALIDATION_ERROR";

impl Env for Episode {
    fn reset(&mut self, task: &str, seed: u64) -> Result<Observation, EnvError> {
        self.over(true);
        self.played.clear();
        let arguments = reset_arguments(task, seed, &self.server.options.reset);
        let reset = json!({"type": "reset", "data": arguments}).to_string();
        match self.start(task, &reset) {
            Ok(outcome) => {
                self.server.agreement.note(task, &reset, &outcome.text);
                self.reset = Some(reset);
                self.admissible = outcome.admissible;
                Ok(Observation { text: outcome.text })
            }
            Err(what) => {
                self.over(false);
                Err(EnvError::Failed(what))
            }
        }
    }

    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        if self.reset.is_none() {
            return Err(EnvError::NotRunning);
        }
        let message =
            json!({"type": "step", "data": self.server.action.action(action)}).to_string();
        let number = self.played.len() + 1;
        let during = format!("step {number}");
        let out_of_steps = self.max_steps.is_some_and(|most| number >= most as usize);
        let played = self.act(&message, &during).and_then(|answer| {
            let seen = sees(&answer);
            let outcome = match answer {
                Answer::Observation(data) => self.read(&data, &during)?,
                Answer::Refused { code, message } if code == INVALID => Outcome {
                    text: message,
                    admissible: std::mem::take(&mut self.admissible),
                    reward: 0.0,
                    done: false,
                    won: false,
                    effect: false,
                    truncated: false,
                },
                Answer::Refused { code, message } => {
                    return Err(format!("the environment failed in {during}: {message} ({code})"));
                }
            };
            Ok((outcome, seen.unwrap_or_default()))
        });
        match played {
            Ok((mut outcome, seen)) => {
                self.played.push((message, seen));
                self.admissible = std::mem::take(&mut outcome.admissible);
                let transition = outcome.transition(out_of_steps);
                if transition.end.is_some() {
                    self.over(true);
                }
                Ok(transition)
            }
            Err(what) => {
                self.over(false);
                Err(EnvError::Failed(what))
            }
        }
    }

    fn admissible(&self) -> Vec<String> {
        self.admissible.clone()
    }
}

impl Drop for Episode {
    fn drop(&mut self) {
        self.over(true);
    }
}
