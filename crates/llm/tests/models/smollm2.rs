//! SmolLM2-135M-Instruct against transformers on the same dequantised weights in f32:
//! `tools/model_goldens.py smollm2` writes what is compared with.

use std::path::{Path, PathBuf};
use std::process::Command;

use empg_llm::{LoadedModel, PackedBatch, Target, Workspace, load_path};
use libtest_mimic::Failed;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    sample: String,
    /// By the published tokenizer, which the GGUF describes.
    sample_tokens: Vec<u32>,
    /// By that of the folder.
    converted_tokens: Vec<u32>,
    prompts: Vec<Prompt>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Prompt {
    tokens: Vec<u32>,
    temperature: f32,
    logprobs: Vec<f32>,
    entropy: Vec<f32>,
}

#[derive(Deserialize)]
struct Chat {
    /// A JSON object as text, its keys in order.
    variables: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Templates {
    specials: std::collections::BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    source: String,
    variables: String,
    text: Option<String>,
}

/// The forms in which the model may lie in the folder.
const FORMS: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-hf"];

fn golden() -> Result<Golden, Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/smollm2.json");
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Every form of the model that is there; at least one.
fn models(folder: &Path) -> Result<Vec<(PathBuf, LoadedModel)>, Failed> {
    let there: Vec<PathBuf> =
        FORMS.iter().map(|form| folder.join(form)).filter(|path| path.exists()).collect();
    if there.is_empty() {
        return Err(format!("{} holds none of {FORMS:?}", folder.display()).into());
    }
    there.into_iter().map(|path| Ok((path.clone(), load_path(&path)?))).collect()
}

/// Log-probabilities and entropies of five prompts, to 1e-3 nats.
pub(crate) fn scores(folder: &Path) -> Result<(), Failed> {
    let golden = golden()?;
    let mut ws = Workspace::with_threads(2);
    for (path, loaded) in models(folder)? {
        let mut worst = (0.0f32, 0.0f32);
        for prompt in &golden.prompts {
            let mut batch = PackedBatch::default();
            batch.push(&prompt.tokens, None);
            let targets = prompt.tokens.iter().enumerate().skip(1);
            batch.targets = targets.map(|(i, &token)| Target { row: i - 1, token }).collect();
            let got = loaded.model.score(&batch, prompt.temperature, &mut ws)?;
            assert_eq!(got.len(), prompt.logprobs.len());
            for ((got, logprob), entropy) in got.iter().zip(&prompt.logprobs).zip(&prompt.entropy) {
                worst.0 = worst.0.max((got.logprob - logprob).abs());
                worst.1 = worst.1.max((got.entropy - entropy).abs());
            }
        }
        eprintln!("{}: log-probability {:.1e}, entropy {:.1e}", path.display(), worst.0, worst.1);
        assert!(worst.0 <= 1e-3 && worst.1 <= 1e-3, "{worst:?}");
    }
    Ok(())
}

/// Tokens of many scripts, emoji and code; conversations by the model's own template.
pub(crate) fn texts(folder: &Path) -> Result<(), Failed> {
    let golden = golden()?;
    for (path, loaded) in models(folder)? {
        let tokens = if path.is_dir() { &golden.converted_tokens } else { &golden.sample_tokens };
        assert_eq!(&loaded.tokenizer.encode(&golden.sample)?, tokens, "{}", path.display());
        let template = loaded.chat_template.as_ref().ok_or("no chat template")?;
        for chat in &golden.chats {
            assert_eq!(template.render_json(&chat.variables).ok(), chat.text);
        }
        assert!(loaded.end_tokens().contains(&2));
    }
    Ok(())
}

/// Templates of other models, where `tools/model_goldens.py templates` has written them.
pub(crate) fn templates(folder: &Path) -> Result<(), Failed> {
    let text = std::fs::read(folder.join("chat_templates.json"))?;
    let Templates { specials, cases } = serde_json::from_slice(&text)?;
    let mut wrong = Vec::new();
    for Case { name, source, variables, text } in &cases {
        let rendered = empg_llm::ChatTemplate::new(source, specials.clone())
            .and_then(|template| template.render_json(variables));
        if rendered.as_ref().ok() != text.as_ref() {
            wrong.push(format!("{name}: {rendered:?}\n  instead of {text:?}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n")).into())
}

/// What the loading process reports of itself.
const PROBE: &str = "EMPG_LOAD_PROBE";

/// In the child: loads the model and prints the peak of memory and the bytes of weights.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(crate) fn probe() -> bool {
    let Some(path) = std::env::var_os(PROBE) else { return false };
    let loaded = load_path(Path::new(&path)).expect("loads");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    println!("{} {}", peak.trim().trim_end_matches(" kB"), loaded.model.params.len() * 4);
    true
}

/// A process that loads the model has at no time more memory than 1.2 × its weights.
pub(crate) fn memory(folder: &Path) -> Result<(), Failed> {
    for form in FORMS.iter().map(|form| folder.join(form)).filter(|path| path.exists()) {
        let child = Command::new(std::env::current_exe()?).env(PROBE, &form).output()?;
        let text = String::from_utf8(child.stdout)?;
        let (peak, weights) = text.trim().split_once(' ').ok_or("the child said nothing")?;
        let (peak, weights) = (peak.parse::<f64>()? * 1024.0, weights.parse::<f64>()?);
        eprintln!("{}: {:.3} of the weights", form.display(), peak / weights);
        assert!(peak > 0.0 && peak <= 1.2 * weights, "{peak} of {weights}");
    }
    Ok(())
}
