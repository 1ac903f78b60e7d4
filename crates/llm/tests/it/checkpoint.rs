//! Checkpoints come back as they were, and damaged ones are refused with the place of the damage.

use std::collections::BTreeMap;

use empg_llm::{
    CheckpointError, Dtype, Model, ModelConfig, TensorFile, TensorFileError, TensorView,
    checkpoint_files, load_model, model_from_bytes, model_to_bytes, save_model, write_tensors,
};

use crate::tokenizer::tiny;

fn model() -> Model {
    let config = ModelConfig {
        vocab_size: tiny().vocab_size(),
        hidden_size: 16,
        intermediate_size: 24,
        num_layers: 2,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 8,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        qkv_bias: false,
        qk_norm: false,
        max_position_embeddings: 128,
    };
    Model::init(config, 3).expect("valid")
}

#[test]
fn a_directory_round_trips_with_fixed_bytes() {
    let (model, tokenizer) = (model(), tiny());
    let dir = std::env::temp_dir().join(format!("empg-checkpoint-{}", std::process::id()));
    save_model(&dir, &model, &tokenizer, Dtype::F32).expect("saves");
    let (again, words) = load_model(&dir).expect("loads");
    assert_eq!(again.config, model.config);
    assert_eq!(again.params, model.params);
    assert_eq!(words.to_bytes(), tokenizer.to_bytes());
    for (name, bytes) in checkpoint_files(&again, &words, Dtype::F32).expect("writes") {
        assert_eq!(std::fs::read(dir.join(name)).expect("is there"), bytes, "{name}");
    }
    assert_eq!(std::fs::read_dir(&dir).expect("lists").count(), 5, "nothing left behind");
    std::fs::remove_dir_all(&dir).expect("removes");
    let missing = load_model(&dir).expect_err("gone");
    assert!(missing.to_string().contains("config.json"), "{missing}");
}

#[test]
fn nothing_of_another_model_stays_in_a_folder() {
    let (model, tokenizer) = (model(), tiny());
    let dir = tempfile::tempdir().expect("a folder");
    let words = ["chat_template.jinja", "special_tokens_map.json", "generation_config.json"];
    for name in words {
        std::fs::write(dir.path().join(name), "{}").expect("writes");
    }
    std::fs::write(dir.path().join("README.md"), "mine").expect("writes");
    save_model(dir.path(), &model, &tokenizer, Dtype::F32).expect("saves");
    for name in words {
        let left = std::fs::read_to_string(dir.path().join(name));
        assert!(left.map_or(true, |text| text != "{}"), "{name} would be taken for this model's");
    }
    assert!(dir.path().join("README.md").exists());
}

#[test]
fn halves_round_once() {
    let model = model();
    for (dtype, bound) in [(Dtype::F16, 1e-3), (Dtype::BF16, 8e-3)] {
        let bytes = model_to_bytes(&model, dtype).expect("writes");
        let load = |bytes: &[u8]| {
            let config = serde_json::to_vec(&model.config).expect("serialises");
            model_from_bytes(&config, bytes, &tiny().to_bytes()).expect("loads").0
        };
        let again = load(&bytes);
        for (a, b) in again.params.iter().zip(&model.params) {
            assert!((a - b).abs() <= bound * b.abs().max(1e-4), "{a} {b}");
        }
        assert_eq!(load(&model_to_bytes(&again, dtype).expect("writes")).params, again.params);
    }
}

/// A file with this header text and as many data bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(std::iter::repeat_n(0, data));
    bytes
}

#[test]
fn damage_is_named_and_placed() {
    let one = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    assert!(TensorFile::parse(&file(one, 16)).is_ok());
    for (bytes, needle) in [
        (vec![1, 2, 3], "header ends at byte 8"),
        (u64::MAX.to_le_bytes().to_vec(), "truncated"),
        (1000_u64.to_le_bytes().to_vec(), "byte 1008"),
        (file("{", 0), "not valid"),
        (file("[]", 0), "not valid"),
        (file(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4), "\"a\""),
        (file(one, 12), "data bytes 0..16"),
        (file(one, 20), "4 bytes follow"),
        (file(&one.replace("[2,2]", "[2,3]"), 16), "does not fill 16 bytes"),
        (file(&one.replace("[2,2]", "[4294967296,4294967296,4]"), 16), "does not fill"),
        (file(&one.replace("[2,2]", "[2,2,1,1,1,1,1,1,1]"), 16), "tensor \"a\": invalid length 9"),
        (file(&one.replace("\"F32\"", "7"), 16), "tensor \"a\": invalid type"),
        (file(r#"{"__metadata__":{"format":1}}"#, 0), "__metadata__: invalid type"),
        (file(&one.replace("F32", "F8_E4M3"), 16), "F8_E4M3"),
        (file(&one.replace("[0,16]", "[16,0]"), 16), "16..0"),
        (file(&one.replace("[0,16]", "[4,20]"), 20), "begins at data offset 4"),
        (
            file(
                r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#,
                16,
            ),
            "one before ends at 16",
        ),
    ] {
        let error = TensorFile::parse(&bytes).expect_err("refused").to_string();
        assert!(error.contains(needle), "{error:?} should mention {needle:?}");
    }
    let bytes = file(one, 16);
    let parsed = TensorFile::parse(&bytes).expect("valid");
    let mut out = [0.0; 4];
    assert!(matches!(
        parsed.read_into("a", &[4], &mut out),
        Err(TensorFileError::Shape { start: 0, .. })
    ));
    assert!(matches!(parsed.read_into("b", &[4], &mut out), Err(TensorFileError::Missing { .. })));
}

#[test]
fn every_truncation_of_a_checkpoint_is_an_error() {
    let model = model();
    let config = serde_json::to_vec(&model.config).expect("serialises");
    let (weights, words) =
        (model_to_bytes(&model, Dtype::BF16).expect("writes"), tiny().to_bytes());
    let load = |weights: &[u8]| model_from_bytes(&config, weights, &words);
    assert!(load(&weights).is_ok());
    for cut in (0..weights.len()).step_by(weights.len() / 37 + 1) {
        let error = load(&weights[..cut]).expect_err("truncated").to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
    // A value that is not a number is named.
    let mut poisoned = weights.clone();
    let end = poisoned.len();
    poisoned[end - 2..].copy_from_slice(&[0xC0, 0x7F]);
    let error = load(&poisoned).expect_err("NaN").to_string();
    assert!(error.contains("model.norm.weight") && error.contains("element 15"), "{error}");
}

#[test]
fn foreign_models_are_refused_by_name() {
    let model = model();
    let words = tiny().to_bytes();
    let weights = model_to_bytes(&model, Dtype::F32).expect("writes");
    let load = |config: ModelConfig, weights: &[u8]| {
        let config = serde_json::to_vec(&config).expect("serialises");
        model_from_bytes(&config, weights, &words).map(|_| ()).expect_err("refused").to_string()
    };
    let c = &model.config;
    let deeper = load(ModelConfig { num_layers: 1000, ..c.clone() }, &weights);
    assert!(deeper.contains("model.layers.999"), "{deeper}");
    let shallower = load(ModelConfig { num_layers: 1, ..c.clone() }, &weights);
    assert!(shallower.contains("model.layers.1.") && shallower.contains("no part"), "{shallower}");
    let wider = load(ModelConfig { intermediate_size: 1 << 18, ..c.clone() }, &weights);
    assert!(wider.contains("gate_proj") && wider.contains("[24, 16]"), "{wider}");
    let fewer = load(ModelConfig { vocab_size: 10, ..c.clone() }, &weights);
    assert!(fewer.contains("tokenizer has"), "{fewer}");
    let untied = load(ModelConfig { tie_word_embeddings: false, ..c.clone() }, &weights);
    assert!(untied.contains("lm_head"), "{untied}");
    assert!(matches!(
        model_from_bytes(b"{}", &weights, &words),
        Err(CheckpointError::Config { .. })
    ));
    assert!(matches!(
        model_from_bytes(&serde_json::to_vec(c).expect("serialises"), &weights, b"{}"),
        Err(CheckpointError::Tokenizer { .. })
    ));
}

#[test]
fn free_tensors_and_strings_round_trip() {
    let values = [1.0, -2.5, 3.0, 0.0, 1e-8, 65504.0];
    let views = [
        TensorView { name: "z", shape: &[2, 3], values: &values },
        TensorView { name: "a", shape: &[0, 4], values: &[] },
        TensorView { name: "scalar", shape: &[], values: &values[..1] },
    ];
    let strings = BTreeMap::from([("step".to_owned(), "7".to_owned())]);
    let bytes = write_tensors(&views, Dtype::F32, &strings).expect("writes");
    assert_eq!(bytes, write_tensors(&views, Dtype::F32, &strings).expect("writes"));
    let file = TensorFile::parse(&bytes).expect("reads");
    assert_eq!(file.metadata(), &strings);
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "scalar", "z"]);
    let mut out = [0.0; 6];
    file.read_into("z", &[2, 3], &mut out).expect("reads");
    assert_eq!(out, values);
    assert_eq!(file.describe("scalar"), Some((&[][..], Dtype::F32)));
    let wrong = [TensorView { name: "w", shape: &[5], values: &values }];
    assert!(matches!(
        write_tensors(&wrong, Dtype::F32, &strings),
        Err(TensorFileError::Write { .. })
    ));
}

#[test]
fn what_a_type_cannot_hold_is_not_written() {
    let (largest, beyond) = ([1.0, 65_519.0, -65_519.0], [1.0, 2.0, -65_520.0]);
    let write = |values: &[f32], dtype| {
        let views = [TensorView { name: "w", shape: &[3], values }];
        write_tensors(&views, dtype, &BTreeMap::new())
    };
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let bytes = write(&largest, dtype).expect("fits");
        let mut back = [0.0; 3];
        TensorFile::parse(&bytes).expect("reads").read_into("w", &[3], &mut back).expect("finite");
    }
    write(&beyond, Dtype::BF16).expect("fits");
    let error = write(&beyond, Dtype::F16).expect_err("refused").to_string();
    assert!(error.contains("\"w\", element 2") && error.contains("65520"), "{error}");
    let error = write(&[1.0, f32::MAX, 0.0], Dtype::BF16).expect_err("refused").to_string();
    assert!(error.contains("element 1") && error.contains("BF16"), "{error}");
}
