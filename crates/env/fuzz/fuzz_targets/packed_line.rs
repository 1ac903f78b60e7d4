//! Any line of a packed file is read or refused.
#![no_main]

use empg_env::alfworld::{PackedRecord, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Ok(record) = PackedRecord::parse(line) {
        let _ = record.game(Rules::default());
    }
});
