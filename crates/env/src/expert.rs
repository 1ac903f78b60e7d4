//! Experts: players that act on observations alone, for a policy to imitate.

use crate::dice::{Dice, mix};
use crate::{Env, EnvError};

/// Plays an environment from its observations.
pub trait Expert: Send {
    /// Takes in an observation and the action that led to it; no action for the first observation,
    /// which starts an episode.
    fn observe(&mut self, action: Option<&str>, observation: &str);

    /// What to do now. Depends only on what was observed so far, so it can be asked after any
    /// history.
    fn next_action(&mut self) -> String;

    /// Why, in a sentence or two; empty where the expert does not tell.
    fn thought(&mut self) -> String {
        String::new()
    }
}

/// How well an expert plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Without mistakes.
    #[default]
    Clean,
    /// With mistakes made of sensible actions: what reinforcement learning can unlearn.
    Careless,
}

/// How a demonstration is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Showing {
    /// How well the expert plays.
    pub manner: Manner,
    /// Probability per turn of a random action that is seen, but not to be imitated; the expert goes
    /// on from there.
    pub noise: f64,
    /// The most turns.
    pub max_turns: usize,
    /// Whether every turn lists the commands that were admissible.
    pub admissible: bool,
}

/// One turn of a demonstration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemonstrationTurn {
    /// What was seen before the action.
    pub observation: String,
    /// Why the action was chosen; empty for noise, and where the expert does not tell.
    pub thought: String,
    /// What was done.
    pub action: String,
    /// The admissible commands, where they were asked for.
    pub admissible: Vec<String>,
    /// Whether a policy should learn to do this here; false for noise.
    pub imitate: bool,
}

/// A played episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// Its turns.
    pub turns: Vec<DemonstrationTurn>,
    /// What was seen after the last action.
    pub last: String,
    /// Whether the task was solved.
    pub won: bool,
}

/// Plays a task with an expert; `noise` makes a random action, where one makes sense.
///
/// # Errors
/// What the environment refuses.
pub(crate) fn show(
    env: &mut dyn Env,
    expert: &mut dyn Expert,
    task: &str,
    seed: u64,
    showing: &Showing,
    mut noise: impl FnMut(&dyn Env, &mut Dice) -> Option<String>,
) -> Result<Demonstration, EnvError> {
    let mut dice = Dice::new(mix(0x6469_7374_7261_6374, seed));
    let mut observation = env.reset(task, seed)?.text;
    expert.observe(None, &observation);
    let mut turns = Vec::with_capacity(showing.max_turns);
    let mut won = false;
    while turns.len() < showing.max_turns {
        let random = if showing.noise > 0.0 && dice.chance(showing.noise) {
            noise(env, &mut dice)
        } else {
            None
        };
        let imitate = random.is_none();
        let admissible = if showing.admissible { env.admissible() } else { Vec::new() };
        let thought = if imitate { expert.thought() } else { String::new() };
        let action = random.unwrap_or_else(|| expert.next_action());
        let transition = env.step(&action)?;
        expert.observe(Some(&action), &transition.observation.text);
        let before = std::mem::replace(&mut observation, transition.observation.text);
        turns.push(DemonstrationTurn { observation: before, thought, action, admissible, imitate });
        if transition.end.is_some() {
            won = transition.won;
            break;
        }
    }
    Ok(Demonstration { turns, last: observation, won })
}
