//! `empg export`: a model as one GGUF file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use empg_llm::{GgufExport, GgufOptions, GgufVocabulary, export_gguf, is_gguf, load_gguf};
use empg_train::Policy;
use serde_json::json;

use crate::models::{self, Which};
use crate::{output, say};

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Matrices are stored in the chosen type, vectors in f32. The tokenizer must be byte-level BPE (as
those of Llama 3, Qwen and SmolLM are); the chat template goes along where the model has one.

Examples:
  empg export --model runs/NAME --gguf agent.gguf
  empg export --model models/SmolLM2-135M-Instruct --gguf smollm2.q8_0.gguf --type q8_0
  llama-cli -m agent.gguf -p \"You are in the kitchen.\"")]
pub(crate) struct ExportArgs {
    /// A run, a checkpoint directory or a GGUF file
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// With a run: which checkpoint (last, best or a step)
    #[arg(long, default_value = "last", value_name = "WHICH")]
    checkpoint: Which,
    /// The file to write
    #[arg(long, value_name = "OUT")]
    gguf: PathBuf,
    /// f16, q8_0, bf16 or f32
    #[arg(long = "type", default_value = "f16", value_name = "TYPE")]
    dtype: GgufExport,
}

/// Writes the file and says how large it is.
pub(crate) fn run(args: ExportArgs, json: bool) -> anyhow::Result<()> {
    let ExportArgs { model, checkpoint, gguf, dtype } = args;
    let source = Path::new(&model);
    if gguf.exists() && source.exists() && gguf.canonicalize()? == source.canonicalize()? {
        bail!("--gguf names the model itself; name another file");
    }
    let (policy, options) = if is_gguf(source) {
        let read = load_gguf(source).with_context(|| format!("loading {}", source.display()))?;
        let options = GgufOptions {
            name: source.file_stem().map(|name| name.to_string_lossy().into_owned()),
            ..GgufOptions::from(&read.vocabulary)
        };
        let GgufVocabulary { tokenizer, .. } = read.vocabulary;
        (Policy { model: read.model, tokenizer }, options)
    } else {
        let located = models::locate(&model, checkpoint)?;
        let options =
            GgufOptions::of_checkpoint(Path::new(&located.name), &located.policy.tokenizer)?;
        (located.policy, options)
    };
    export_gguf(&gguf, &policy.model, &policy.tokenizer, dtype, &options)?;
    let bytes = std::fs::metadata(&gguf)?.len();
    say!(
        "{}: {} tensors, {:.1} MB",
        gguf.display(),
        policy.model.layout.entries().len(),
        bytes as f64 / 1e6
    );
    if json {
        let path = gguf.display().to_string();
        output::line(&json!({ "gguf": path, "bytes": bytes }).to_string())?;
    }
    Ok(())
}
