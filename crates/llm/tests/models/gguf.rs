//! The real GGUF file: its weights as `transformers` reads them, and its tokens.

use std::collections::BTreeMap;
use std::path::Path;

use empg_llm::{
    GgufExport, GgufModel, GgufOptions, export_gguf, gguf_from_bytes, load_gguf, write_gguf,
};
use libtest_mimic::Failed;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    tensors: BTreeMap<String, String>,
    tokens: BTreeMap<String, Vec<u32>>,
}

fn golden() -> Result<Golden, Failed> {
    Ok(serde_json::from_str(include_str!("../goldens/smollm2_gguf.json"))?)
}

fn load(models: &Path) -> Result<GgufModel, Failed> {
    Ok(load_gguf(&models.join("SmolLM2-135M-Instruct.Q4_1.gguf"))?)
}

/// FNV-1a over the values' bits, as `tools/gguf_goldens.py` has it.
fn fingerprint(values: &[f32]) -> String {
    let hashed = values.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, v| {
        (hash ^ u64::from(v.to_bits())).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hashed:016x}")
}

pub(crate) fn tensors(models: &Path) -> Result<(), Failed> {
    let GgufModel { model, vocabulary } = load(models)?;
    let golden = golden()?;
    assert!(golden.tensors.len() > 10);
    for (name, expected) in &golden.tensors {
        let spec = model.layout.find(name).ok_or_else(|| format!("no tensor {name}"))?;
        let found = fingerprint(&model.params[spec.range.clone()]);
        assert_eq!(&found, expected, "{name}");
    }
    assert_eq!(model.params.len(), 134_515_008);
    assert_eq!((vocabulary.bos, vocabulary.eos), (Some(1), Some(2)));
    assert!(vocabulary.chat_template.is_some_and(|t| t.contains("SmolLM")));
    Ok(())
}

pub(crate) fn tokens(models: &Path) -> Result<(), Failed> {
    let tokenizer = load(models)?.vocabulary.tokenizer;
    let golden = golden()?;
    assert!(golden.tokens.len() > 12);
    for (text, expected) in &golden.tokens {
        assert_eq!(&tokenizer.encode(text)?, expected, "{text:?}");
    }
    Ok(())
}

/// Eight bits and back: close to the source, and every export the same bytes.
pub(crate) fn export(models: &Path) -> Result<(), Failed> {
    let GgufModel { model, vocabulary } = load(models)?;
    let path = std::env::temp_dir().join(format!("empg-export-{}.gguf", std::process::id()));
    let options = GgufOptions { eos: vocabulary.eos, ..GgufOptions::default() };
    export_gguf(&path, &model, &vocabulary.tokenizer, GgufExport::Q8_0, &options)?;
    let bytes = std::fs::read(&path)?;
    std::fs::remove_file(&path)?;
    let mut again = Vec::new();
    write_gguf(&mut again, &model, &vocabulary.tokenizer, GgufExport::Q8_0, &options)?;
    assert!(bytes == again);
    let read = gguf_from_bytes(&bytes)?;
    let (mut error, mut power) = (0.0, 0.0);
    for (a, b) in model.params.iter().zip(&read.model.params) {
        error += f64::from(a - b).powi(2);
        power += f64::from(*a).powi(2);
    }
    assert!(error / power < 1e-4, "{error} of {power}");
    Ok(())
}
