//! `empg export`: a model as one GGUF file, or as a folder; adapters are merged in.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use empg_llm::{
    ADAPTER_CONFIG_FILE, CONFIG_FILE, Dtype, GgufExport, GgufOptions, checkpoint_files_beside,
    export_gguf, is_gguf, write_files,
};
use empg_train::Policy;
use serde_json::json;

use crate::models::{self, Located, Which};
use crate::settings::SettingsError;
use crate::{output, say};

/// Goes before the template in a tokenizer's settings.

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A GGUF file stores matrices in the chosen type, vectors in f32; its tokenizer
must be byte-level BPE (as those of Llama 3, Qwen and SmolLM are). Special
tokens, chat template and sampling defaults are those that the model came with.

Examples:
  empg export --model runs/NAME --gguf agent.gguf
  empg export --model models/SmolLM2-135M-Instruct --gguf smollm2.q8_0.gguf --type q8_0
  empg export --model runs/NAME --out models/merged --type bf16
  llama-cli -m agent.gguf -p \"You are in the kitchen.\"")]
pub(crate) struct ExportArgs {
    /// A run, a checkpoint directory, a GGUF file or an id on the Hugging Face Hub
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
    /// Replace a model that is there already
    #[arg(long)]
    force: bool,
}

/// Writes the file and says how large it is.
pub(crate) fn run(args: ExportArgs, json: bool) -> anyhow::Result<()> {
    let ExportArgs { model, checkpoint, gguf, out, dtype, force } = args;
    let source = Path::new(&model);
    if let Some(out) = out {
        return folder(&model, checkpoint, &out, (dtype, force), json);
    }
    let gguf = gguf.unwrap_or_default();
    if gguf.exists() && source.exists() && gguf.canonicalize()? == source.canonicalize()? {
        bail!("--gguf names the model itself; name another file");
    }
    let Located { mut policy, name, .. } = models::locate(&model, checkpoint)?;
    if names_base(&policy, &gguf)? {
        bail!("--gguf names the model that the adapters belong to; name another file");
    }
    // An empty file, as mktemp makes them, holds nothing to lose.
    if !force && std::fs::metadata(&gguf).is_ok_and(|found| found.len() > 0) {
        bail!(
            "--gguf {} is there already: name another file, or replace it with --force",
            gguf.display()
        );
    }
    let called = Path::new(&name);
    let called = if is_gguf(called) { called.file_stem() } else { called.file_name() };
    let options = GgufOptions {
        name: called.map(|name| name.to_string_lossy().into_owned()),
        ..GgufOptions::of_model(&policy.side, &policy.tokenizer)?
    };
    if options.eos.is_none() {
        say!("warning: the model names no end token; llama.cpp assumes one for such files");
    }
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

/// Refuses a folder for a model where something would be lost: a run's, in which whoever opened it
/// would find the run's checkpoint, and one that holds a model, unless that is to be replaced.
pub(crate) fn room_for_model(out: &Path, force: bool) -> Result<(), SettingsError> {
    if out.join("manifest.json").exists() {
        let what = format!("--out {} is a run's; name another folder", out.display());
        return Err(SettingsError::Conflict(what));
    }
    let held = [CONFIG_FILE, ADAPTER_CONFIG_FILE].into_iter().find(|file| out.join(file).exists());
    match held.filter(|_| !force) {
        Some(file) => Err(SettingsError::Conflict(format!(
            "--out {} holds a model already ({file}): name another folder, or replace it with --force",
            out.display()
        ))),
        None => Ok(()),
    }
}

/// Whether a path is the model that a policy's adapters belong to.
fn names_base(policy: &Policy, path: &Path) -> anyhow::Result<bool> {
    let base = policy.model.adapters.as_ref().and_then(|adapters| adapters.base.as_deref());
    Ok(match base.map(Path::new).filter(|base| base.exists() && path.exists()) {
        Some(base) => path.canonicalize()? == base.canonicalize()?,
        None => false,
    })
}

/// The model as `transformers` opens it, its adapters merged in.
fn folder(
    model: &str,
    checkpoint: Which,
    out: &Path,
    (dtype, force): (GgufExport, bool),
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
    let Located { mut policy, .. } = models::locate(model, checkpoint)?;
    let merged = policy.model.adapters.is_some();
    if names_base(&policy, out)? {
        bail!("--out names the model that the adapters belong to; name another folder");
    }
    room_for_model(out, force)?;
    policy.model.merge_adapters();
    let files = checkpoint_files_beside(&policy.model, &policy.tokenizer, dtype, &policy.side)?;
    write_files(out, &files)?;
    let what = if merged { ", adapters merged in" } else { "" };
    say!("{}: {} parameters{what}", out.display(), policy.model.params.len());
    if json {
        let out = out.display().to_string();
        output::line(&json!({ "out": out, "merged": merged }).to_string())?;
    }
    Ok(())
}
