//! What only a real model shows. The models lie in the folder that `EMPG_TEST_MODELS` names
//! (`SmolLM2-135M-Instruct.Q4_1.gguf`, `smollm2-hf`, `chat_templates.json`); without it every test here shows as ignored.

mod gguf;
mod smollm2;

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    if smollm2::probe() {
        return;
    }
    let models = std::env::var_os("EMPG_TEST_MODELS").map(PathBuf::from);
    let templates = models.as_ref().is_some_and(|m| m.join("chat_templates.json").exists());
    let trial = |name: &'static str, test: fn(&Path) -> Result<(), Failed>| {
        let models = models.clone();
        let ignored = models.is_none();
        let run = move || models.as_deref().map_or(Ok(()), test);
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    let tests = vec![
        trial("gguf_tensors", gguf::tensors),
        trial("gguf_tokens", gguf::tokens),
        trial("gguf_export", gguf::export),
        trial("smollm2_scores", smollm2::scores),
        trial("smollm2_texts", smollm2::texts),
        trial("smollm2_memory", smollm2::memory),
        trial("chat_templates", smollm2::templates).with_ignored_flag(!templates),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}
