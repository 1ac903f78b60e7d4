//! Any problem text is read or refused; what is read can be played.
#![no_main]

use std::sync::Arc;

use empg_env::alfworld::{DataVersion, Episode, Game};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(game) = Game::parse("fuzz", text, "put a mug in desk.") {
        let mut episode = Episode::new(Arc::new(game), DataVersion::default(), Some(50));
        for turn in 0..50 {
            let commands = episode.admissible();
            episode.step(&commands[turn * 7 % commands.len()]);
        }
    }
});
