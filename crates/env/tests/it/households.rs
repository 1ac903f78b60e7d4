//! Generated households: solvable, not trivial, and solved by the observing expert after any history.

use std::collections::{BTreeMap, HashSet};

use empg_env::alfworld::{DataVersion, Index, TaskKind, Thing};
use empg_env::households::{
    DemonstrationOptions, Expert, ExpertStyle, HouseholdSet, demonstration, vocabulary,
};
use empg_env::{EnvEnd, Split, TaskSet};

const SPLITS: [Split; 3] = [Split::Train, Split::Seen, Split::Unseen];

/// A plain generator for choices that need no statistics.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

#[test]
fn the_optimal_plan_wins_every_game() {
    for version in [DataVersion::V2_1_1, DataVersion::V2_1_2] {
        let set = HouseholdSet::new(version, None);
        let mut env = set.make();
        for split in SPLITS {
            let mut lengths = Vec::new();
            for index in 0..500 {
                let home = set.household(split, index).unwrap();
                let task = set.task(split, index).unwrap();
                assert_eq!(home.game.id(), task.id);
                assert_eq!(home.game.kind().as_str(), task.kind);
                assert!(home.game.receptacles().len() >= 8);
                assert!(!home.game.won(home.game.initial()), "{} is solved at once", task.id);
                env.reset(&task.id, 0).unwrap();
                for (turn, command) in home.plan.iter().enumerate() {
                    assert!(env.admissible().contains(command), "{}: {command}", task.id);
                    let step = env.step(command).unwrap();
                    assert_eq!(step.won, turn + 1 == home.plan.len(), "{}: {command}", task.id);
                }
                lengths.push(home.plan.len());
            }
            lengths.sort_unstable();
            assert!(lengths[lengths.len() / 2] >= 6, "{split:?}: {}", lengths[lengths.len() / 2]);
        }
    }
}

/// Breadth-first search in the engine finds nothing shorter.
#[test]
fn the_optimal_plan_is_the_shortest() {
    let set = HouseholdSet::new(DataVersion::V2_1_2, None);
    let mut checked = 0;
    for index in 0..60 {
        let home = set.household(Split::Train, index).unwrap();
        if home.plan.len() > 4 {
            continue;
        }
        checked += 1;
        let start = empg_env::alfworld::Episode::new(home.game.clone(), DataVersion::V2_1_2, None);
        let mut frontier = vec![start];
        let mut commands = Vec::new();
        for _ in 1..home.plan.len() {
            let mut seen = HashSet::new();
            let mut next = Vec::new();
            for episode in &frontier {
                commands.clear();
                episode.admissible_commands(&mut commands);
                for &command in &commands {
                    let mut after = episode.clone();
                    let step = after.step_command(command);
                    assert!(!step.won, "{}: shorter than {:?}", home.game.id(), home.plan);
                    if seen.insert(format!("{:?}", after.state())) {
                        next.push(after);
                    }
                }
            }
            frontier = next;
        }
    }
    assert!(checked >= 5);
}

#[test]
fn splits_share_no_game() {
    let set = HouseholdSet::default();
    let mut intros = HashSet::new();
    let mut env = set.make();
    for split in SPLITS {
        for index in 0..800 {
            let home = set.household(split, index).unwrap();
            let task = set.task(split, index).unwrap();
            let body = home.problem.split_once("(:init").unwrap().1;
            assert!(intros.insert(body.to_string()), "{} occurs twice", task.id);
            // The same coordinates give the same game.
            let text = env.reset(&task.id, index).unwrap().text;
            assert_eq!(text, set.make().reset(&task.id, 7).unwrap().text);
        }
    }
}

#[test]
fn a_random_policy_hardly_ever_wins() {
    let set = HouseholdSet::new(DataVersion::V2_1_2, Some(50));
    let mut env = set.make();
    let mut lcg = Lcg(11);
    let games = 600;
    let mut wins = 0;
    for index in 0..games {
        env.reset(&HouseholdSet::id(Split::Train, index), 0).unwrap();
        loop {
            let commands = env.admissible();
            let step = env.step(&commands[lcg.below(commands.len())]).unwrap();
            if step.end.is_some() {
                wins += u64::from(step.won);
                break;
            }
        }
    }
    assert!(wins * 20 <= games, "{wins} of {games}");
}

#[test]
fn names_stay_within_the_vocabulary() {
    let known: BTreeMap<&str, u32> = vocabulary().into_iter().collect();
    let set = HouseholdSet::default();
    let check = |name: &str| {
        let (class, number) = name.rsplit_once(' ').unwrap();
        let number: u32 = number.parse().unwrap();
        assert!(known.get(class).is_some_and(|most| (1..=*most).contains(&number)), "{name}");
    };
    let mut kinds: HashSet<TaskKind> = HashSet::new();
    for index in 0..300 {
        for split in SPLITS {
            let game = set.household(split, index).unwrap().game;
            kinds.insert(game.kind());
            game.objects().for_each(|object| check(game.object_name(object)));
            game.receptacles().for_each(|receptacle| check(game.receptacle_name(receptacle)));
            assert!(game.receptacles().len() < 60);
            assert!(game.receptacles().all(|r| {
                matches!(game.thing(game.receptacle_name(r)), Some(Thing::Receptacle(other)) if other.index() == r.index())
            }));
        }
    }
    assert_eq!(kinds.len(), 6);
}

fn play(
    split: Split,
    games: u64,
    version: DataVersion,
    options: &DemonstrationOptions,
) -> BTreeMap<String, f64> {
    let set = HouseholdSet::new(version, None);
    let mut env = set.make();
    let mut won: BTreeMap<String, f64> = BTreeMap::new();
    for index in 0..games {
        let task = set.task(split, index).unwrap();
        let played = demonstration(env.as_mut(), &task.id, index, options).unwrap();
        assert!(played.turns.len() <= options.max_turns);
        *won.entry(task.kind).or_default() += f64::from(u8::from(played.won)) * 6.0 / games as f64;
    }
    won
}

#[test]
fn the_clean_expert_wins() {
    let options = DemonstrationOptions::default();
    for (split, version) in [
        (Split::Train, DataVersion::V2_1_2),
        (Split::Seen, DataVersion::V2_1_1),
        (Split::Unseen, DataVersion::V2_1_2),
    ] {
        for (kind, won) in play(split, 900, version, &options) {
            assert!(won >= 0.97, "{split:?} {kind}: {won}");
        }
    }
}

#[test]
fn the_cold_start_fails_about_as_often_as_it_succeeds() {
    let options = DemonstrationOptions {
        style: ExpertStyle::cold_start(),
        ..DemonstrationOptions::default()
    };
    let won = play(Split::Train, 1800, DataVersion::V2_1_2, &options);
    for (kind, won) in &won {
        assert!((0.3..=0.6).contains(won), "{kind}: {won}");
    }
    let mean = won.values().sum::<f64>() / 6.0;
    assert!((0.4..=0.5).contains(&mean), "{mean}");
}

/// Mistakes of a style are admissible commands.
#[test]
fn mistakes_have_an_effect() {
    let options = DemonstrationOptions { style: ExpertStyle::cold_start(), ..Default::default() };
    let mut env = HouseholdSet::default().make();
    let (mut turns, mut idle) = (0, 0);
    for index in 0..600 {
        let played =
            demonstration(env.as_mut(), &HouseholdSet::id(Split::Train, index), index, &options)
                .unwrap();
        turns += played.turns.len();
        let seen = played.turns.iter().skip(1).map(|turn| &turn.observation).chain([&played.last]);
        idle += seen.filter(|observation| *observation == "Nothing happens.").count();
    }
    assert!(idle * 200 <= turns, "{idle} of {turns}");
}

/// Whatever was done before, admissible or not, the expert goes on from there.
#[test]
fn the_expert_recovers_from_any_history() {
    let set = HouseholdSet::new(DataVersion::V2_1_2, None);
    let mut env = set.make();
    let mut lcg = Lcg(5);
    let games = 400;
    let mut won = 0;
    for index in 0..games {
        let id = HouseholdSet::id(Split::Train, index);
        let mut expert = Expert::new(&ExpertStyle::clean(), index);
        expert.observe(None, &env.reset(&id, 0).unwrap().text);
        for turn in 0..90 {
            let action = if turn < 25 {
                let commands = env.admissible();
                match lcg.below(4) {
                    0 => format!("take mug {} from drawer {}", lcg.below(5), lcg.below(9)),
                    _ => commands[lcg.below(commands.len())].clone(),
                }
            } else {
                let asked = expert.next_action();
                assert_eq!(asked, expert.next_action(), "asking changes nothing");
                asked
            };
            let step = env.step(&action).unwrap();
            expert.observe(Some(&action), &step.observation.text);
            if step.end == Some(EnvEnd::Terminated) {
                won += 1;
                break;
            }
        }
    }
    assert!(won * 100 >= games * 97, "{won} of {games}");
}

/// Text that is no observation must not stop it.
#[test]
fn the_expert_survives_nonsense() {
    let mut expert = Expert::new(&ExpertStyle::cold_start(), 3);
    for text in
        ["", "You arrive at ", "You pick up the", "On the , you see .", "é", "Your task is to: "]
    {
        expert.observe(None, text);
        assert!(!expert.next_action().is_empty());
        expert.observe(Some(text), text);
        assert!(!expert.next_action().is_empty());
    }
}

#[test]
fn noise_is_masked_and_deterministic() {
    let options = DemonstrationOptions { noise: 0.3, max_turns: 50, ..Default::default() };
    let mut env = HouseholdSet::default().make();
    let (mut masked, mut turns) = (0, 0);
    for index in 0..100 {
        let id = HouseholdSet::id(Split::Train, index);
        let played = demonstration(env.as_mut(), &id, index, &options).unwrap();
        assert_eq!(played, demonstration(env.as_mut(), &id, index, &options).unwrap());
        turns += played.turns.len();
        masked += played.turns.iter().filter(|turn| !turn.imitate).count();
    }
    assert!(masked * 10 > turns && masked * 2 < turns, "{masked} of {turns}");
}
