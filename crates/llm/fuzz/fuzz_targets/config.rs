//! Any bytes as `config.json` and `generation_config.json`: read or refused. What is read describes
//! a model whose sizes can be multiplied, and reads back as it is written.
#![no_main]

use empg_llm::{GenerationConfig, ModelConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = serde_json::from_slice::<ModelConfig>(data) {
        config.validate().expect("checked when read");
        assert!(config.qkv_size().checked_mul(config.hidden_size).is_some());
        let text = serde_json::to_string(&config).expect("writes");
        assert_eq!(serde_json::from_str::<ModelConfig>(&text).expect("reads back"), config);
    }
    if let Ok(generation) = GenerationConfig::from_bytes(data) {
        assert!(generation.temperature.is_none_or(|t| t >= 0.0 && t.is_finite()));
    }
});
