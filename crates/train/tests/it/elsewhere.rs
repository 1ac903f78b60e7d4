//! Environments that one waits for: many at a time, no more than there are, and the same episodes.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use empg_env::{Env, EnvError, Observation, Split, Task, TaskSet, Transition};
use empg_train::{Job, RolloutSettings, rollout};

use crate::toy::{Lamps, config, policy};

/// Lamps that take their time.
struct Slow {
    places: Option<NonZeroUsize>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct SlowRoom {
    room: Box<dyn Env>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Slow {
    fn new(places: usize) -> Self {
        Self { places: NonZeroUsize::new(places), now: Arc::default(), most: Arc::default() }
    }
}

impl TaskSet for Slow {
    fn name(&self) -> &'static str {
        "slow lamps"
    }
    fn len(&self, split: Split) -> Option<u64> {
        Lamps::default().len(split)
    }
    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError> {
        Lamps::default().task(split, index)
    }
    fn make(&self) -> Box<dyn Env> {
        let room = Lamps { broken: true, ..Lamps::default() }.make();
        Box::new(SlowRoom { room, now: Arc::clone(&self.now), most: Arc::clone(&self.most) })
    }
    fn elsewhere(&self) -> Option<NonZeroUsize> {
        self.places
    }
}

impl SlowRoom {
    fn wait(&self) {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Env for SlowRoom {
    fn reset(&mut self, task: &str, seed: u64) -> Result<Observation, EnvError> {
        self.wait();
        self.room.reset(task, seed)
    }
    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        self.wait();
        self.room.step(action)
    }
}

#[test]
fn steps_are_waited_for_side_by_side_and_change_nothing() {
    let jobs: Vec<Job> = (0..24_u64)
        .map(|i| Job {
            task: Lamps::default().task(Split::Train, i / 6).unwrap(),
            env_seed: 0,
            sampling_seed: i,
            group: (i / 6) as usize,
        })
        .collect();
    let policy = policy();
    let play = |places: usize| {
        let tasks = Slow::new(places);
        let settings = RolloutSettings::training(&config().rollout, 2);
        let stop = AtomicBool::new(false);
        let episodes = rollout(&policy, &tasks, &jobs, &settings, &stop).unwrap();
        (episodes, tasks.most.load(Ordering::SeqCst))
    };
    let (here, most) = play(0);
    assert_eq!(here.len(), 24);
    assert!(most <= 2, "{most} at a time on two threads");
    // Some of them failed, and the others did not mind.
    let failed = |e: &&empg_train::Episode| matches!(e.trajectory.end(), empg::End::Failed(_));
    assert_eq!(here.iter().filter(failed).count(), 12);
    for (places, least) in [(1, 1), (3, 2), (8, 4), (64, 8)] {
        let (there, most) = play(places);
        assert_eq!(there, here, "{places} places");
        assert!((least..=places).contains(&most), "{most} at a time with {places} places");
    }
}
