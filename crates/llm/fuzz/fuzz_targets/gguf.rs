//! Any bytes are a GGUF file or refused; what is read is a whole model with a tokenizer that works.
#![no_main]

use empg_llm::{GgufFile, gguf_from_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = GgufFile::parse(bytes) else { return };
    let mut last = None;
    let mut order: Vec<_> = file.tensors().map(|(_, info)| info.range.clone()).collect();
    order.sort_by_key(|range| range.start);
    for range in order {
        assert!(range.end <= bytes.len() && last.is_none_or(|end| end <= range.start));
        last = Some(range.end);
    }
    if let Ok(read) = gguf_from_bytes(bytes) {
        assert!(read.model.params.iter().all(|v| v.is_finite()));
        // Every stored type has at least 4.5 bits a value.
        assert!(read.model.params.len() * 9 <= bytes.len() * 16);
        if let Ok(ids) = read.vocabulary.tokenizer.encode("hello w12 \u{1f642}<|im_end|>") {
            assert!(ids.iter().all(|&id| (id as usize) < read.model.config.vocab_size));
        }
    }
});
