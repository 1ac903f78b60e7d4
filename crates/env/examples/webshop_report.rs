//! How fast the WebShop engine is.
//!
//! - `cargo run --release -p empg-env --example webshop_report -- play DATA [SECONDS]`: loads the
//!   catalogue of a data folder and plays its recorded actions, observations and lists of what can
//!   be clicked included, on one thread.
//! - `… -- load FOLDER`: loads and indexes a catalogue and draws the goals of seed 0.
//! - `… -- generate PRODUCTS FOLDER`: writes a generated catalogue of any size.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use empg_env::Env;
use empg_env::webshop::{Catalogue, Mode, WebshopOptions, WebshopSet, generated};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["play", data] => play(Path::new(data), 5.0),
        ["play", data, seconds] => play(Path::new(data), seconds.parse()?),
        ["load", folder] => load(Path::new(folder)),
        ["generate", products, folder] => generate(products.parse()?, Path::new(folder)),
        _ => Err("usage: play DATA [SECONDS] | load FOLDER | generate PRODUCTS FOLDER".into()),
    }
}

#[derive(Deserialize)]
struct Transcript {
    mode: Mode,
    env_seed: u32,
    human_goals: bool,
    session: usize,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    action: Option<String>,
}

fn play(data: &Path, seconds: f64) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let catalogue = Catalogue::load(data)?;
    println!("{} products loaded in {:.3} s", catalogue.len(), start.elapsed().as_secs_f64());
    let file = File::open(data.join("webshop/transcripts.jsonl.gz"))?;
    let lines = BufReader::new(MultiGzDecoder::new(BufReader::new(file))).lines();
    let mut episodes = Vec::new();
    for line in lines {
        let Transcript { mode, env_seed, human_goals, session, steps } =
            serde_json::from_str(&line?)?;
        let options = WebshopOptions { mode, human_goals, env_seed, ..WebshopOptions::default() };
        let env = WebshopSet::new(Arc::clone(&catalogue), options, None)?.environment();
        let kind = if human_goals { "webshop-human" } else { "webshop" };
        let actions: Vec<String> = steps.into_iter().filter_map(|step| step.action).collect();
        episodes.push((env, format!("{kind}/{env_seed}/{session}"), actions));
    }
    // With `fresh`, every round forgets the searches of the one before.
    for fresh in [true, false] {
        let start = Instant::now();
        let (mut steps, mut bytes) = (0_u64, 0);
        while start.elapsed().as_secs_f64() < seconds {
            for (env, task, actions) in &mut episodes {
                let mut again = env.clone();
                let env = if fresh { &mut again } else { env };
                black_box(env.reset(task, 0)?);
                for action in actions {
                    let transition = env.step(action)?;
                    bytes += transition.observation.text.len();
                    black_box((transition, env.available()));
                    steps += 1;
                }
            }
        }
        let rate = steps as f64 / start.elapsed().as_secs_f64();
        let kept = if fresh { "every search anew" } else { "searches kept" };
        println!("{kept}: {rate:.0} steps/s, {} bytes a page", bytes as u64 / steps.max(1));
    }
    Ok(())
}

fn load(folder: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let catalogue = Catalogue::load(folder)?;
    println!("{} products loaded in {:.2} s", catalogue.len(), start.elapsed().as_secs_f64());
    for note in catalogue.notes() {
        println!("{note}");
    }
    let start = Instant::now();
    let goals = catalogue.goals(0, false)?;
    println!("{} goals in {:.2} s", goals.len(), start.elapsed().as_secs_f64());
    let start = Instant::now();
    let queries = 200;
    for session in 0..queries {
        let goal = goals.goal(&catalogue, session * 7919 % goals.len()).ok_or("no goal")?;
        black_box(catalogue.search(&goal.instruction_text, 50));
    }
    let each = start.elapsed().as_secs_f64() * 1e3 / queries as f64;
    println!("{each:.2} ms for a search with a whole instruction");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
    Ok(())
}

fn generate(products: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let create = |name: &str| File::create(folder.join(name)).map(BufWriter::new);
    let mut items = create(&format!("items_shuffle_{products}.json"))?;
    let mut instructions = create(&format!("items_ins_v2_{products}.json"))?;
    let mut nouns = create("title_nouns.json")?;
    generated::write_catalogue(0, products, &mut items, &mut instructions, &mut nouns)?;
    for file in [&mut items, &mut instructions, &mut nouns] {
        file.flush()?;
    }
    Ok(())
}
