//! Any bytes as an index of several files: read or refused, never a path out of the folder.
#![no_main]

use std::path::{Component, Path};

use empg_llm::index_files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(files) = index_files(data) {
        for (file, tensors) in files {
            let parts: Vec<Component<'_>> = Path::new(&file).components().collect();
            assert!(matches!(parts.as_slice(), [Component::Normal(_)]), "{file:?}");
            assert!(!tensors.is_empty());
        }
    }
});
