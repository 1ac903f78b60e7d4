//! Writes generated households as the original game directories:
//! `cargo run -p empg-env --example export_households -- DIR GAMES DOMAIN.pddl GRAMMAR.twl2`.
//!
//! Domain and grammar are those of a game: the `alfworld` package brings one of each. Every directory
//! gets `game.tw-pddl` and `traj_data.json`, and `plan.json` with the shortest plan in both data
//! versions. The games are the first of each split, in turn.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs;
use std::path::Path;

use empg_env::alfworld::DataVersion;
use empg_env::households::HouseholdSet;
use empg_env::{Split, TaskSet};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, games, domain, grammar] = arguments.as_slice() else {
        return Err("usage: export_households DIR GAMES DOMAIN.pddl GRAMMAR.twl2".into());
    };
    let games: u64 = games.parse()?;
    let domain = fs::read_to_string(domain).map_err(|error| format!("{domain}: {error}"))?;
    let grammar = fs::read_to_string(grammar).map_err(|error| format!("{grammar}: {error}"))?;
    let old = HouseholdSet::new(DataVersion::V2_1_1, None);
    let new = HouseholdSet::new(DataVersion::V2_1_2, None);
    for number in 0..games {
        let (split, name) =
            [(Split::Train, "train"), (Split::Seen, "valid_seen"), (Split::Unseen, "valid_unseen")]
                [(number % 3) as usize];
        let index = number / 3;
        let task = new.task(split, index)?;
        let home = new.household(split, index)?;
        let trial = format!("trial_{index:06}");
        let directory =
            Path::new(folder).join(name).join(format!("{}-{index}", task.kind)).join(&trial);
        fs::create_dir_all(&directory)?;
        let sentence = home.game.task();
        let game = json!({
            "pddl_domain": domain,
            "grammar": grammar.replace("UNKNOWN GOAL.", sentence),
            "pddl_problem": home.problem,
            "solvable": true,
        });
        fs::write(directory.join("game.tw-pddl"), serde_json::to_string(&game)?)?;
        let data = json!({"task_type": task.kind, "task_id": trial, "scene": {"scene_num": 0}});
        fs::write(directory.join("traj_data.json"), serde_json::to_string(&data)?)?;
        let plan = json!({
            "id": task.id,
            "task": sentence,
            "2.1.1": old.household(split, index)?.plan,
            "2.1.2+": home.plan,
        });
        fs::write(directory.join("plan.json"), serde_json::to_string(&plan)?)?;
        println!("{}", directory.display());
    }
    Ok(())
}
