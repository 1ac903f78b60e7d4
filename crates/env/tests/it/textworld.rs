//! Equality with recordings of generated households in the real TextWorld, which
//! `tools/textworld_goldens.py` made.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use empg_env::alfworld::{DataVersion, Episode, Game};
use flate2::bufread::GzDecoder;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    problem: String,
    plays: Vec<Play>,
}

#[derive(Deserialize)]
struct Play {
    id: String,
    version: DataVersion,
    task: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    command: Option<String>,
    observation: String,
    won: bool,
    /// Commands that are no longer admissible, and those that now are.
    gone: Vec<String>,
    come: Vec<String>,
}

#[test]
fn generated_households_play_as_in_textworld() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/households.jsonl.gz");
    let file = BufReader::new(std::fs::File::open(path).unwrap());
    let (mut steps, mut wins) = (0, 0);
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let recorded: Recorded = serde_json::from_str(&line.unwrap()).unwrap();
        for play in recorded.plays {
            let game = Arc::new(Game::parse(&play.id, &recorded.problem, &play.task).unwrap());
            let mut episode = Episode::new(game, play.version, None);
            let mut admissible: Vec<String> = Vec::new();
            for (turn, step) in play.steps.iter().enumerate() {
                let at = format!("{} {} turn {turn} {:?}", play.id, play.version, step.command);
                let text = match &step.command {
                    None => episode.observe().text,
                    Some(command) => episode.step(command).observation.text,
                };
                assert_eq!(text, step.observation, "{at}");
                assert_eq!(episode.won(), step.won, "{at}");
                admissible.retain(|command| !step.gone.contains(command));
                admissible.extend(step.come.iter().cloned());
                admissible.sort();
                assert_eq!(episode.admissible(), admissible, "{at}");
                steps += 1;
            }
            wins += usize::from(episode.won());
        }
    }
    assert!(steps > 1000 && wins > 10, "{steps} steps, {wins} wins");
}
