//! Any files of a catalogue are read or refused; what is read can be played.
#![no_main]

use empg_env::Env;
use empg_env::webshop::{Catalogue, WebshopOptions, WebshopSet};
use libfuzzer_sys::fuzz_target;

// Products, instructions, people's instructions, nouns; separated by a zero byte.
fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == 0);
    let (items, instructions) = (parts.next().unwrap_or(b"[]"), parts.next().unwrap_or(b"{}"));
    let Ok(catalogue) = Catalogue::from_json(items, instructions, parts.next(), parts.next())
    else {
        return;
    };
    for human_goals in [false, true] {
        let options = WebshopOptions { human_goals, ..WebshopOptions::default() };
        let Ok(set) = WebshopSet::new(catalogue.clone(), options, None) else { continue };
        let mut env = set.environment();
        let kind = if human_goals { "webshop-human" } else { "webshop" };
        if env.reset(&format!("{kind}/0/0"), 0).is_err() {
            continue;
        }
        let _ = env.step("search[<r>]");
        for _ in 0..8 {
            let Some(action) = env.admissible().pop() else { break };
            let _ = env.step(&action);
        }
    }
});
