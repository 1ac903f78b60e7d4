//! Any bytes as an `.npy` file: read or refused.
#![no_main]

use empg_env::retrieval::{Dense, Matrix};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(matrix) = Matrix::parse(data, "fuzz.npy") {
        assert!(matrix.columns() > 0);
        if let Some(row) = matrix.row(0).map(<[f32]>::to_vec) {
            let found = Dense::new(matrix).search(&row, 3).expect("the row has the right length");
            assert!(found.len() <= 3);
        }
    }
});
