//! Model directories as `transformers` writes them, against what it computes with them.
//! `tools/model_goldens.py tiny` writes them.

use std::fs;
use std::path::{Path, PathBuf};

use empg_llm::{
    CHAT_TEMPLATE, CheckpointError, Decoder, Dtype, GgufOptions, INDEX_FILE, LoadedModel,
    PackedBatch, SamplingParams, SideFiles, Target, Workspace, checkpoint_files_beside,
    index_files, load_directory, load_gguf, load_model, load_path, write_files,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    tokens: Vec<Vec<u32>>,
    scores: Vec<Scores>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Scores {
    tokens: Vec<u32>,
    temperature: f32,
    logprobs: Vec<f32>,
    entropy: Vec<f32>,
}

#[derive(Deserialize)]
struct Chat {
    /// A JSON object as text, its keys in order.
    variables: String,
    text: String,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(format!("{name}-tiny"))
}

fn check(name: &str) -> LoadedModel {
    let dir = folder(name);
    let text = fs::read(dir.join("expected.json")).expect("goldens");
    let expected: Expected = serde_json::from_slice(&text).expect("goldens");
    let loaded = load_path(&dir).expect("loads");
    for (text, tokens) in expected.texts.iter().zip(&expected.tokens) {
        assert_eq!(&loaded.tokenizer.encode(text).expect("encodes"), tokens);
    }
    let mut ws = Workspace::new();
    for scores in &expected.scores {
        let mut batch = PackedBatch::default();
        batch.push(&scores.tokens, None);
        let targets = scores.tokens.iter().enumerate().skip(1);
        batch.targets = targets.map(|(i, &token)| Target { row: i - 1, token }).collect();
        let got = loaded.model.score(&batch, scores.temperature, &mut ws).expect("scores");
        assert_eq!(got.len(), scores.logprobs.len());
        for (i, got) in got.iter().enumerate() {
            assert!((got.logprob - scores.logprobs[i]).abs() < 1e-4, "{name} {i}: {got:?}");
            assert!((got.entropy - scores.entropy[i]).abs() < 1e-4, "{name} {i}: {got:?}");
        }
    }
    let template = loaded.chat_template.as_ref().expect("has a template");
    for chat in &expected.chats {
        assert_eq!(template.render_json(&chat.variables).as_ref(), Ok(&chat.text));
    }
    assert_eq!(loaded.generation.eos, [2, 0]);
    assert_eq!((loaded.generation.temperature, loaded.generation.top_k), (Some(0.7), Some(20)));
    assert_eq!(loaded.end_tokens(), [0, 2]);
    loaded
}

#[test]
fn qwen2_in_bf16_and_several_files() {
    let loaded = check("qwen2");
    assert!(loaded.model.config.qkv_bias && !loaded.model.config.tie_word_embeddings);
    let index = fs::read(folder("qwen2").join(INDEX_FILE)).expect("reads");
    assert_eq!(index_files(&index).expect("an index").len(), 3);
}

#[test]
fn qwen3_in_one_file_samples_what_it_scores() {
    let loaded = check("qwen3");
    assert!(loaded.model.config.qk_norm && loaded.model.config.head_dim == 16);
    let prompt = loaded.tokenizer.encode("The mug is").expect("encodes");
    let mut decoder = Decoder::new(&loaded.model, 128).expect("fits");
    let seq = decoder.open(&prompt).expect("opens");
    let params = SamplingParams {
        temperature: 1.0,
        top_k: None,
        top_p: None,
        max_tokens: 24,
        stop: Vec::new(),
    };
    let turn = decoder.generate(&[(seq, 5)], &params).expect("generates").remove(0);
    let mut batch = PackedBatch::default();
    batch.push(&[prompt.as_slice(), &turn.tokens].concat(), None);
    let rows = prompt.len() - 1..;
    batch.targets = rows.zip(&turn.tokens).map(|(row, &token)| Target { row, token }).collect();
    let scores = loaded.model.score(&batch, 1.0, &mut Workspace::new()).expect("scores");
    for (a, b) in scores.iter().zip(&turn.scores) {
        assert!((a.logprob - b.logprob).abs() < 1e-4 && (a.entropy - b.entropy).abs() < 1e-4);
    }
}

/// A copy of the directory in several files, to be damaged.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("empg-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("creates");
        for file in fs::read_dir(folder("qwen2")).expect("lists") {
            let file = file.expect("lists");
            fs::copy(file.path(), dir.join(file.file_name())).expect("copies");
        }
        Self(dir)
    }

    fn error(&self) -> String {
        load_directory(&self.0).expect_err("refused").to_string()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SECOND: &str = "model-00002-of-00003.safetensors";

#[test]
fn damaged_indices_and_files_are_named() {
    let copy = Copy::new("shards");
    let path = copy.0.join(INDEX_FILE);
    let index = fs::read_to_string(&path).expect("reads");
    for (from, to, needle) in [
        (SECOND, "../../secret.safetensors", "not the name of a safetensors file beside"),
        (SECOND, "/etc/passwd", "not the name of a safetensors file beside"),
        (SECOND, "other.safetensors", "other.safetensors"),
        ("\"weight_map\"", "\"weights\"", "weight_map"),
        ("model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.other.weight", "other.weight"),
    ] {
        assert!(index.contains(from), "{from}");
        fs::write(&path, index.replacen(from, to, 1)).expect("writes");
        let error = copy.error();
        assert!(error.contains(needle), "{to}: {error}");
    }
    fs::write(&path, r#"{"weight_map": {}}"#).expect("writes");
    assert!(copy.error().contains("names no tensor"));
    // A tensor moved to another file than the one that holds it.
    let line = index.lines().find(|l| l.contains(SECOND)).expect("there");
    let moved = line.replace(SECOND, "model-00001-of-00003.safetensors");
    fs::write(&path, index.replace(line, &moved)).expect("writes");
    let error = copy.error();
    assert!(error.contains("missing") && error.contains("00001"), "{error}");

    fs::write(&path, &index).expect("writes");
    let shard = copy.0.join(SECOND);
    let bytes = fs::read(&shard).expect("reads");
    for cut in [0, 5, 100, bytes.len() - 1] {
        fs::write(&shard, &bytes[..cut]).expect("writes");
        let error = copy.error();
        assert!(error.contains(SECOND) && error.contains("byte"), "{cut}: {error}");
    }
    fs::remove_file(&shard).expect("removes");
    assert!(matches!(load_model(&copy.0), Err(CheckpointError::Io { .. })));
    fs::write(&shard, &bytes).expect("writes");
    load_directory(&copy.0).expect("whole again");
}

#[test]
fn damaged_texts_are_named() {
    let copy = Copy::new("texts");
    for (file, content) in [
        ("generation_config.json", "{\"eos_token_id\": \"x\"}"),
        ("generation_config.json", "{\"temperature\": -1}"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer.json", "{\"model\": {}}"),
        ("config.json", "{\"model_type\": \"qwen2\"}"),
    ] {
        let path = copy.0.join(file);
        let before = fs::read(&path).expect("reads");
        fs::write(&path, content).expect("writes");
        let error = copy.error();
        assert!(error.contains(file), "{file}: {error}");
        fs::write(&path, before).expect("writes");
    }
    // Settings are small; a file of them that is not would be held many times over.
    for file in ["config.json", "generation_config.json"] {
        let path = copy.0.join(file);
        let before = fs::read(&path).expect("reads");
        let mut long = before.clone();
        long.resize((16 << 20) + 1, b' ');
        fs::write(&path, long).expect("writes");
        let error = copy.error();
        assert!(error.contains(file) && error.contains("at most 16777216"), "{file}: {error}");
        fs::write(&path, before).expect("writes");
    }
    // What is optional may be missing; the ids of config.json are used then.
    for file in ["generation_config.json", "tokenizer_config.json", "chat_template.jinja"] {
        fs::remove_file(copy.0.join(file)).expect("removes");
    }
    let bare = load_directory(&copy.0).expect("loads");
    assert!(bare.chat_template.is_none() && bare.generation.temperature.is_none());
    assert_eq!(bare.generation.eos, [2]);
}

/// The model written anew into a folder, and read from there.
fn rewritten(loaded: &LoadedModel) -> (tempfile::TempDir, LoadedModel) {
    let LoadedModel { model, tokenizer, side, .. } = loaded;
    let dir = tempfile::tempdir().expect("a folder");
    let files = checkpoint_files_beside(model, tokenizer, Dtype::BF16, side).expect("files");
    write_files(dir.path(), &files).expect("written");
    let again = load_directory(dir.path()).expect("loads");
    (dir, again)
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).expect("reads")).expect("JSON")
}

#[test]
fn what_lies_beside_the_weights_is_written_as_it_was_read() {
    let loaded = load_path(&folder("qwen2")).expect("loads");
    let (dir, again) = rewritten(&loaded);
    for file in ["generation_config.json", "tokenizer_config.json", "chat_template.jinja"] {
        let (one, other) = (folder("qwen2").join(file), dir.path().join(file));
        assert_eq!(fs::read(one).expect("reads"), fs::read(other).expect("reads"), "{file}");
    }
    let config = json(&dir.path().join("config.json"));
    assert_eq!(config["eos_token_id"], 2);
    assert!(config["bos_token_id"].is_null() && config["pad_token_id"].is_null());
    assert_eq!((&again.side, again.generation), (&loaded.side, loaded.generation));

    // Without sampling defaults the ids of config.json are all there is, as for transformers.
    let copy = Copy::new("beside");
    fs::remove_file(copy.0.join("generation_config.json")).expect("removes");
    let (dir, again) = rewritten(&load_directory(&copy.0).expect("loads"));
    assert_eq!(again.generation.eos, [2]);
    let generation = json(&dir.path().join("generation_config.json"));
    assert_eq!(generation.as_object().expect("an object").len(), 3);
    // A template in a list with names is taken too.
    fs::remove_file(copy.0.join("chat_template.jinja")).expect("removes");
    let list = r#"{"eos_token": {"content": "<|endoftext|>"}, "chat_template": [
        {"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    fs::write(copy.0.join("tokenizer_config.json"), list).expect("writes");
    fs::write(copy.0.join("generation_config.json"), r#"{"eos_token_id": [2, 0]}"#).expect("w");
    let loaded = load_directory(&copy.0).expect("loads");
    let options = GgufOptions::of_model(&loaded.side, &loaded.tokenizer).expect("options");
    assert_eq!(options.chat_template.as_deref(), Some("D"));
    assert_eq!(options.eos, Some(0), "the one that is spelt out, not the first of several");
}

#[test]
fn a_template_that_cannot_be_read_stops_only_who_uses_it() {
    let copy = Copy::new("template");
    fs::write(copy.0.join("chat_template.jinja"), "{% for %}").expect("writes");
    let (_, again) = rewritten(&load_directory(&copy.0).expect("loads"));
    assert_eq!(again.chat_template.expect("a template").source(), "{% for %}");
    let loaded = load_directory(&copy.0).expect("loads");
    let template = loaded.chat_template.expect("a template");
    let error = template.render(&[], true).expect_err("refused").to_string();
    let path = copy.0.join("chat_template.jinja").display().to_string();
    assert!(error.contains(&path) && error.contains("line 1"), "{error}");
}

#[test]
fn conversations_begin_as_the_template_or_else_the_tokenizer_says() {
    let copy = Copy::new("begin");
    let template = copy.0.join("chat_template.jinja");
    let begin = || load_directory(&copy.0).expect("loads").tokenizer.begin();
    let words = |more: &str| {
        let words = format!(r#"{{"eos_token": "<|im_end|>"{more}}}"#);
        fs::write(copy.0.join("tokenizer_config.json"), words).expect("writes");
    };
    let own = fs::read_to_string(&template).expect("reads");
    assert_eq!(begin(), None);
    words(r#", "bos_token": "<|im_start|>", "add_bos_token": true"#);
    assert_eq!(begin(), None, "the turns begin with it themselves");
    words(r#", "bos_token": "<|endoftext|>""#);
    assert_eq!(begin(), None, "a token that nothing begins with");
    fs::write(&template, format!("{{{{- bos_token }}}}\n{own}")).expect("writes");
    assert_eq!(begin(), Some(0));
    fs::write(&template, format!("<|endoftext|>{own}")).expect("writes");
    assert_eq!(begin(), Some(0));
    fs::write(&template, format!("{own}{{{{ bos_token }}}}")).expect("writes");
    assert_eq!(begin(), None, "it is at the end");

    // The tokenizer puts it in front of every text.
    let path = copy.0.join("tokenizer.json");
    let mut tokenizer = json(&path);
    tokenizer["post_processor"]["single"] = serde_json::json!([
        { "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } },
        { "Sequence": { "id": "A", "type_id": 0 } },
    ]);
    tokenizer["post_processor"]["special_tokens"] = serde_json::json!({
        "<|endoftext|>": { "id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"] },
    });
    let plain = fs::read(&path).expect("reads");
    fs::write(&path, tokenizer.to_string()).expect("writes");
    assert_eq!(begin(), None, "what is said by the template goes before");
    fs::write(&template, "{% if bos_token %}").expect("writes");
    assert_eq!(begin(), Some(0), "it cannot be run");
    fs::remove_file(&template).expect("removes");
    assert_eq!(begin(), Some(0));
    words("");
    assert_eq!(begin(), Some(0));
    // What is trained so says so.
    let loaded = load_directory(&copy.0).expect("loads");
    let side = loaded.side.trained_in_chatml(&loaded.model.config, &loaded.tokenizer);
    let (_, again) = rewritten(&LoadedModel { side: side.expect("JSON"), ..loaded });
    let said = again.chat_template.expect("a template").render(&[], true).expect("renders");
    assert_eq!(said, "<|endoftext|><|im_start|>assistant\n");
    assert_eq!(again.tokenizer.begin(), Some(0));
    // Or its settings do, which `transformers` makes such a step of.
    fs::write(&path, plain).expect("writes");
    assert_eq!(begin(), None);
    words(r#", "bos_token": "<|endoftext|>", "add_bos_token": true"#);
    assert_eq!(begin(), Some(0));
}

#[test]
fn a_gguf_files_own_words_go_into_a_folder_and_back() {
    for name in ["llama", "qwen2"] {
        let path = folder("x").with_file_name(format!("tiny_{name}.gguf"));
        let loaded = load_path(&path).expect("loads");
        let read = GgufOptions::from(&load_gguf(&path).expect("loads").vocabulary);
        let of = |l: &LoadedModel| GgufOptions::of_model(&l.side, &l.tokenizer).expect("options");
        assert_eq!(of(&loaded), read);
        let (_dir, again) = rewritten(&loaded);
        assert_eq!(of(&again), read);
        assert_eq!(again.generation.eos, [2]);
        let template = again.chat_template.expect("a template");
        assert_eq!(template.source(), "{{ messages[0]['content'] }}");
    }
}

#[test]
fn adapters_say_what_they_were_trained_with_and_their_model_the_rest() {
    let base = load_path(&folder("qwen2")).expect("loads");
    let dir = tempfile::tempdir().expect("a folder");
    let over = || {
        let own = SideFiles::read(dir.path()).expect("reads");
        LoadedModel { side: own.over(&base.side, &base.tokenizer).expect("fits"), ..base.clone() }
    };
    assert_eq!(over().side, base.side, "adapters alone say nothing");
    // An end token that the model does not have goes before its own.
    let word = base.tokenizer.token(5).expect("a token");
    let words = serde_json::json!({ "eos_token": word, "chat_template": "own" }).to_string();
    fs::write(dir.path().join("tokenizer_config.json"), &words).expect("writes");
    let (written, again) = rewritten(&over());
    assert_eq!(again.generation.eos, [5, 2, 0]);
    assert_eq!(again.generation.top_k, Some(20), "the model's defaults stay");
    assert_eq!(again.chat_template.expect("a template").source(), "own");
    assert!(!written.path().join("chat_template.jinja").exists());
    assert_eq!(
        json(&written.path().join("config.json"))["eos_token_id"],
        serde_json::json!([5, 2])
    );
    // What the adapters' folder says itself goes before all.
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": 7}"#).expect("w");
    assert_eq!(rewritten(&over()).1.generation.eos, [7]);
}

#[test]
fn a_model_trained_in_chatml_says_so_and_keeps_the_rest() {
    let trained = |dir: &Path| {
        let LoadedModel { side, model, tokenizer, .. } = load_directory(dir).expect("loads");
        let again = side.trained_in_chatml(&model.config, &tokenizer).expect("JSON");
        (side, again)
    };
    let (before, after) = trained(&folder("qwen2"));
    assert_eq!(after, before, "it ends turns so already, and has a template");
    let copy = Copy::new("trained");
    fs::write(copy.0.join("generation_config.json"), r#"{"eos_token_id": 0, "top_k": 20}"#)
        .expect("writes");
    fs::remove_file(copy.0.join("chat_template.jinja")).expect("removes");
    let words = r#"{"eos_token": "<|endoftext|>", "tokenizer_class": "TokenizersBackend"}"#;
    fs::write(copy.0.join("tokenizer_config.json"), words).expect("writes");
    let loaded = load_directory(&copy.0).expect("loads");
    let side = trained(&copy.0).1;
    let (dir, again) = rewritten(&LoadedModel { side: side.clone(), ..loaded });
    assert_eq!((again.generation.eos, again.generation.top_k), (vec![2, 0], Some(20)));
    assert_eq!(again.chat_template.expect("a template").source(), CHAT_TEMPLATE);
    let words = json(&dir.path().join("tokenizer_config.json"));
    assert_eq!(words["eos_token"], "<|im_end|>");
    assert_eq!(words["tokenizer_class"], "TokenizersBackend", "the rest is the authors'");
    assert_eq!(trained(dir.path()).1, side, "once is enough");
    // What says nothing is written as ever.
    let LoadedModel { model, tokenizer, .. } = load_directory(&copy.0).expect("loads");
    let nothing = SideFiles::default().trained_in_chatml(&model.config, &tokenizer);
    assert_eq!(nothing.expect("nothing to read"), SideFiles::default());
}
