//! Any bytes are a Parquet file of questions or refused.
#![no_main]

use empg_env::search::Questions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: Vec<u8>| {
    let _ = Questions::parse_parquet(bytes, "fuzz");
});
