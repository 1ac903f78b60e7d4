//! What the generated households and their expert are like:
//! `cargo run --release -p empg-env --example households_report [GAMES]`.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use empg_env::households::{DemonstrationOptions, ExpertStyle, HouseholdSet, demonstration};
use empg_env::{Env, Split, TaskSet};

fn main() -> Result<(), Box<dyn Error>> {
    let games: u64 = std::env::args().nth(1).map_or(Ok(3000), |n| n.parse())?;
    let set = HouseholdSet::default();
    let mut env = set.make();

    for split in [Split::Train, Split::Seen, Split::Unseen] {
        let mut lengths: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut receptacles = Vec::new();
        let mut bytes = 0;
        for index in 0..games {
            let home = set.household(split, index)?;
            lengths.entry(set.task(split, index)?.kind).or_default().push(home.plan.len());
            receptacles.push(home.game.receptacles().len());
            bytes += home.problem.len();
            play_plan(env.as_mut(), &HouseholdSet::id(split, index), &home.plan)?;
        }
        let mut all: Vec<usize> = lengths.values().flatten().copied().collect();
        print!("{split:?}: plan median {}", median(&mut all));
        for (kind, lengths) in &mut lengths {
            print!(", {} {}", short(kind), median(lengths));
        }
        receptacles.sort_unstable();
        let at = |p: usize| receptacles[receptacles.len() * p / 100];
        println!(
            "; receptacles 5/50/90/99 %: {}/{}/{}/{}; {} bytes a problem",
            at(5),
            at(50),
            at(90),
            at(99),
            bytes as u64 / games
        );
    }

    let start = Instant::now();
    for index in 0..games {
        env.reset(&HouseholdSet::id(Split::Train, index), 0)?;
    }
    println!("generate and load: {:.0} games/s", games as f64 / start.elapsed().as_secs_f64());

    let clean = DemonstrationOptions::default();
    let noisy = DemonstrationOptions { noise: 0.12, max_turns: 50, ..clean.clone() };
    let cold = DemonstrationOptions { style: ExpertStyle::cold_start(), ..clean.clone() };
    for split in [Split::Train, Split::Seen, Split::Unseen] {
        play(env.as_mut(), &set, split, games, "clean, 30 turns", &clean)?;
        play(env.as_mut(), &set, split, games, "clean, noise, 50 turns", &noisy)?;
        play(env.as_mut(), &set, split, games, "cold start, 30 turns", &cold)?;
    }
    random(env.as_mut(), games.min(3000))
}

fn short(kind: &str) -> &str {
    kind.strip_prefix("pick_").unwrap_or(kind).split('_').next().unwrap_or(kind)
}

fn median(values: &mut [usize]) -> usize {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn play_plan(env: &mut dyn Env, task: &str, plan: &[String]) -> Result<(), Box<dyn Error>> {
    env.reset(task, 0)?;
    let mut won = false;
    for command in plan {
        won = env.step(command)?.won;
    }
    if won { Ok(()) } else { Err(format!("{task}: the plan {plan:?} does not win").into()) }
}

fn play(
    env: &mut dyn Env,
    set: &HouseholdSet,
    split: Split,
    games: u64,
    label: &str,
    options: &DemonstrationOptions,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut kinds: BTreeMap<String, (u32, u32, usize)> = BTreeMap::new();
    let (mut turns, mut idle, mut imitated) = (0, 0, 0);
    for index in 0..games {
        let task = set.task(split, index)?;
        let played = demonstration(env, &task.id, index, options)?;
        let kind = kinds.entry(task.kind).or_default();
        kind.0 += 1;
        kind.1 += u32::from(played.won);
        kind.2 += if played.won { played.turns.len() } else { 0 };
        turns += played.turns.len();
        let after = played
            .turns
            .iter()
            .skip(1)
            .map(|t| t.observation.as_str())
            .chain([played.last.as_str()]);
        for (turn, observation) in played.turns.iter().zip(after) {
            imitated += usize::from(turn.imitate);
            idle += usize::from(turn.imitate && observation == "Nothing happens.");
        }
    }
    let won: u32 = kinds.values().map(|(_, won, _)| won).sum();
    print!("{split:?} {label}: {:.1} %", 100.0 * f64::from(won) / games as f64);
    for (kind, (played, won, turns)) in &kinds {
        let mean = *turns as f64 / f64::from((*won).max(1));
        print!(
            ", {} {:.0} % ({mean:.1})",
            short(kind),
            100.0 * f64::from(*won) / f64::from(*played)
        );
    }
    println!(
        "; {:.1} turns, {:.2} % without effect, {:.0} episodes/s",
        turns as f64 / games as f64,
        100.0 * f64::from(idle as u32) / f64::from(imitated as u32),
        games as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A uniformly random admissible policy within 50 turns.
fn random(env: &mut dyn Env, games: u64) -> Result<(), Box<dyn Error>> {
    let mut won = [0_u64; 6];
    let set = HouseholdSet::default();
    let mut kinds: Vec<String> = Vec::new();
    let mut state = 1_u64;
    for index in 0..games {
        let task = set.task(Split::Train, index)?;
        if !kinds.contains(&task.kind) {
            kinds.push(task.kind.clone());
        }
        env.reset(&task.id, 0)?;
        loop {
            let commands = env.admissible();
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let transition = env.step(&commands[(state >> 33) as usize % commands.len()])?;
            if transition.end.is_some() {
                if let Some(kind) = kinds.iter().position(|kind| *kind == task.kind) {
                    won[kind] += u64::from(transition.won);
                }
                break;
            }
        }
    }
    print!("random policy: {:.2} %", 100.0 * won.iter().sum::<u64>() as f64 / games as f64);
    for (kind, won) in kinds.iter().zip(won) {
        print!(", {} {:.1} %", short(kind), 600.0 * won as f64 / games as f64);
    }
    println!();
    Ok(())
}
