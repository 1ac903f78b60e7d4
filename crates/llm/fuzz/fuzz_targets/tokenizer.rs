//! Any bytes as a `tokenizer.json`: read or refused; what is read turns text into tokens of its
//! vocabulary and tokens into text, or says why not.
#![no_main]

use std::sync::Once;

use empg_llm::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // A panic inside that is caught and told as an error is none; one that gets out still ends
    // the run.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    if let Ok(tokenizer) = Tokenizer::from_bytes(data) {
        let size = tokenizer.vocab_size();
        for text in ["", "a mug 2\n", "é 日本 👍🏽\u{301} <|im_end|>"] {
            if let Ok(tokens) = tokenizer.encode(text) {
                assert!(tokens.iter().all(|t| (*t as usize) < size));
                let _ = tokenizer.decode(&tokens);
            }
            let _ = tokenizer.encode_text(text);
        }
        let _ = tokenizer.decode(&[0, 7, u32::MAX]);
    }
});
