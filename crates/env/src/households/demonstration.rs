//! Plays an expert and writes down what a policy can imitate.

use super::belief::class_of;
use super::classes::{OBJECTS, RECEPTACLES, can_contain, object_class, receptacle_class};
use super::expert::Expert;
use super::style::ExpertStyle;
use super::vocabulary::highest;
use crate::dice::{Dice, mix};
use crate::expert::{Demonstration, DemonstrationTurn};
use crate::{Env, EnvError};

/// How a demonstration is played.
#[derive(Clone, Debug, PartialEq)]
pub struct DemonstrationOptions {
    /// The expert's mistakes.
    pub style: ExpertStyle,
    /// Probability per turn of a random command that is not to be imitated, half of them admissible,
    /// half of them not and sometimes repeated; the expert then goes on from there.
    pub noise: f64,
    /// The most turns.
    pub max_turns: usize,
    /// Whether every turn lists the commands that were admissible.
    pub admissible: bool,
}

impl Default for DemonstrationOptions {
    fn default() -> Self {
        Self { style: ExpertStyle::clean(), noise: 0.0, max_turns: 30, admissible: false }
    }
}

/// Plays a task with the expert. The same arguments give the same episode. Works on generated and on
/// real games, in both data versions.
///
/// # Errors
/// What the environment refuses: an unknown task, data that cannot be read.
pub fn demonstration(
    env: &mut dyn Env,
    task: &str,
    seed: u64,
    options: &DemonstrationOptions,
) -> Result<Demonstration, EnvError> {
    let mut expert = Expert::new(&options.style, seed);
    let mut dice = Dice::new(mix(0x006e_6f69_7365, seed));
    let intro = env.reset(task, seed)?.text;
    expert.observe(None, &intro);
    let mut noise = Noise::new(&intro);
    let mut observation = intro;
    let mut turns: Vec<DemonstrationTurn> = Vec::with_capacity(options.max_turns);
    let mut pending: Vec<String> = Vec::new();
    let mut left = None;
    let mut won = false;
    while turns.len() < options.max_turns {
        if expert.lost() {
            let linger = options.style.linger as usize;
            let rest = left.get_or_insert_with(|| dice.range(linger.div_ceil(2), linger));
            if *rest == 0 {
                break;
            }
            *rest -= 1;
        }
        if pending.is_empty() && options.noise > 0.0 && dice.chance(options.noise) {
            noise.commands(env, &mut dice, &mut pending);
        }
        let (thought, action, imitate) = match pending.pop() {
            Some(action) => (String::new(), action, false),
            None => (expert.thought(), expert.next_action(), true),
        };
        let admissible = if options.admissible { env.admissible() } else { Vec::new() };
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

/// Makes random commands.
struct Noise {
    receptacles: Vec<String>,
}

impl Noise {
    fn new(intro: &str) -> Self {
        let receptacles = super::reading::intro(intro)
            .map(|(names, _)| names.into_iter().map(str::to_string).collect())
            .unwrap_or_default();
        Self { receptacles }
    }

    /// Pushes one admissible command, or one inadmissible command up to three times.
    fn commands(&mut self, env: &dyn Env, dice: &mut Dice, out: &mut Vec<String>) {
        let admissible = env.admissible();
        if dice.chance(0.5) {
            // Half of the admissible commands are "go to": that is noise enough of one sort.
            for _ in 0..4 {
                if let Some(command) = dice.pick(&admissible)
                    && self.reversible(command)
                {
                    out.push(command.clone());
                    return;
                }
            }
            return;
        }
        let command = self.inadmissible(dice);
        if !admissible.contains(&command) {
            let times = [1, 1, 1, 1, 2, 2, 3][dice.below(7)];
            out.resize(out.len() + times, command);
        }
    }

    /// Not the command list, and nothing that could never be put down again.
    fn reversible(&self, command: &str) -> bool {
        if command == "help" {
            return false;
        }
        let Some((object, _)) =
            command.strip_prefix("take ").and_then(|rest| rest.split_once(" from "))
        else {
            return true;
        };
        object_class(class_of(object)).is_some_and(|object| {
            self.receptacles.iter().any(|name| {
                receptacle_class(class_of(name)).is_some_and(|rec| can_contain(rec, object))
            })
        })
    }

    fn object(dice: &mut Dice) -> String {
        let class = OBJECTS[dice.below(OBJECTS.len())].name;
        format!("{} {}", class.to_lowercase(), dice.range(1, highest(class).max(1)))
    }

    fn receptacle(&self, dice: &mut Dice) -> String {
        dice.pick(&self.receptacles).cloned().unwrap_or_else(|| "countertop 1".to_string())
    }

    fn inadmissible(&self, dice: &mut Dice) -> String {
        match dice.below(10) {
            0..5 => format!("take {} from {}", Self::object(dice), self.receptacle(dice)),
            5..7 => {
                let class = RECEPTACLES[dice.below(RECEPTACLES.len())].name;
                format!("go to {} {}", class.to_lowercase(), dice.range(1, highest(class).max(1)))
            }
            7 => format!("open {}", self.receptacle(dice)),
            8 => format!("move {} to {}", Self::object(dice), self.receptacle(dice)),
            _ => {
                let (verb, tool) =
                    [("clean", "sinkbasin 1"), ("heat", "microwave 1"), ("cool", "fridge 1")]
                        [dice.below(3)];
                format!("{verb} {} with {tool}", Self::object(dice))
            }
        }
    }
}
