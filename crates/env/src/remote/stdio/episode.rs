//! One environment: an episode on a child of its own.

use std::sync::Arc;

use serde_json::{Value, json};

use super::child::Child;
use super::set::Program;
use crate::remote::outcome::Outcome;
use crate::remote::place::reset_arguments;
use crate::remote::start_of;
use crate::{Env, EnvError, Observation, Transition};

pub(super) struct Episode {
    program: Arc<Program>,
    max_steps: Option<u32>,
    child: Option<Child>,
    running: bool,
    steps: u32,
    admissible: Vec<String>,
}

impl Episode {
    pub(super) fn new(program: Arc<Program>, max_steps: Option<u32>) -> Self {
        let (child, admissible) = (None, Vec::new());
        Self { program, max_steps, child, running: false, steps: 0, admissible }
    }

    /// Ends the episode; its child is of use for another unless it failed.
    fn over(&mut self, reusable: bool) {
        self.running = false;
        self.admissible.clear();
        match self.child.take() {
            Some(child) if reusable => self.program.give_back(child),
            Some(child) => child.kill(),
            None => {}
        }
    }

    /// A question and what its answer says. `Err` carries whether the child is still in order.
    fn ask(&mut self, request: &Value) -> Result<Outcome, (String, bool)> {
        if self.child.is_none() {
            self.child = Some(self.program.child().map_err(|e| (e, false))?);
        }
        let Some(child) = &mut self.child else { return Err(("no child".to_owned(), false)) };
        let answer = child.ask(request, self.program.options.timeout).map_err(|e| (e, false))?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            let error = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err((format!("the environment failed: {}", start_of(&error)), true));
        }
        let field = self.program.options.observation_field.as_deref();
        Outcome::read(&answer, field).map_err(|what| {
            let text = answer.to_string();
            (format!("the environment answered nonsense: {what}; it is {}", start_of(&text)), false)
        })
    }

    fn fail(&mut self, during: &str, (what, in_order): (String, bool)) -> EnvError {
        self.over(in_order);
        EnvError::Failed(format!("{during}: {what}"))
    }
}

impl Env for Episode {
    fn reset(&mut self, task: &str, seed: u64) -> Result<Observation, EnvError> {
        self.over(true);
        let mut request = reset_arguments(task, seed, &self.program.options.reset);
        request.insert("type".to_owned(), json!("reset"));
        let request = Value::Object(request);
        let during = format!("reset to {task}");
        let outcome = self.ask(&request).map_err(|e| self.fail(&during, e))?;
        if outcome.done {
            let what = "the episode was over before its first step".to_owned();
            return Err(self.fail(&during, (what, true)));
        }
        self.program.agreement.note(task, &request.to_string(), &outcome.text);
        self.running = true;
        self.steps = 0;
        self.admissible = outcome.admissible;
        Ok(Observation { text: outcome.text })
    }

    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        if !self.running {
            return Err(EnvError::NotRunning);
        }
        self.steps += 1;
        let request = json!({"type": "step", "action": action});
        let during = format!("step {}", self.steps);
        let mut outcome = self.ask(&request).map_err(|e| self.fail(&during, e))?;
        self.admissible = std::mem::take(&mut outcome.admissible);
        let out_of_steps = self.max_steps.is_some_and(|most| self.steps >= most);
        let transition = outcome.transition(out_of_steps);
        if transition.end.is_some() {
            self.over(true);
        }
        Ok(transition)
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
