//! Requests of both forms, and requests that are none.

use std::time::Duration;

use empg_env::search::Corpus;
use empg_serve::{Limits, Retrieval};
use serde_json::{Value, json};

use crate::client::Client;
use crate::{PASSAGES, Running};

fn error(answer: &(u16, Value)) -> &str {
    answer.1["error"].as_str().expect("refusals say what is wrong")
}

#[test]
fn search_r1s_form() {
    let server = Running::small();
    let mut client = Client::new(server.address);
    let (status, answer) = client.post(
        r#"{"queries": ["alpha", "nothing at all", "beta"], "topk": 3, "return_scores": true}"#,
    );
    assert_eq!(status, 200);
    let lists = answer["result"].as_array().unwrap();
    let lengths: Vec<usize> = lists.iter().map(|list| list.as_array().unwrap().len()).collect();
    assert_eq!(lengths, [2, 0, 1]);
    let best = &lists[2][0];
    assert_eq!(
        best["document"],
        json!({
            "id": "9",
            "title": "Beta",
            "text": "The second letter is beta, after alpha.\nIt has two lines.",
            "contents": PASSAGES[1].1,
        })
    );
    let index = Retrieval::new(Corpus::from_passages(PASSAGES), Limits::default());
    let score = index.index().search("beta", 1)[0].score;
    assert!((best["score"].as_f64().unwrap() - f64::from(score)).abs() < 1e-4);

    let (status, answer) = client.post(r#"{"queries": ["beta"]}"#);
    assert_eq!((status, &answer["result"][0][0]["title"]), (200, &json!("Beta")));
    let (status, answer) = client.post(r#"{"queries": []}"#);
    assert_eq!((status, answer), (200, json!({"result": []})));
    server.end().unwrap();
}

#[test]
fn verl_agents_form_and_equal_scores() {
    let server = Running::small();
    let mut client = Client::new(server.address);
    let (status, answer) =
        client.post(r#"{"query": "equal words", "topk": 3, "return_scores": true}"#);
    assert_eq!(status, 200);
    let hits = answer["result"][0].as_array().unwrap();
    let ids: Vec<&str> = hits.iter().map(|hit| hit["document"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["12", "2"]);
    assert!(hits[0]["score"].as_f64() > hits[1]["score"].as_f64());
    server.end().unwrap();
}

#[test]
fn health_and_wrong_addresses() {
    let server = Running::small();
    let mut client = Client::new(server.address);
    assert_eq!(client.send("GET", "/health", b""), (200, json!({"status": "ok", "passages": 4})));
    for (method, path, status) in [
        ("GET", "/retrieve", 405),
        ("POST", "/health", 405),
        ("GET", "/", 404),
        ("POST", "/search", 404),
    ] {
        let answer = client.send(method, path, b"");
        assert_eq!(answer.0, status, "{method} {path}");
        assert!(error(&answer).contains("POST /retrieve"));
    }
    server.end().unwrap();
}

#[test]
fn what_cannot_be_read_is_refused_and_the_connection_lives_on() {
    let server = Running::small();
    let mut client = Client::new(server.address);
    for (body, part) in [
        (&b""[..], "cannot be read"),
        (b"{\"queries\": [\"a\"", "cannot be read"),
        (b"{\"query\": \"\xff\xfe\"}", "cannot be read"),
        (b"\xf0\x28\x8c\x28", "cannot be read"),
        (b"{\"queries\": \"a\"}", "expected a sequence"),
        (b"{\"topk\": 3}", "neither"),
        (b"{\"query\": \"a\", \"topk\": 0}", "topk"),
        (b"[[[[[[[[", "cannot be read"),
    ] {
        let answer = client.send("POST", "/retrieve", body);
        assert_eq!(answer.0, 400);
        assert!(error(&answer).contains(part), "{answer:?}");
    }
    assert_eq!(client.post(r#"{"query": "alpha"}"#).0, 200);
    server.end().unwrap();
}

#[test]
fn queries_of_a_megabyte_are_answered() {
    let server = Running::small();
    let mut client = Client::new(server.address);
    let long = "alpha \u{1f44d} word ".repeat(64 << 10);
    let (status, answer) = client.post(&json!({"query": long, "topk": 2}).to_string());
    assert_eq!((status, answer["result"][0].as_array().unwrap().len()), (200, 2));
    let controls = "\u{0}\u{1b}[31m\u{7f} alpha\u{0}".repeat(1000);
    let (status, answer) = client.post(&json!({"queries": [controls, ""], "topk": 2}).to_string());
    assert_eq!((status, answer["result"][0].as_array().unwrap().len()), (200, 2));
    // Many queries in one request, as a trainer's batch sends them.
    let many = vec!["beta"; 20_000];
    let (status, answer) = client.post(&json!({"queries": many}).to_string());
    assert_eq!((status, answer["result"].as_array().unwrap().len()), (200, 20_000));
    server.end().unwrap();
}

#[test]
fn too_large_and_too_slow_requests_are_refused() {
    let limits = Limits { body: 1000, patience: Duration::from_millis(200), ..Limits::default() };
    let server = Running::start(Corpus::from_passages(PASSAGES), limits);
    let mut client = Client::new(server.address);
    let answer = client.post(&json!({"query": "a".repeat(5000)}).to_string());
    assert_eq!(answer.0, 413);
    assert!(error(&answer).contains("1000 bytes"));
    // Without an announced length.
    let mut client = Client::new(server.address);
    client
        .write(b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write(format!("{:x}\r\n{}\r\n0\r\n\r\n", 2000, "a".repeat(2000)).as_bytes());
    assert_eq!(client.answer().0, 413);
    // A body that stops half-way.
    let mut client = Client::new(server.address);
    client.begin("POST", "/retrieve", 100);
    client.write(b"{\"query\":");
    let answer = client.answer();
    assert_eq!(answer.0, 408);
    // Others are served all the while.
    assert_eq!(Client::new(server.address).post(r#"{"query": "alpha"}"#).0, 200);
    server.end().unwrap();
}

#[test]
fn many_clients_get_their_own_answers() {
    let passages: Vec<(String, String)> =
        (0..500).map(|n| (n.to_string(), format!("\"T{n}\"\nword{n} common"))).collect();
    let server = Running::start(Corpus::from_passages(passages), Limits::default());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let address = server.address;
            scope.spawn(move || {
                let mut client = Client::new(address);
                for n in (0..200).map(|n| (n * 7 + thread * 31) % 500) {
                    let (status, answer) =
                        client.post(&json!({"query": format!("word{n} common")}).to_string());
                    assert_eq!(status, 200);
                    let list = answer["result"][0].as_array().unwrap();
                    assert_eq!((list.len(), &list[0]["id"]), (3, &json!(n.to_string())));
                }
            });
        }
    });
    server.end().unwrap();
}
