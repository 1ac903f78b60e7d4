//! `empg env` and `empg play` on shops and searches.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Ran, run_in, run_with};

const PASSAGES: &str = r#"{"id": "p0", "contents": "\"Ada Lovelace\"\nAda Lovelace wrote the first program."}
{"id": "p1", "contents": "\"Charles Babbage\"\nCharles Babbage designed the Analytical Engine."}
"#;
const QUESTIONS: &str = r#"{"id": "q1", "data_source": "nq", "question": "Who wrote the first program?", "golden_answers": ["Ada Lovelace"], "metadata": {"split": "train"}}
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("passages.jsonl"), PASSAGES).unwrap();
    fs::write(dir.path().join("questions.jsonl"), QUESTIONS).unwrap();
    dir
}

fn lines(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ask(dir: &Path, args: &str, input: &Value) -> Vec<Value> {
    lines(&run_with(dir, args, &input.to_string()))
}

#[test]
fn search_is_replayed() {
    let dir = folder();
    let episode = json!({"id": "e7", "question": "Who?", "golden_answers": ["Ada Lovelace"], "topk": 1,
        "actions": ["hm", "<search> first program </search>", "<answer>ada lovelace.</answer>", "more"]});
    let replayed = ask(dir.path(), "env replay search --data .", &episode);
    assert_eq!(
        replayed,
        [
            json!({"id": "e7", "question": "Who?", "golden_answers": ["Ada Lovelace"], "max_turns": 4,
                "topk": 1, "unplayed": 1, "steps": [
                {"action": null, "observation": "Who?", "reward": 0.0, "done": false, "won": false},
                {"action": "hm", "observation": "", "reward": 0.0, "done": false, "won": false},
                {"action": "<search> first program </search>", "reward": 0.0, "done": false, "won": false,
                 "observation": "<information>{\"result\": \"Doc 1: \\\"Ada Lovelace\\\"\\nAda Lovelace wrote the first program.\\n\"}</information>"},
                {"action": "<answer>ada lovelace.</answer>", "observation": "", "reward": 1.0, "done": true, "won": true},
            ]})
        ]
    );
    // The same passages by name, under the other protocol; and no data at all.
    let mut other = episode;
    other["protocol"] = json!("search-r1");
    let replayed = ask(dir.path(), "env replay search --corpus passages.jsonl", &other);
    let text = replayed[0]["steps"][2]["observation"].as_str().unwrap();
    assert_eq!(
        text,
        "\n\n<information>Doc 1(Title: \"Ada Lovelace\") Ada Lovelace wrote the first program.</information>\n\n"
    );
    let replayed = ask(dir.path(), "env replay search", &other);
    assert_eq!(replayed[0]["steps"].as_array().unwrap().len(), 4);
}

#[test]
fn a_shop_is_replayed() {
    let dir = folder();
    let actions = ["search[desk]", "click[next >]", "click[nothing]", "think", "click[buy now]"];
    let recorded = json!({"env_seed": 3, "session": 2, "actions": actions});
    let replayed = ask(dir.path(), "env replay webshop", &recorded);
    let replayed = &replayed[0];
    for (key, value) in [("env_seed", json!(3)), ("session", json!(2)), ("mode", json!("text"))] {
        assert_eq!(replayed[key], value, "{key}");
    }
    let steps = replayed["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6);
    assert_eq!(steps[0]["admissible"], json!({"has_search_bar": true, "clickables": ["search"]}));
    assert_eq!(steps[2]["observation"], steps[3]["observation"]);
    let clicks = steps[1]["admissible"]["clickables"].as_array().unwrap();
    assert_eq!(clicks[0], "back to search");

    // A purchase: the first product of the first page.
    let product = clicks.last().unwrap().as_str().unwrap();
    let actions = ["search[desk]", &format!("click[{product}]"), "click[Buy Now]", "x"];
    let recorded = json!({"task": "webshop/3/2", "mode": "text_rich", "actions": actions});
    let replayed = ask(dir.path(), "env replay webshop", &recorded);
    let steps = replayed[0]["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &replayed[0]["unplayed"]), (4, &json!(1)));
    assert_eq!((&steps[3]["done"], &steps[3]["admissible"]), (&json!(true), &Value::Null));
    assert!(steps[0]["observation"].as_str().unwrap().contains("[button]"));
}

#[test]
fn queries_goals_and_scores() {
    let dir = folder();
    let input = "{\"query\": \"Babbage engine\"}\n\"who wrote\"\n\n\"nothing\"\n";
    let ran = run_with(dir.path(), "env search search --data . --top 1", input);
    insta::assert_snapshot!(ran.stdout, @r#"
    {"query":"Babbage engine","hits":[["p1",0.8428]]}
    {"query":"who wrote","hits":[["p0",0.3648]]}
    {"query":"nothing","hits":[]}
    "#);

    let input =
        "{\"prediction\": \"The program!\", \"golden_answers\": [\"program\", \"first program\"]}
{\"prediction\": \"a first program\", \"golden_answers\": \"program\"}\n";
    let ran = run_with(dir.path(), "env score search", input);
    insta::assert_snapshot!(ran.stdout, @r#"
    {"em":1,"subem":1,"f1":1.0}
    {"em":0,"subem":1,"f1":0.6666666666666666}
    "#);

    let ran = run_with(dir.path(), "env score token-set-ratio", "[\"dark red\", \"red\"]\n");
    insta::assert_snapshot!(ran.stdout, @r#"{"ratio":100}"#);

    // What a goal asks for is worth the whole reward.
    let goals = lines(&run_in(dir.path(), "env goals webshop --env-seed 5"));
    let goal = &goals[0];
    for key in ["instruction_text", "asin", "price_upper", "attributes", "goal_options", "query"] {
        assert!(goal.get(key).is_some(), "{key}: {goal}");
    }
    let purchase = json!({"purchased_asin": goal["asin"], "price": 1.0, "goal": goal,
        "options": goal["goal_options"]});
    let worth = ask(dir.path(), "env score webshop", &purchase);
    assert!(worth[0]["reward"].as_f64().unwrap() > 0.5, "{worth:?}");
    let found = ask(dir.path(), "env search webshop --top 3", &goal["instruction_text"]);
    assert_eq!(found[0]["hits"].as_array().unwrap().len(), 3);
}

#[test]
fn tasks_are_listed_timed_and_played() {
    let dir = folder();
    let listed = lines(&run_in(dir.path(), "env list search --data ."));
    assert_eq!(listed, [json!({"task": "q1", "kind": "nq", "split": "train"})]);
    for env in ["search", "search --data . --protocol search-r1", "webshop --env-seed 4"] {
        let ran = run_in(dir.path(), &format!("env bench {env} --seconds 0.05 --json"));
        assert!(lines(&ran)[0]["steps_per_s"].as_f64().unwrap() > 0.0, "{env}: {}", ran.stdout);
    }
    let play = "play search --data . --split train --json";
    let ran = run_with(dir.path(), play, "first program\n= Ada Lovelace\n");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("Ada Lovelace wrote"), "{}", ran.stdout);
    let last: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"task": "q1", "steps": 2, "won": true}));
    let ran = run_with(dir.path(), "play webshop", "search[red]\n?\nquit\n");
    assert!(ran.stdout.contains("click[back to search]"), "{}", ran.stdout);
}

#[test]
fn a_failed_generation_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let here = || {
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    fs::write(dir.path().join("questions.jsonl"), "mine").unwrap();
    let ran = run_in(dir.path(), "env generate search --out .");
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("questions.jsonl: it is there already"), "{}", ran.stderr);
    assert_eq!(here(), ["questions.jsonl"]);
    assert_eq!(fs::read(dir.path().join("questions.jsonl")).unwrap(), b"mine");
    let ran = run_in(dir.path(), "env generate search --out questions.jsonl/deeper");
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    fs::remove_file(dir.path().join("questions.jsonl")).unwrap();
    let ran = run_in(dir.path(), "env generate search --out .");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(here(), ["corpus.jsonl", "questions.jsonl"]);
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let dir = folder();
    fs::write(dir.path().join("empty.jsonl"), "\n").unwrap();
    fs::write(dir.path().join("torn.jsonl"), "{\"id\": \"1\", \"contents\": \"x\"}\n{\"id\"")
        .unwrap();
    let episode = json!({"question": "q", "golden_answers": ["a"],
        "actions": ["<search>x</search>"]})
    .to_string();
    let mut text = String::new();
    for (args, input) in [
        ("env replay search --corpus none.jsonl", episode.as_str()),
        ("env replay search --corpus empty.jsonl", &episode),
        ("env replay search --corpus torn.jsonl", &episode),
        ("env replay search --corpus https://example.org/retrieve", &episode),
        ("env replay search --corpus passages.jsonl", "{\"question\": \"q\"}"),
        ("env replay webshop", "{\"actions\": []}"),
        ("env replay webshop", "{\"session\": 99999999, \"actions\": []}"),
        ("env replay webshop --data .", "{}"),
        ("env search search --corpus passages.jsonl", "{\"question\": 3}"),
        ("env search households", "\"x\""),
        ("env score chess", ""),
        ("env score token-set-ratio", "[\"a\"]"),
        ("env score search", "{\"prediction\": 3}"),
        ("env goals search", ""),
        ("env list search --corpus passages.jsonl", ""),
        ("env list search --data empty.jsonl", ""),
        ("env list chess", ""),
        ("play webshop --human-goals", ""),
    ] {
        let ran = run_with(dir.path(), args, input);
        assert_eq!(ran.code, Some(1), "{args}: {}{}", ran.stdout, ran.stderr);
        write!(text, "$ empg {args}\n{}", ran.stderr).unwrap();
    }
    insta::assert_snapshot!(text);
    // Only one place is told.
    let input = "{\"task\": \"households/seen/0\", \"actions\": [}";
    let ran = run_with(dir.path(), "env replay households", input);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    let what = "expected value (column 43)";
    assert!(ran.stderr.contains(what) && !ran.stderr.contains("at line"), "{}", ran.stderr);
    // Nobody answers: told once, with the address.
    let ran =
        run_with(dir.path(), "env replay search --corpus http://127.0.0.1:9/retrieve", &episode);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("127.0.0.1:9") && ran.stderr.contains("serve"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn flags_that_bear_on_another_environment_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (args, what) in [
        ("env list households --topk 9", "--topk bears on search only"),
        ("env list households --human-goals", "--human-goals bears on webshop only"),
        ("env list search --mode text_rich", "--mode bears on webshop only"),
        ("env bench webshop --protocol search-r1", "--protocol bears on search only"),
        ("env replay webshop --corpus x.jsonl", "--corpus bears on search only"),
        ("env replay households --timeout 3", "--timeout bears on openenv, stdio only"),
        ("env search webshop --url http://127.0.0.1:9", "--url bears on openenv only"),
        ("env goals webshop --corpus x.jsonl", "--corpus bears on search only"),
        ("env score webshop --corpus x.jsonl", "--corpus bears on search only"),
        ("env generate search --out w --products 5", "--products bears on webshop only"),
        ("play households --env-seed 3", "--env-seed bears on webshop only"),
        ("serve env households --splits original", "--splits bears on webshop only"),
        ("play webshop --data-version 2.1.1", "--data-version bears on alfworld, households only"),
        ("prop1 --bins 3", "--bins bears on a run's steps"),
        ("sft --also alfworld --out m", "alfworld needs --data FOLDER"),
        ("score --model tiny --batch-tokens 0", "must be at least 1"),
        ("bench train --batch 0", "must be at least 1"),
    ] {
        let ran = run_in(dir.path(), args);
        assert_eq!(ran.code, Some(2), "{args}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(what), "{args}: {}", ran.stderr);
    }
    let ran = run_in(dir.path(), "sft --env alfworld --out m");
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("alfworld needs --data FOLDER"), "{}", ran.stderr);
    let ran = run_with(dir.path(), "score --model tiny", "");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing was scored"), "{}", ran.stderr);
    // Every command about environments takes --data, and an episode's other fields are handed through.
    for (args, input) in [
        ("env project alfworld --data .", r#"{"raw": "<action>look</action>"}"#),
        ("env score search --data .", r#"{"prediction": "a", "golden_answers": ["a"]}"#),
        ("env score token-set-ratio --data .", r#"["a", "b"]"#),
    ] {
        let ran = run_with(dir.path(), args, input);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args}");
    }
    let input = r#"{"task": "households/seen/0", "actions": ["look"], "id": 7, "steps": [], "unplayed": 3}"#;
    let ran = run_with(dir.path(), "env replay households --data .", input);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr, "note: households reads no data: --data has no effect\n");
    assert!(
        ran.stdout.starts_with(r#"{"id":7,"task":"households/seen/0","steps":[{"action":null"#)
    );
    assert_eq!(
        (ran.stdout.matches("\"steps\"").count(), ran.stdout.contains("unplayed")),
        (1, false)
    );
    let sampled = run_in(dir.path(), "prop1 --samples 0 --rows 2 --json");
    assert!(!sampled.stdout.contains("-0.0"), "{}", sampled.stdout);
    assert!(sampled.stdout.contains("\"sampled\":null"), "{}", sampled.stdout);
    let timed = run_in(dir.path(), "bench adamw --model tiny --steps 1 --threads 1 --json");
    assert_eq!(timed.code, Some(0), "{}", timed.stderr);
    assert_eq!(timed.stdout.matches("tokens").count(), 1, "{}", timed.stdout);
    assert!(timed.stdout.contains("\"tokens_per_s\":null"), "{}", timed.stdout);
}
