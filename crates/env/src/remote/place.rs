//! The tasks that a remote environment can be asked for.
//!
//! Nothing is known of them but a number: the task at an index of a split is the one that the other
//! side chooses for a seed. Splits have seeds of their own, so that what is evaluated is never what
//! was trained on, as long as the seed alone decides the task.

use serde_json::{Map, Value, json};

use crate::{EnvError, Split, Task};

/// Seeds of a split: as many as fit into 31 bits with three splits.
const SEEDS: u64 = 1 << 28;

/// A task by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    split: Split,
    index: u64,
}

fn name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Seen => "seen",
        Split::Unseen => "unseen",
    }
}

impl Place {
    /// The task at an index of a split of `tasks` tasks (`None`: without end, which is 2²⁸).
    ///
    /// # Errors
    /// An index past the end.
    pub(super) fn at(
        split: Split,
        index: u64,
        tasks: Option<u64>,
        set: &str,
    ) -> Result<Self, EnvError> {
        match tasks {
            Some(tasks) if index >= tasks => Err(EnvError::UnknownTask {
                task: format!("{}/{index}", name(split)),
                set: set.to_owned(),
                hint: Some(format!("each split has {tasks} tasks: env.tasks")),
            }),
            _ => Ok(Self { split, index: index % SEEDS }),
        }
    }

    /// Reads `train/5`; `None` where it is something else.
    pub(super) fn read(id: &str) -> Option<Self> {
        let (split, index) = id.split_once('/')?;
        let split = match split {
            "train" => Split::Train,
            "seen" => Split::Seen,
            "unseen" => Split::Unseen,
            _ => return None,
        };
        let index: u64 = index.parse().ok()?;
        (index < SEEDS && !id.contains('+')).then_some(Self { split, index })
    }

    /// As the trainer names it.
    pub(super) fn task(self, kind: &str) -> Task {
        Task { id: format!("{}/{}", name(self.split), self.index), kind: kind.to_owned() }
    }

    /// Split and index of a seed. Those past all splits come round in training, never in what is held
    /// out.
    pub(super) fn of_seed(seed: u64) -> (Split, u64) {
        let split = match seed / SEEDS {
            1 => Split::Seen,
            2 => Split::Unseen,
            _ => Split::Train,
        };
        (split, seed % SEEDS)
    }

    /// What decides the task on the other side.
    pub(super) fn seed(self) -> u64 {
        let block = match self.split {
            Split::Train => 0,
            Split::Seen => 1,
            Split::Unseen => 2,
        };
        block * SEEDS + self.index
    }
}

/// What is said at a reset: the seed, and what the settings add. In texts `{split}`, `{index}`,
/// `{seed}` and `{task}` stand for the task's; a text that is nothing but `{index}` or `{seed}`
/// becomes a number. A name that is no task of ours is sent as `task_id`, with the episode's seed.
pub(super) fn reset_arguments(
    task: &str,
    episode_seed: u64,
    added: &Map<String, Value>,
) -> Map<String, Value> {
    let place = Place::read(task);
    let seed = place.map_or(episode_seed % (3 * SEEDS), Place::seed);
    let index = place.map_or(seed, |p| p.index);
    let mut arguments = Map::new();
    arguments.insert("seed".to_owned(), json!(seed));
    if place.is_none() {
        arguments.insert("task_id".to_owned(), json!(task));
    }
    let split = place.map_or("", |p| name(p.split));
    for (key, value) in added {
        arguments.insert(key.clone(), filled(value, split, index, seed, task));
    }
    arguments
}

fn filled(value: &Value, split: &str, index: u64, seed: u64, task: &str) -> Value {
    match value {
        Value::String(text) => match text.as_str() {
            "{index}" => json!(index),
            "{seed}" => json!(seed),
            _ => json!(
                text.replace("{split}", split)
                    .replace("{index}", &index.to_string())
                    .replace("{seed}", &seed.to_string())
                    .replace("{task}", task)
            ),
        },
        Value::Array(items) => {
            items.iter().map(|item| filled(item, split, index, seed, task)).collect()
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(key, item)| (key.clone(), filled(item, split, index, seed, task)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_share_no_seed_and_names_read_back() {
        let mut seeds = std::collections::BTreeSet::new();
        for split in [Split::Train, Split::Seen, Split::Unseen] {
            for index in [0, 1, 77, SEEDS - 1] {
                let place = Place::at(split, index, None, "x").unwrap();
                assert!(place.seed() < 1 << 31);
                assert!(seeds.insert(place.seed()));
                assert_eq!(Place::read(&place.task("k").id), Some(place));
                assert_eq!(Place::of_seed(place.seed()), (split, index));
            }
        }
        for seed in [3 * SEEDS, 7 * SEEDS, u64::MAX] {
            assert_eq!(Place::of_seed(seed), (Split::Train, seed % SEEDS));
        }
        // Without end means going around.
        assert_eq!(Place::at(Split::Train, SEEDS + 3, None, "x").unwrap().seed(), 3);
        let error = Place::at(Split::Seen, 5, Some(5), "openenv").unwrap_err().to_string();
        assert!(error.contains("seen/5") && error.contains("env.tasks"), "{error}");
        for id in ["train", "train/", "train/-1", "train/+1", "test/3", "train/268435456"] {
            assert_eq!(Place::read(id), None, "{id}");
        }
    }

    #[test]
    fn what_is_added_to_a_reset_knows_the_task() {
        let added = json!({"split": "{split}", "n": "{index}", "name": "{task}:{seed}", "deep": [["{index}"], 3]});
        let Value::Object(added) = added else { unreachable!() };
        let sent = reset_arguments("seen/4", 9, &added);
        assert_eq!(
            Value::Object(sent),
            json!({"seed": SEEDS + 4, "split": "seen", "n": 4,
                "name": format!("seen/4:{}", SEEDS + 4), "deep": [[4], 3]})
        );
        let sent = reset_arguments("trial_17", 9, &Map::new());
        assert_eq!(Value::Object(sent), json!({"seed": 9, "task_id": "trial_17"}));
    }
}
