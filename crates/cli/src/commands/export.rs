//! `empg export`: a model as one GGUF file, or as a folder; adapters are merged in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use empg_llm::{
    Dtype, GgufExport, GgufOptions, GgufVocabulary, export_gguf, is_gguf, load_gguf, save_model,
};
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
  empg export --model runs/NAME --out models/merged --type bf16
  llama-cli -m agent.gguf -p \"You are in the kitchen.\"")]
pub(crate) struct ExportArgs {
    /// A run, a checkpoint directory or a GGUF file
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// With a run: which checkpoint (last, best or a step)
    #[arg(long, default_value = "last", value_name = "WHICH")]
    checkpoint: Which,
    /// The file to write
    #[arg(long, value_name = "OUT", required_unless_present = "out")]
    gguf: Option<PathBuf>,
    /// A folder for transformers instead of a file
    #[arg(long, value_name = "DIR", conflicts_with = "gguf")]
    out: Option<PathBuf>,
    /// f16, q8_0, bf16 or f32; a folder takes no q8_0
    #[arg(long = "type", default_value = "f16", value_name = "TYPE")]
    dtype: GgufExport,
}

/// Writes the file and says how large it is.
pub(crate) fn run(args: ExportArgs, json: bool) -> anyhow::Result<()> {
    let ExportArgs { model, checkpoint, gguf, out, dtype } = args;
    let source = Path::new(&model);
    if let Some(out) = out {
        return folder(&model, checkpoint, &out, dtype, json);
    }
    let gguf = gguf.unwrap_or_default();
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
    let mut policy = policy;
    policy.model.merge_adapters();
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

/// The model as `transformers` opens it, its adapters merged in.
fn folder(
    model: &str,
    checkpoint: Which,
    out: &Path,
    dtype: GgufExport,
    json: bool,
) -> anyhow::Result<()> {
    let dtype = match dtype {
        GgufExport::F32 => Dtype::F32,
        GgufExport::F16 => Dtype::F16,
        GgufExport::BF16 => Dtype::BF16,
        GgufExport::Q8_0 => bail!("--out takes --type f16, bf16 or f32; q8_0 is for --gguf"),
    };
    if out.exists() && out.canonicalize()? == Path::new(model).canonicalize().unwrap_or_default() {
        bail!("--out names the model itself; name another folder");
    }
    let mut policy = models::locate(model, checkpoint)?.policy;
    let merged = policy.model.adapters.is_some();
    policy.model.merge_adapters();
    save_model(out, &policy.model, &policy.tokenizer, dtype)?;
    let what = if merged { ", adapters merged in" } else { "" };
    say!("{}: {} parameters{what}", out.display(), policy.model.params.len());
    if json {
        let out = out.display().to_string();
        output::line(&json!({ "out": out, "merged": merged }).to_string())?;
    }
    Ok(())
}
