//! Many environments as one.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use empg_env::households::HouseholdSet;
use empg_env::search::{Protocol, SearchOptions, SearchSet};
use empg_env::vector::{Autoreset, Turn, Vector, VectorError, VectorOptions};
use empg_env::{Env, EnvEnd, EnvError, Observation, Projection, Split, Task, TaskSet, Transition};

/// Counts up to 3 and is won then; `fail` and `panic` do what they say. Task `2` cannot begin.
struct Counter;

struct CounterEnv(Option<u32>);

impl TaskSet for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }
    fn len(&self, split: Split) -> Option<u64> {
        Some(if split == Split::Train { 5 } else { 0 })
    }
    fn task(&self, _: Split, index: u64) -> Result<Task, EnvError> {
        Ok(Task { id: index.to_string(), kind: "count".to_owned() })
    }
    fn make(&self) -> Box<dyn Env> {
        Box::new(CounterEnv(None))
    }
}

impl Env for CounterEnv {
    fn reset(&mut self, task: &str, _: u64) -> Result<Observation, EnvError> {
        if task == "2" {
            return Err(EnvError::Failed("2 is out of order".to_owned()));
        }
        self.0 = Some(0);
        Ok(Observation { text: format!("task {task}") })
    }
    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        let count = self.0.as_mut().ok_or(EnvError::NotRunning)?;
        match action {
            "fail" => return Err(EnvError::Failed("unplugged".to_owned())),
            "panic" => panic!("at {count}"),
            _ => *count += 1,
        }
        let won = *count == 3;
        Ok(Transition {
            observation: Observation { text: count.to_string() },
            reward: f64::from(u8::from(won)),
            end: won.then_some(EnvEnd::Terminated),
            won,
            effect: true,
        })
    }
}

fn counters(environments: usize, autoreset: Autoreset) -> Vector {
    let options = VectorOptions { environments, autoreset, threads: 2, ..VectorOptions::default() };
    Vector::new(Arc::new(Counter), options).unwrap()
}

fn tasks(ids: &[&str]) -> Vec<Option<String>> {
    ids.iter().map(|id| Some((*id).to_owned())).collect()
}

fn begin(vector: &mut Vector, ids: &[&str]) -> Vec<Turn> {
    let turns = vector.reset(None, Some(&tasks(ids)), None).unwrap();
    turns.into_iter().map(Option::unwrap).collect()
}

fn observations(turns: &[Turn]) -> Vec<&str> {
    turns.iter().map(|turn| turn.observation.as_str()).collect()
}

#[test]
fn the_next_step_begins_the_next_episode() {
    let mut vector = counters(2, Autoreset::NextStep);
    begin(&mut vector, &["0", "1"]);
    for _ in 0..2 {
        vector.step(&["", ""]).unwrap();
    }
    let end = vector.step(&["", ""]).unwrap();
    assert_eq!(observations(&end), ["3", "3"]);
    assert!(end.iter().all(|t| t.terminated && t.won && t.reward == 1.0 && t.last.is_none()));
    let next = vector.step(&["fail", "fail"]).unwrap();
    // What a reset cannot begin is told, and tried again with another task.
    assert!(next.iter().all(|t| t.began && !t.terminated && t.reward == 0.0));
    assert!(next.iter().all(|t| t.observation.starts_with("task ") == t.failed.is_none()));
}

#[test]
fn the_same_step_gives_the_end_and_the_next_beginning() {
    let mut vector = counters(1, Autoreset::SameStep);
    begin(&mut vector, &["4"]);
    for _ in 0..2 {
        vector.step(&[""]).unwrap();
    }
    let turn = vector.step(&[""]).unwrap().remove(0);
    let last = turn.last.unwrap();
    assert!(turn.terminated && turn.won && turn.reward == 1.0);
    assert_eq!((last.observation.as_str(), last.task.unwrap().id.as_str()), ("3", "4"));
    let task = turn.task.unwrap();
    if task.id == "2" {
        assert!(turn.failed.is_some());
    } else {
        assert_eq!(turn.observation, format!("task {}", task.id));
    }
}

#[test]
fn without_auto_reset_the_caller_resets() {
    let mut vector = counters(3, Autoreset::Disabled);
    begin(&mut vector, &["0", "1", "3"]);
    for actions in [["", "", ""], ["", "", ""], ["", "fail", ""]] {
        vector.step(&actions).unwrap();
    }
    assert!(
        matches!(vector.step(&["", "", ""]), Err(VectorError::Over(over)) if over == [0, 1, 2])
    );
    let some = vector.reset(None, Some(&tasks(&["4", "4", "4"])), Some(&[true, false, false]));
    let some = some.unwrap();
    assert_eq!(some[0].as_ref().unwrap().observation, "task 4");
    assert!(some[1].is_none() && some[2].is_none());
    assert!(matches!(vector.step(&["", "", ""]), Err(VectorError::Over(over)) if over == [1, 2]));
    assert!(matches!(vector.reset(None, None, Some(&[false; 3])), Err(VectorError::EmptyMask)));
}

#[test]
fn one_failure_or_panic_leaves_the_others_alone() {
    let mut vector = counters(3, Autoreset::NextStep);
    begin(&mut vector, &["0", "1", "3"]);
    let turns = vector.step(&["fail", "", "panic"]).unwrap();
    assert_eq!(observations(&turns), ["task 0", "1", "task 3"]);
    assert_eq!(turns[0].failed.as_deref(), Some("unplugged"));
    assert_eq!(turns[2].failed.as_deref(), Some("the environment panicked: at 0"));
    assert!(turns[0].truncated && turns[2].truncated && !turns[1].truncated);
    let turns = vector.step(&["", "", ""]).unwrap();
    assert!(turns[0].began && turns[2].began && turns[1].observation == "2");
}

#[test]
fn what_is_refused_changes_nothing() {
    assert!(matches!(
        Vector::new(Arc::new(Counter), VectorOptions { environments: 0, ..Default::default() }),
        Err(VectorError::Empty)
    ));
    let unseen = VectorOptions { split: Split::Unseen, ..Default::default() };
    let error = Vector::new(Arc::new(Counter), unseen).unwrap_err();
    assert!(error.to_string().contains("the split unseen of counter has no task"), "{error}");

    let mut vector = counters(2, Autoreset::NextStep);
    assert!(matches!(vector.step(&["", ""]), Err(VectorError::NotStarted(0))));
    begin(&mut vector, &["0", "1"]);
    for wrong in [vec![], vec![""], vec![""; 3]] {
        let error = vector.step(&wrong).unwrap_err();
        assert!(matches!(error, VectorError::Count { expected: 2, .. }), "{error}");
    }
    let error = vector.reset(None, Some(&tasks(&["0", "seven"])), None).unwrap_err();
    assert!(matches!(error, VectorError::Task { index: 1, .. }), "{error}");
    assert_eq!(observations(&vector.step(&["", ""]).unwrap()), ["1", "1"]);

    let error = vector.reset(None, Some(&tasks(&["2", "0"])), None).unwrap_err();
    assert_eq!(error.to_string(), "environment 0 could not begin \"2\": 2 is out of order");
    assert!(matches!(vector.step(&["", ""]), Err(VectorError::NotStarted(0))));
    // The other began, and goes on once the first has an episode again.
    let VectorError::Reset { turns, .. } = error else { panic!("{error}") };
    let began = turns[1].clone().unwrap();
    assert!(began.began && began.failed.is_none() && turns[0].clone().unwrap().failed.is_some());
    vector.reset(None, Some(&tasks(&["0", "0"])), Some(&[true, false])).unwrap();
    assert_eq!(observations(&vector.step(&["", ""]).unwrap()), ["1", "1"]);

    vector.end_episodes();
    assert!(matches!(vector.step(&["", ""]), Err(VectorError::NotStarted(0))));
}

/// A run of households with a fixed policy that depends on what is seen.
fn played(environments: usize, threads: usize) -> Vec<Vec<Turn>> {
    let set = HouseholdSet::new(empg_env::alfworld::DataVersion::default(), Some(7));
    let options = VectorOptions {
        environments,
        threads,
        autoreset: Autoreset::SameStep,
        ..VectorOptions::default()
    };
    let mut vector = Vector::new(Arc::new(set), options).unwrap();
    let seeds: Vec<_> = (0..environments as u64).map(|i| Some(40 + i)).collect();
    let first = vector.reset(Some(&seeds), None, None).unwrap();
    let mut turns = vec![first.into_iter().map(Option::unwrap).collect::<Vec<_>>()];
    for step in 0..20 {
        let actions: Vec<String> = turns[step]
            .iter()
            .map(|t| {
                let at = (t.observation.len() + step) % t.admissible.len();
                t.admissible.get(at).unwrap().to_owned()
            })
            .collect();
        turns.push(vector.step(&actions).unwrap());
    }
    turns
}

#[test]
fn threads_and_neighbours_change_nothing() {
    let one = played(9, 1);
    assert_eq!(one, played(9, 4));
    let fewer: Vec<Vec<Turn>> = one.iter().map(|turns| turns[..3].to_vec()).collect();
    assert_eq!(fewer, played(3, 2));
    let mut ids: Vec<_> = one[0].iter().map(|t| t.task.as_ref().unwrap().id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 9);
}

/// Every step waits until all environments are in a step.
struct Meeting(Arc<(Mutex<usize>, Condvar)>);

impl TaskSet for Meeting {
    fn name(&self) -> &'static str {
        "meeting"
    }
    fn len(&self, _: Split) -> Option<u64> {
        Some(1)
    }
    fn task(&self, _: Split, _: u64) -> Result<Task, EnvError> {
        Ok(Task { id: "m".to_owned(), kind: String::new() })
    }
    fn make(&self) -> Box<dyn Env> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl Env for Meeting {
    fn reset(&mut self, _: &str, _: u64) -> Result<Observation, EnvError> {
        Ok(Observation::default())
    }
    fn step(&mut self, _: &str) -> Result<Transition, EnvError> {
        let (count, all) = &*self.0;
        let mut here = count.lock().unwrap();
        *here += 1;
        all.notify_all();
        let round = here.div_ceil(4) * 4;
        let waited = all.wait_timeout_while(here, Duration::from_secs(30), |n| *n < round).unwrap();
        if waited.1.timed_out() {
            return Err(EnvError::Failed("the others did not come".to_owned()));
        }
        let observation = Observation { text: "met".to_owned() };
        Ok(Transition { observation, reward: 0.0, end: None, won: false, effect: true })
    }
}

#[test]
fn environments_that_wait_are_stepped_side_by_side() {
    let set = Meeting(Arc::default());
    let options = VectorOptions { environments: 4, threads: 4, ..VectorOptions::default() };
    let mut vector = Vector::new(Arc::new(set), options).unwrap();
    vector.reset(None, None, None).unwrap();
    for _ in 0..3 {
        let turns = vector.step(&["", "", "", ""]).unwrap();
        assert_eq!(observations(&turns), ["met"; 4]);
    }
}

#[test]
fn both_lists_of_commands_agree() {
    let mut env = HouseholdSet::default().make();
    env.reset("households/train/3", 0).unwrap();
    for step in 0..40 {
        let commands = env.admissible();
        assert!(env.admissible_list().iter().eq(commands.iter().map(String::as_str)));
        env.step(&commands[step * 7 % commands.len()]).unwrap();
    }
}

#[test]
fn texts_are_projected() {
    let set = HouseholdSet::default();
    let options = VectorOptions {
        environments: 2,
        projection: Some(Projection::Alfworld),
        ..VectorOptions::default()
    };
    let mut vector = Vector::new(Arc::new(set), options).unwrap();
    vector.reset(None, None, None).unwrap();
    let texts = ["<think>hm</think><action>Inventory</action>", "no action at all"];
    let turns = vector.step(&texts).unwrap();
    assert_eq!(turns[0].observation, "You are not carrying anything.");
    let projected = turns.iter().map(|t| t.projected.clone().unwrap());
    let projected: Vec<_> = projected.map(|p| (p.action, p.valid)).collect();
    assert_eq!(projected, [("inventory".to_owned(), true), ("no action at all".to_owned(), false)]);
    assert!(!turns[1].effect);
}

#[test]
fn the_action_that_is_told_is_the_one_that_is_played() {
    for (protocol, projection, action) in [
        (Protocol::VerlAgent, Projection::Search, "<search>city</search>"),
        (Protocol::SearchR1, Projection::SearchR1, "<answer>river</answer>"),
    ] {
        let options = SearchOptions { protocol, ..SearchOptions::default() };
        let set = SearchSet::generated(0, options, Some(6));
        let options = VectorOptions { projection: Some(projection), ..VectorOptions::default() };
        let mut vector = Vector::new(Arc::new(set), options).unwrap();
        vector.reset(None, None, None).unwrap();
        // The two protocols disagree about which of these comes first.
        let text = "<answer>river</answer> <Search>city</search>";
        let turn = vector.step(&[text]).unwrap().remove(0);
        assert_eq!(turn.projected.unwrap().action, action);
        assert_eq!(turn.terminated, action.starts_with("<answer>"), "{protocol}");
    }
}
