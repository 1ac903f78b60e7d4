//! Conversations with a model.

use std::fs;

use serde_json::{Value, json};

use crate::program::{golden, run_in, run_with};

fn last_line(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn lines_of_stdin_are_messages_of_one_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden("qwen2-tiny").display().to_string();
    let talk = |more: &str, input: &str| {
        let args = format!("chat --model {model} --max-tokens 6 --threads 1 {more}");
        let ran = run_with(dir.path(), &args, input);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran
    };
    let ran = talk("--json --system Hm", "how are you\n\n/why\n");
    let told = last_line(&ran.stdout);
    let said = told["messages"].as_array().unwrap();
    let roles: Vec<&str> = said.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!((&said[0]["content"], &said[3]["content"]), (&json!("Hm"), &json!("/why")));
    assert_eq!(told["replies"], 2);
    let (tokens, entropy) = (told["tokens"].as_u64().unwrap(), told["entropy"].as_f64().unwrap());
    assert!((2..=12).contains(&tokens) && entropy > 0.0, "{told}");
    assert_eq!(ran.stderr.matches("mean entropy").count(), 2, "{}", ran.stderr);
    // What is printed is what was said.
    let text = |i: usize| said[i]["content"].as_str().unwrap();
    let replies = format!("{}\n{}\n", text(2), text(4));
    assert!(ran.stdout.starts_with(&replies), "{}: {replies}", ran.stdout);

    // Equal seeds say the same; nobody samples at temperature 0.
    let by_seed = |seed| talk(&format!("--seed {seed} --temperature 2 hm"), "").stdout;
    assert_eq!(by_seed(1), by_seed(1));
    assert!((2..6).any(|seed| by_seed(seed) != by_seed(1)));
    let surest = |seed| talk(&format!("--seed {seed} --temperature 0 hm"), "").stdout;
    assert_eq!(surest(1), surest(2));
}

#[test]
fn templates_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden("tiny_llama.gguf").display().to_string();
    // ChatML for a model that knows its markers.
    let ran = run_in(dir.path(), &format!("chat --model {model} --max-tokens 2 hm"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    fs::write(dir.path().join("t.jinja"), "{% for m in messages %}{{ m.content }} {% endfor %}")
        .unwrap();
    let ran =
        run_in(dir.path(), &format!("chat --model {model} --template t.jinja --max-tokens 3 hm"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("(3 tokens") && ran.stderr.contains("cut off"), "{}", ran.stderr);
    fs::write(dir.path().join("t.jinja"), "{% for %}").unwrap();
    let ran = run_in(dir.path(), &format!("chat --model {model} --template t.jinja hm"));
    assert!(ran.code == Some(1) && ran.stderr.contains("t.jinja"), "{}", ran.stderr);
}

#[test]
fn mistakes_are_told_before_anything_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code, what) in [
        ("chat --model nothing/here/at/all hm", 1, "there is no model"),
        ("chat --model tiny --temperature=-1 hm", 2, "temperature is -1"),
        ("chat --model tiny --top-p 2 hm", 2, "top_p is 2"),
        ("chat --model tiny --top-k 0 hm", 2, "top_k is 0"),
        ("chat --model tiny --max-tokens 0 hm", 2, "must be at least 1"),
        ("chat --model tiny --checkpoint best hm", 1, "no run"),
        ("chat", 2, "--model"),
    ] {
        let ran = run_in(dir.path(), args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{args}: {}", ran.stderr);
        assert!(ran.stderr.contains(what), "{args}: {}", ran.stderr);
    }
    let ran = run_in(dir.path(), "chat --model tiny --max-tokens 4 look");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}
