//! Any bytes are questions or refused; every question is a task of one split.
#![no_main]

use empg_env::Split;
use empg_env::search::Questions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(questions) = Questions::parse(bytes, "fuzz") {
        let count: u64 =
            [Split::Train, Split::Seen, Split::Unseen].map(|split| questions.len(split)).iter().sum();
        assert_eq!(count, questions.all().len() as u64);
        for question in questions.all() {
            assert!(questions.find(&question.id).is_some());
        }
    }
});
