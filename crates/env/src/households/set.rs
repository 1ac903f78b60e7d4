//! Generated households as a set of tasks.

use std::sync::Arc;

use super::demonstration::{DemonstrationOptions, demonstration};
use super::expert::Expert;
use super::home::{Home, kind_at};
use super::style::ExpertStyle;
use crate::alfworld::{AlfworldEnv, DataVersion, Game, GameSource};
use crate::{Demonstration, Env, EnvError, Manner, Showing, Split, Task, TaskSet};

/// Unlimited generated households; task identifiers are `households/train/123`.
///
/// Layouts (how many receptacles of each class) and goal pairs (object class, target class) of the
/// unseen split occur in no other split; the seen split has games of its own from the train
/// distribution.
#[derive(Clone, Debug)]
pub struct HouseholdSet {
    version: DataVersion,
    max_steps: Option<u32>,
}

/// What is known of a generated game besides the game itself.
#[derive(Clone, Debug)]
pub struct Household {
    /// The game, as the loader made it.
    pub game: Arc<Game>,
    /// The problem file.
    pub problem: String,
    /// The room's type, e.g. `kitchen`.
    pub room: &'static str,
    /// The shortest commands that solve it, for one who knows what lies where.
    pub plan: Vec<String>,
}

impl HouseholdSet {
    /// Games in the wording of a data version that end after `max_steps` (`None`: never).
    pub fn new(version: DataVersion, max_steps: Option<u32>) -> Self {
        Self { version, max_steps }
    }

    /// The identifier of the task at an index.
    pub fn id(split: Split, index: u64) -> String {
        let split = match split {
            Split::Train => "train",
            Split::Seen => "seen",
            Split::Unseen => "unseen",
        };
        format!("households/{split}/{index}")
    }

    /// A game with its problem file and shortest plan.
    ///
    /// # Errors
    /// [`EnvError::Failed`] if the loader refuses the game, which tests rule out.
    pub fn household(&self, split: Split, index: u64) -> Result<Household, EnvError> {
        let home = Home::generate(split, index);
        let id = Self::id(split, index);
        let problem = home.problem(&problem_name(split, index));
        let plan =
            home.plan(self.version).ok_or_else(|| EnvError::Failed(format!("{id}: no plan")))?;
        Ok(Household { game: parse(&id, &problem, &home)?, problem, room: home.room, plan })
    }
}

impl Default for HouseholdSet {
    /// Data version 2.1.2 and 50 steps.
    fn default() -> Self {
        Self::new(DataVersion::V2_1_2, Some(50))
    }
}

fn problem_name(split: Split, index: u64) -> String {
    HouseholdSet::id(split, index).replace('/', "_")
}

fn parse(id: &str, problem: &str, home: &Home) -> Result<Arc<Game>, EnvError> {
    let game = Game::parse(id, problem, &home.sentence())
        .map_err(|error| EnvError::Failed(format!("{id}: {error}")))?;
    Ok(Arc::new(game))
}

fn unknown(task: &str) -> EnvError {
    EnvError::UnknownTask {
        task: task.to_string(),
        set: "households".to_string(),
        hint: Some("it looks like households/train/0, with train, seen or unseen".to_string()),
    }
}

/// Split and index of an identifier.
fn coordinates(task: &str) -> Option<(Split, u64)> {
    let (split, index) = task.strip_prefix("households/")?.split_once('/')?;
    let split = match split {
        "train" => Split::Train,
        "seen" => Split::Seen,
        "unseen" => Split::Unseen,
        _ => return None,
    };
    if index.starts_with('+') {
        return None;
    }
    Some((split, index.parse().ok()?))
}

struct Generator;

impl GameSource for Generator {
    fn game(&self, task: &str) -> Result<Arc<Game>, EnvError> {
        let (split, index) = coordinates(task).ok_or_else(|| unknown(task))?;
        let home = Home::generate(split, index);
        parse(task, &home.problem(&problem_name(split, index)), &home)
    }
}

impl TaskSet for HouseholdSet {
    fn name(&self) -> &'static str {
        "households"
    }

    fn len(&self, _: Split) -> Option<u64> {
        None
    }

    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError> {
        Ok(Task { id: Self::id(split, index), kind: kind_at(split, index).as_str().to_string() })
    }

    fn find(&self, id: &str) -> Result<Task, EnvError> {
        let (split, index) = coordinates(id).ok_or_else(|| unknown(id))?;
        Ok(Task { id: id.to_owned(), ..self.task(split, index)? })
    }

    fn make(&self) -> Box<dyn Env> {
        Box::new(AlfworldEnv::from_source(Arc::new(Generator), self.version, self.max_steps))
    }

    fn expert(&self, manner: Manner, seed: u64) -> Option<Box<dyn crate::Expert>> {
        Some(Box::new(Expert::new(&ExpertStyle::of(manner), seed)))
    }

    fn demonstrate(
        &self,
        task: &str,
        seed: u64,
        showing: &Showing,
    ) -> Result<Option<Demonstration>, EnvError> {
        demonstrate(&mut *self.make(), task, seed, showing).map(Some)
    }
}

/// A demonstration in generated or real games.
pub(crate) fn demonstrate(
    env: &mut dyn Env,
    task: &str,
    seed: u64,
    showing: &Showing,
) -> Result<Demonstration, EnvError> {
    let Showing { manner, noise, max_turns, admissible } = *showing;
    let style = ExpertStyle::of(manner);
    let options = DemonstrationOptions { style, noise, max_turns, admissible };
    demonstration(env, task, seed, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_other_identifiers() {
        let mut env = HouseholdSet::default().make();
        for task in [
            "",
            "households",
            "households/train",
            "households/train/-1",
            "households/test/1",
            "x/train/1",
        ] {
            assert!(matches!(env.reset(task, 0), Err(EnvError::UnknownTask { .. })), "{task}");
        }
        assert!(env.reset("households/unseen/18446744073709551615", 0).is_ok());
    }
}
