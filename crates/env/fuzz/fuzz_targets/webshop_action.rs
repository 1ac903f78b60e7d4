//! Any actions can be played.
#![no_main]

use std::sync::{Arc, OnceLock};

use empg_env::Env;
use empg_env::webshop::{Catalogue, WebshopOptions, WebshopSet, generated};
use libfuzzer_sys::fuzz_target;

static CATALOGUE: OnceLock<Arc<Catalogue>> = OnceLock::new();

fuzz_target!(|actions: &str| {
    let catalogue = CATALOGUE.get_or_init(|| {
        let files = generated::catalogue_files(0, 40).expect("written to memory");
        Catalogue::from_json(&files.items, &files.instructions, None, Some(&files.nouns))
            .expect("a generated catalogue is well-formed")
    });
    let Ok(set) = WebshopSet::new(Arc::clone(catalogue), WebshopOptions::default(), None) else {
        return;
    };
    let mut env = set.environment();
    if env.reset("webshop/0/0", 0).is_ok() {
        for action in actions.split('\n') {
            // Between the wild actions, one that has an effect.
            let known = env.admissible().into_iter().next();
            if env.step(action).is_err() || known.is_some_and(|a| env.step(&a).is_err()) {
                break;
            }
        }
    }
});
