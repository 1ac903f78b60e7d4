//! Lamps of three colours: naming the colour earns a share of the reward.

use empg_env::{Env, EnvEnd, EnvError, Observation, Split, Task, TaskSet, Transition};
use empg_llm::{Model, ModelConfig, Names, SideFiles, tiny_tokenizer};
use empg_train::{Config, Policy};

const COLOURS: [&str; 3] = ["red", "green", "blue"];

/// The task set; it can be told to fail, or to reward everything alike.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lamps {
    /// Every task with an odd number fails at its second turn.
    pub(crate) broken: bool,
    /// Nothing earns anything.
    pub(crate) flat: bool,
}

impl TaskSet for Lamps {
    fn name(&self) -> &'static str {
        "lamps"
    }

    fn len(&self, _: Split) -> Option<u64> {
        Some(27)
    }

    fn task(&self, _: Split, index: u64) -> Result<Task, EnvError> {
        Ok(Task { id: index.to_string(), kind: format!("first {}", COLOURS[index as usize % 3]) })
    }

    fn make(&self) -> Box<dyn Env> {
        Box::new(Room { set: *self, code: 0, lamp: 0, hits: 0 })
    }
}

struct Room {
    set: Lamps,
    code: usize,
    lamp: u32,
    hits: u32,
}

impl Room {
    fn colour(&self) -> &'static str {
        COLOURS[self.code / 3usize.pow(self.lamp) % 3]
    }
}

impl Env for Room {
    fn reset(&mut self, task: &str, _seed: u64) -> Result<Observation, EnvError> {
        self.code = task.parse().map_err(|_| EnvError::Failed(format!("no room {task}")))?;
        (self.lamp, self.hits) = (0, 0);
        Ok(Observation { text: format!("lamp {}", self.colour()) })
    }

    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        if self.set.broken && self.code % 2 == 1 && self.lamp == 1 {
            return Err(EnvError::Failed("the fuse blew".into()));
        }
        let hit = action == self.colour();
        self.hits += u32::from(hit);
        self.lamp += 1;
        Ok(Transition {
            observation: Observation { text: format!("lamp {}", self.colour()) },
            reward: if hit && !self.set.flat { 1.0 / 3.0 } else { 0.0 },
            end: (self.lamp == 3).then_some(EnvEnd::Terminated),
            won: self.hits == 3,
            effect: COLOURS.contains(&action),
        })
    }

    fn admissible(&self) -> Vec<String> {
        COLOURS.map(str::to_owned).to_vec()
    }
}

/// A small untrained policy that can spell the colours.
pub(crate) fn policy() -> Policy {
    let tokenizer =
        tiny_tokenizer(&Names { words: &["lamp", "red", "green", "blue"], ..Names::default() })
            .unwrap();
    let shape = Policy::untrained(tokenizer.clone(), 1).unwrap().model.config;
    let config = ModelConfig {
        hidden_size: 64,
        intermediate_size: 128,
        num_layers: 2,
        num_heads: 2,
        num_kv_heads: 2,
        ..shape
    };
    let model = Model::init(config, 1).unwrap();
    Policy { model, tokenizer, end_tokens: Vec::new(), side: SideFiles::default() }
}

/// Small batches, no evaluation to speak of.
pub(crate) fn config() -> Config {
    let mut config = Config { steps: 3, threads: 2, ..Config::default() };
    config.rollout.groups = 4;
    config.rollout.group_size = 4;
    config.rollout.max_turn_tokens = 2;
    config.eval.episodes = 4;
    config.record.trajectories_every = 1;
    config
}
