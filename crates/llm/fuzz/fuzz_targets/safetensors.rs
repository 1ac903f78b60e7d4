//! Any bytes as a safetensors file, and as the weights of a small model: read or refused.
#![no_main]

use std::sync::OnceLock;

use empg_llm::{Model, ModelConfig, Names, TensorFile, Tokenizer, model_from_bytes, tiny_tokenizer};
use libfuzzer_sys::fuzz_target;

fn small() -> &'static (Vec<u8>, Tokenizer) {
    static SMALL: OnceLock<(Vec<u8>, Tokenizer)> = OnceLock::new();
    SMALL.get_or_init(|| {
        let names =
            Names { things: &[("mug", 1)], people: (&[], &[]), words: &[], tails: &[], spelling: false };
        let tokenizer = tiny_tokenizer(&names).expect("a tokenizer");
        let config = ModelConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: 2,
            intermediate_size: 2,
            num_layers: 1,
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 2,
            rope_theta: 1e4,
            rope_scaling: None,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            max_position_embeddings: 8,
        };
        Model::init(config.clone(), 0).expect("a model");
        (serde_json::to_vec(&config).expect("a config"), tokenizer)
    })
}

fuzz_target!(|data: &[u8]| {
    if let Ok(file) = TensorFile::parse(data) {
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        for name in names {
            let Some((shape, _)) = file.describe(&name) else { panic!("{name} is listed") };
            let shape = shape.to_vec();
            let count: usize = shape.iter().product();
            // Every value has its bytes in the file.
            assert!(count <= data.len());
            let mut out = vec![0.0; count];
            if file.read_into(&name, &shape, &mut out).is_ok() {
                assert!(out.iter().all(|v| v.is_finite()));
            }
        }
    }
    let (config, tokenizer) = small();
    let _ = model_from_bytes(config, data, &tokenizer.to_bytes());
});
