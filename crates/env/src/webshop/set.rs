//! WebShop's goals as a set of tasks, and the environment that plays them.

use std::ops::Range;
use std::sync::Arc;

use super::catalogue::Catalogue;
use super::episode::{Available, Episode, SearchCache};
use super::expert::WebshopExpert;
use super::goals::Goals;
use super::options::{Splits, WebshopOptions};
use super::verl_agent::SEARCH_ACTION;
use crate::expert::show;
use crate::{
    Demonstration, Env, EnvError, Expert, Manner, Observation, Showing, Split, Task, TaskSet,
    Transition,
};

/// Goals that verl-agent and the original hold out for their last figures.
const TEST: usize = 500;
/// Goals that the original holds out for choosing a model.
const VALIDATION: usize = 1000;

/// The goals of a catalogue under a seed. Clones share catalogue and goals.
///
/// A task is called `webshop/<env seed>/<session>`, with people's instructions
/// `webshop-human/<env seed>/<session>`; its environment plays tasks of other seeds too. The splits
/// are sessions in the seed's order:
///
/// | | `Unseen` | `Seen` | `Train` |
/// |---|---|---|---|
/// | [`Splits::VerlAgent`] | 0–499 | 0–499 | 500 and on |
/// | [`Splits::Original`] | 0–499 | 500–1,499 | 1,500 and on |
///
/// Where the held-out goals would be more than half of all, they are a quarter (`VerlAgent`), or an
/// eighth and a quarter (`Original`), rounded up, and of a single goal every split has that one.
#[derive(Clone, Debug)]
pub struct WebshopSet {
    catalogue: Arc<Catalogue>,
    goals: Arc<Goals>,
    options: WebshopOptions,
    max_steps: Option<u32>,
}

impl WebshopSet {
    /// The tasks of a catalogue. An episode is truncated after `max_steps` (verl-agent: 15).
    ///
    /// # Errors
    /// A catalogue without instructions of the chosen kind.
    pub fn new(
        catalogue: Arc<Catalogue>,
        options: WebshopOptions,
        max_steps: Option<u32>,
    ) -> Result<Self, EnvError> {
        let goals = catalogue.goals(options.env_seed, options.human_goals)?;
        Ok(Self { catalogue, goals, options, max_steps })
    }

    /// The store.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// The goals in the seed's order, with its prices.
    pub fn goals(&self) -> &Arc<Goals> {
        &self.goals
    }

    /// How it is played.
    pub fn options(&self) -> &WebshopOptions {
        &self.options
    }

    /// The sessions of a split.
    pub fn sessions(&self, split: Split) -> Range<usize> {
        sessions(self.goals.len(), self.options.splits, split)
    }

    /// A fresh environment, as its own type.
    pub fn environment(&self) -> WebshopEnv {
        WebshopEnv {
            catalogue: Arc::clone(&self.catalogue),
            options: self.options,
            max_steps: self.max_steps,
            episode: None,
            ended: false,
        }
    }
}

fn sessions(goals: usize, splits: Splits, split: Split) -> Range<usize> {
    let (test, validation) = match splits {
        Splits::VerlAgent if goals >= 2 * TEST => (TEST, TEST),
        Splits::VerlAgent => (goals.div_ceil(4), goals.div_ceil(4)),
        Splits::Original if goals >= 2 * (TEST + VALIDATION) => (TEST, TEST + VALIDATION),
        Splits::Original => (goals.div_ceil(8), goals.div_ceil(8) + goals.div_ceil(4)),
    };
    if goals == 1 {
        return 0..1;
    }
    match (split, splits) {
        (Split::Unseen, _) | (Split::Seen, Splits::VerlAgent) => 0..test,
        (Split::Seen, Splits::Original) => test..validation.min(goals),
        (Split::Train, _) => validation.min(goals)..goals,
    }
}

/// The name of a task.
fn task_id(env_seed: u32, human: bool, session: usize) -> String {
    let kind = if human { "webshop-human" } else { "webshop" };
    format!("{kind}/{env_seed}/{session}")
}

/// Seed, whether people's goals, and session of a task.
fn read_task(task: &str) -> Option<(u32, bool, usize)> {
    let mut parts = task.split('/');
    let human = match parts.next()? {
        "webshop" => false,
        "webshop-human" => true,
        _ => return None,
    };
    let (seed, session) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((seed, human, session))
}

/// The goals that a task is one of, and its place among them.
fn find(catalogue: &Catalogue, seed: u32, task: &str) -> Result<(Arc<Goals>, usize), EnvError> {
    let unknown = |hint: String| EnvError::UnknownTask {
        task: task.to_owned(),
        set: "webshop".to_owned(),
        hint: Some(hint),
    };
    let (env_seed, human, session) = read_task(task)
        .ok_or_else(|| unknown(format!("tasks are called like {:?}", task_id(seed, false, 0))))?;
    let goals = catalogue.goals(env_seed, human)?;
    if session >= goals.len() {
        return Err(unknown(format!("there are {} goals", goals.len())));
    }
    Ok((goals, session))
}

impl TaskSet for WebshopSet {
    fn name(&self) -> &'static str {
        "webshop"
    }

    fn len(&self, split: Split) -> Option<u64> {
        Some(self.sessions(split).len() as u64)
    }

    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError> {
        let mut sessions = self.sessions(split);
        let count = sessions.len();
        let session = usize::try_from(index).ok().and_then(|index| sessions.nth(index));
        let product = session.and_then(|session| self.goals.product(session));
        let (Some(session), Some(product)) = (session, product) else {
            return Err(EnvError::UnknownTask {
                task: format!("number {index} of {split:?}"),
                set: "webshop".to_owned(),
                hint: Some(format!("the split has {count} goals")),
            });
        };
        let WebshopOptions { env_seed, human_goals, .. } = self.options;
        Ok(Task {
            id: task_id(env_seed, human_goals, session),
            kind: self.catalogue.product(product).category().to_owned(),
        })
    }

    fn find(&self, id: &str) -> Result<Task, EnvError> {
        let (goals, session) = find(&self.catalogue, self.options.env_seed, id)?;
        let product = goals.product(session).map(|product| self.catalogue.product(product));
        let kind = product.map(|product| product.category().to_owned()).unwrap_or_default();
        Ok(Task { id: id.to_owned(), kind })
    }

    fn make(&self) -> Box<dyn Env> {
        Box::new(self.environment())
    }

    fn expert(&self, manner: Manner, seed: u64) -> Option<Box<dyn Expert>> {
        Some(Box::new(WebshopExpert::new(manner, seed)))
    }

    fn demonstrate(
        &self,
        task: &str,
        seed: u64,
        showing: &Showing,
    ) -> Result<Option<Demonstration>, EnvError> {
        let mut env = self.environment();
        let mut expert = WebshopExpert::new(showing.manner, seed);
        // Clicks on anything that does not end the episode.
        let played = show(&mut env, &mut expert, task, seed, showing, |env, dice| {
            let mut actions = env.admissible();
            actions.retain(|a| a != SEARCH_ACTION && a != "click[buy now]");
            dice.pick(&actions).cloned()
        })?;
        Ok(Some(played))
    }
}

/// WebShop as an [`Env`]. The reward of a purchase is between 0 and 1; it is won at 1. The seed of
/// `reset` does not matter: everything follows from the task.
#[derive(Clone, Debug)]
pub struct WebshopEnv {
    catalogue: Arc<Catalogue>,
    options: WebshopOptions,
    max_steps: Option<u32>,
    episode: Option<Episode>,
    ended: bool,
}

impl WebshopEnv {
    /// The running episode.
    pub fn episode(&self) -> Option<&Episode> {
        self.episode.as_ref()
    }

    /// What can be done now; nothing before `reset`.
    pub fn available(&self) -> Available {
        self.episode.as_ref().map(Episode::available).unwrap_or_default()
    }

    /// The purchase's reward; 0 before it.
    pub fn score(&self) -> f64 {
        let reward = self.episode.as_ref().and_then(Episode::reward);
        reward.map_or(0.0, |reward| reward.total)
    }
}

impl Env for WebshopEnv {
    fn reset(&mut self, task: &str, _seed: u64) -> Result<Observation, EnvError> {
        let (goals, session) = find(&self.catalogue, self.options.env_seed, task)?;
        let cache: SearchCache = self.episode.take().map(Episode::into_cache).unwrap_or_default();
        let catalogue = Arc::clone(&self.catalogue);
        let episode = Episode::new(catalogue, goals, session, self.options.mode, self.max_steps)?;
        let episode = self.episode.insert(episode.with_cache(cache));
        self.ended = false;
        Ok(episode.observe())
    }

    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        let Some(episode) = self.episode.as_mut().filter(|_| !self.ended) else {
            return Err(EnvError::NotRunning);
        };
        let transition = episode.step(action);
        self.ended = transition.end.is_some();
        Ok(transition)
    }

    /// `click[…]` for everything that can be clicked, and on the start page `search[<your query>]`,
    /// which stands for a search of any words.
    fn admissible(&self) -> Vec<String> {
        let Available { has_search_bar, clickables } = self.available();
        // The start page's button does nothing by itself.
        let clicks = clickables.iter().filter(|text| *text != "search" && !text.is_empty());
        let mut actions: Vec<String> = clicks.map(|text| format!("click[{text}]")).collect();
        if has_search_bar {
            actions.push(SEARCH_ACTION.to_owned());
        }
        actions.sort_unstable();
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        let verl = |split| sessions(6910, Splits::VerlAgent, split);
        assert_eq!(
            [verl(Split::Unseen), verl(Split::Seen), verl(Split::Train)],
            [0..500, 0..500, 500..6910]
        );
        let original = |split| sessions(6910, Splits::Original, split);
        assert_eq!(
            [original(Split::Unseen), original(Split::Seen), original(Split::Train)],
            [0..500, 500..1500, 1500..6910]
        );
        for goals in 1..4000 {
            for splits in [Splits::VerlAgent, Splits::Original] {
                let of = |split| sessions(goals, splits, split);
                let (test, train) = (of(Split::Unseen), of(Split::Train));
                assert!(!test.is_empty() && train.end == goals, "{goals}");
                assert!(goals == 1 || test.end <= train.start, "{goals}");
                assert!(goals < 3 || !train.is_empty() && !of(Split::Seen).is_empty(), "{goals}");
            }
        }
    }

    #[test]
    fn tasks_have_names() {
        assert_eq!(read_task(&task_id(7, true, 3)), Some((7, true, 3)));
        for bad in ["", "webshop", "webshop/1", "webshop/1/2/3", "webshop/-1/2", "shop/1/2"] {
            assert_eq!(read_task(bad), None, "{bad}");
        }
    }
}
