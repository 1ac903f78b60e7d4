//! Damaged input is refused or played, never a panic.

use std::sync::Arc;

use empg_env::Projection;
use empg_env::alfworld::{DataVersion, Episode, Game, PackedRecord, Rules};
use proptest::prelude::*;

use crate::{KITCHEN, TASK};

/// A change to a text.
#[derive(Clone, Debug)]
enum Damage {
    Cut(usize, usize),
    Insert(usize, String),
    Move(usize, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 1_usize..40).prop_map(|(at, n)| Damage::Cut(at, n)),
        (any::<usize>(), r"[()?;=a-z_0-9ÄİK -]{1,12}").prop_map(|(at, s)| Damage::Insert(at, s)),
        (any::<usize>(), 1_usize..80, any::<usize>())
            .prop_map(|(at, n, to)| Damage::Move(at, n, to)),
    ]
}

fn apply(text: &str, damages: &[Damage]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for damage in damages {
        let len = chars.len().max(1);
        match damage {
            Damage::Cut(at, n) => {
                let at = at % len;
                chars.drain(at..(at + n).min(chars.len()));
            }
            Damage::Insert(at, new) => {
                let at = (at % len).min(chars.len());
                chars.splice(at..at, new.chars());
            }
            Damage::Move(at, n, to) => {
                let at = at % len;
                let moved: Vec<char> = chars.drain(at..(at + n).min(chars.len())).collect();
                let to = to % (chars.len() + 1);
                chars.splice(to..to, moved);
            }
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn problems(damages in prop::collection::vec(damage(), 1..6)) {
        if let Ok(game) = Game::parse("damaged", &apply(KITCHEN, &damages), TASK) {
            let mut episode = Episode::new(Arc::new(game), DataVersion::default(), Some(20));
            episode.observe();
            for turn in 0..20 {
                let commands = episode.admissible();
                let command = &commands[turn * 13 % commands.len()];
                prop_assert!(episode.step(command).effect, "{}", command);
            }
        }
    }

    #[test]
    fn packed_lines(damages in prop::collection::vec(damage(), 1..4)) {
        let line = serde_json::json!({
            "path": "train/a/b", "domain": "d", "grammar": "g", "task_desc": TASK,
            "pddl_problem": KITCHEN,
        });
        let line = apply(&line.to_string(), &damages);
        if let Ok(record) = PackedRecord::parse(line.as_bytes()) {
            let _ = record.game(Rules::default());
        }
    }

    #[test]
    fn commands(text in r"(go to|take|examine|move|heat|use|slice) ?.{0,30}") {
        let game = Game::parse("kitchen", KITCHEN, TASK).expect("the kitchen parses");
        Episode::new(Arc::new(game), DataVersion::default(), None).step(&text);
    }

    #[test]
    fn model_texts(text in r"(<|/|>|action|search|ſearch|answer|ANSWER|think|中|İ| |x){0,40}") {
        for projection in
            [Projection::Alfworld, Projection::Webshop, Projection::Search, Projection::SearchR1]
        {
            projection.project(&text);
        }
    }
}
