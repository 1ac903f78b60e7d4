//! Environments over OpenEnv's protocol.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use empg_env::remote::{OpenEnvOptions, OpenEnvSet, StdioOptions, StdioSet};
use empg_env::{Env, EnvError, EnvOptions, Observation, Source, Split, Task, TaskSet, Transition};
use empg_serve::{OpenEnv, SessionLimits};
use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

use crate::Running;
use crate::client::Client;

fn households(max_steps: u32) -> Arc<dyn TaskSet> {
    let options = EnvOptions { max_steps: Some(max_steps), ..EnvOptions::default() };
    Source::generated("households", 0).unwrap().tasks(options).unwrap()
}

/// A server of households, whose episodes have at most five steps.
fn server(limits: SessionLimits) -> Running {
    Running::serve(move || OpenEnv::new(households(5), None, limits).unwrap().into())
}

/// A client that says exactly what it is told to say.
struct Session(WebSocket<TcpStream>);

impl Session {
    fn new(server: &Running) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let url = format!("ws://{}/ws", server.address);
        Self(tungstenite::client(url, stream).unwrap().0)
    }

    fn say(&mut self, text: &str) -> Value {
        self.0.send(Message::text(text)).unwrap();
        self.hear()
    }

    fn hear(&mut self) -> Value {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ask(&mut self, kind: &str, data: &Value) -> Value {
        let mut answer = self.say(&json!({"type": kind, "data": data}).to_string());
        assert_eq!(answer["type"], "observation", "{answer}");
        answer["data"].take()
    }

    /// The code of the error that a message is answered with.
    fn refused(&mut self, text: &str) -> (String, String) {
        let answer = self.say(text);
        assert_eq!(answer["type"], "error", "{answer}");
        let part = |name: &str| answer["data"][name].as_str().unwrap().to_owned();
        (part("code"), part("message"))
    }

    /// The code with which the server closes.
    fn closed(&mut self) -> Option<u16> {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.map(|f| f.code.into()),
                Ok(_) => {}
                Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Io(_)
                    | Error::Protocol(_),
                ) => {
                    return None;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn an_episode_over_a_session() {
    let server = server(SessionLimits::default());
    let mut session = Session::new(&server);
    let reset = session.ask("reset", &json!({"seed": 11, "episode_id": "mine", "other": [1]}));
    assert_eq!((&reset["reward"], &reset["done"]), (&Value::Null, &json!(false)));
    let seen = &reset["observation"];
    assert_eq!(seen["task_id"], "households/train/11");
    let admissible = seen["admissible"].as_array().unwrap();
    assert!(admissible.len() > 3 && seen["text"].as_str().unwrap().contains("Your task"));
    let state = session.say("{\"type\": \"state\"}");
    assert_eq!(state["type"], "state");
    assert_eq!(
        (&state["data"]["episode_id"], &state["data"]["step_count"]),
        (&json!("mine"), &json!(0))
    );
    // The same as the environment itself plays.
    let tasks = households(5);
    let mut env = tasks.make();
    let text = env.reset("households/train/11", 11).unwrap().text;
    assert_eq!(seen["text"], text);
    for step in 1..=5 {
        let action = env.admissible()[step % 3].clone();
        let expected = env.step(&action).unwrap();
        let answer = session.ask("step", &json!({"text": action}));
        assert_eq!(answer["observation"]["text"], expected.observation.text);
        assert_eq!(answer["reward"], expected.reward);
        assert_eq!(answer["done"], step == 5);
    }
    let (code, message) = session.refused(r#"{"type": "step", "data": {"text": "look"}}"#);
    assert_eq!(code, "EXECUTION_ERROR");
    assert!(message.contains("over"), "{message}");
    assert_eq!(session.say("{\"type\": \"state\"}")["data"]["step_count"], 5);
    // Other splits, other tasks by name.
    let seen = session.ask("reset", &json!({"seed": 3, "split": "unseen"}));
    assert_eq!(seen["observation"]["task_id"], "households/unseen/3");
    let named = session.ask("reset", &json!({"seed": 3, "task_id": "households/seen/8"}));
    assert_eq!(named["observation"]["task_id"], "households/seen/8");
    assert!(session.ask("reset", &json!({}))["observation"]["task_id"].is_string());
    session.0.send(Message::text("{\"type\": \"close\"}")).unwrap();
    assert_eq!(session.closed(), Some(1000));
    server.end().unwrap();
}

#[test]
fn bad_messages_are_answered_as_openenv_answers_them() {
    let server = server(SessionLimits::default());
    let mut session = Session::new(&server);
    for (text, code) in [
        ("{", "INVALID_JSON"),
        ("<html></html>", "INVALID_JSON"),
        ("{\"type\": \"jump\"}", "UNKNOWN_TYPE"),
        ("{}", "UNKNOWN_TYPE"),
        ("{\"type\": 3}", "UNKNOWN_TYPE"),
        ("{\"type\": \"step\"}", "VALIDATION_ERROR"),
        ("{\"type\": \"step\", \"data\": {\"command\": \"look\"}}", "VALIDATION_ERROR"),
        ("{\"type\": \"step\", \"data\": {\"text\": null}}", "VALIDATION_ERROR"),
        ("{\"type\": \"step\", \"data\": {\"text\": \"look\"}}", "EXECUTION_ERROR"),
        ("{\"type\": \"reset\", \"data\": {\"seed\": \"x\"}}", "EXECUTION_ERROR"),
        ("{\"type\": \"reset\", \"data\": {\"task_id\": \"chess/1\"}}", "EXECUTION_ERROR"),
        ("{\"type\": \"reset\", \"data\": {\"split\": \"test\"}}", "EXECUTION_ERROR"),
    ] {
        assert_eq!(session.refused(text).0, code, "{text}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(session.refused(&deep).0, "INVALID_JSON");
    let rpc = session
        .say(r#"{"type": "mcp", "data": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}}"#);
    assert_eq!((&rpc["type"], &rpc["data"]["error"]["code"]), (&json!("mcp"), &json!(-32603)));
    // The session plays on after all of this.
    session.ask("reset", &json!({"seed": 0}));
    session.ask("step", &json!({"text": "look", "metadata": {"a": 1}}));
    // What is no object, or no text, ends it.
    assert_eq!(session.refused("[1]").0, "SESSION_ERROR");
    assert_eq!(session.closed(), Some(1000));
    let mut session = Session::new(&server);
    session.0.send(Message::binary(vec![1, 2])).unwrap();
    assert_eq!(session.hear()["data"]["code"], "SESSION_ERROR");
    assert_eq!(session.closed(), Some(1000));
    server.end().unwrap();
}

#[test]
fn messages_beyond_the_limit_end_their_session_alone() {
    let server = server(SessionLimits { message: 1000, ..SessionLimits::default() });
    let mut other = Session::new(&server);
    other.ask("reset", &json!({"seed": 0}));
    let mut session = Session::new(&server);
    let long = json!({"type": "step", "data": {"text": "x".repeat(2000)}}).to_string();
    session.0.send(Message::text(long)).unwrap();
    // Told, if the connection lives long enough to tell it.
    match session.0.read() {
        Ok(Message::Text(text)) => {
            assert!(text.contains("SESSION_ERROR"), "{text}");
            assert_eq!(session.closed(), Some(1009));
        }
        Ok(Message::Close(frame)) => assert_eq!(u16::from(frame.unwrap().code), 1009),
        other => assert!(other.is_err(), "{other:?}"),
    }
    other.ask("step", &json!({"text": "look"}));
    let mut http = Client::new(server.address);
    let (status, body) = http.send("POST", "/reset", &vec![b' '; 2000]);
    assert_eq!(status, 413);
    assert!(body["detail"].as_str().unwrap().contains("1000"), "{body}");
    server.end().unwrap();
}

#[test]
fn sessions_are_limited_and_their_places_come_back() {
    let server = server(SessionLimits { sessions: 2, ..SessionLimits::default() });
    let mut first = Session::new(&server);
    first.ask("reset", &json!({"seed": 0}));
    let mut second = Session::new(&server);
    second.ask("reset", &json!({"seed": 0}));
    let mut third = Session::new(&server);
    let refused = third.hear();
    assert_eq!(
        refused["data"],
        json!({"code": "CAPACITY_REACHED", "active_sessions": 2, "max_sessions": 2,
            "message": "Server at capacity: 2/2 sessions active. Cannot accept new connections."})
    );
    assert_eq!(third.closed(), Some(1000));
    let (status, _) = Client::new(server.address).send("POST", "/reset", b"{}");
    assert_eq!(status, 503);
    // A client that vanishes makes room as one that says goodbye.
    drop(first);
    let started = Instant::now();
    loop {
        let mut again = Session::new(&server);
        again.0.send(Message::text(r#"{"type": "reset", "data": {"seed": 1}}"#)).unwrap();
        if again.hear()["type"] == "observation" {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "the place does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    second.ask("step", &json!({"text": "look"}));
    server.end().unwrap();
}

#[test]
fn idle_sessions_end() {
    let idle = Some(Duration::from_millis(300));
    let server = server(SessionLimits { idle, ..SessionLimits::default() });
    let mut session = Session::new(&server);
    session.ask("reset", &json!({"seed": 0}));
    let error = session.hear();
    assert_eq!(error["data"]["code"], "SESSION_ERROR");
    assert!(error["data"]["message"].as_str().unwrap().contains("0.3 s"), "{error}");
    assert_eq!(session.closed(), Some(1000));
    server.end().unwrap();
}

/// Asks without reading an answer, until the server reads no more.
fn flood(server: &Running) -> Session {
    let mut session = Session::new(server);
    session.ask("reset", &json!({"seed": 0}));
    session.0.get_mut().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    // The answer has the question's identifier, so that a few fill what systems hold ready.
    let text = format!(
        r#"{{"type": "mcp", "data": {{"jsonrpc": "2.0", "id": "{}", "method": "x"}}}}"#,
        "x".repeat(500_000)
    );
    for _ in 0..200 {
        if session.0.send(Message::text(text.clone())).is_err() {
            return session;
        }
    }
    panic!("the server still reads");
}

#[test]
fn a_client_that_does_not_read_loses_its_place() {
    let idle = Some(Duration::from_millis(300));
    let limits = SessionLimits { idle, ..SessionLimits::default() };
    let env = OpenEnv::new(households(5), None, limits).unwrap();
    let served = env.clone();
    let server = Running::serve(move || served.into());
    let session = flood(&server);
    let started = Instant::now();
    while env.sessions() > 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "the place does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(session);
    server.end().unwrap();
}

#[test]
fn a_client_that_does_not_read_holds_no_end_up() {
    let server = server(SessionLimits { idle: None, ..SessionLimits::default() });
    let session = flood(&server);
    let started = Instant::now();
    server.end().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(session);
}

/// Steps that take their time.
#[derive(Clone, Copy)]
struct Slow(Duration);

impl Env for Slow {
    fn reset(&mut self, _: &str, _: u64) -> Result<Observation, EnvError> {
        Ok(Observation { text: "asleep".to_owned() })
    }
    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        assert_ne!(action, "panic");
        std::thread::sleep(self.0);
        Ok(Transition {
            observation: Observation { text: action.to_owned() },
            reward: 0.0,
            end: None,
            won: false,
            effect: true,
        })
    }
    fn admissible(&self) -> Vec<String> {
        Vec::new()
    }
}

impl TaskSet for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }
    fn len(&self, _: Split) -> Option<u64> {
        None
    }
    fn task(&self, _: Split, index: u64) -> Result<Task, EnvError> {
        Ok(Task { id: index.to_string(), kind: String::new() })
    }
    fn make(&self) -> Box<dyn Env> {
        Box::new(*self)
    }
}

impl Slow {
    fn serve(step: Duration) -> Running {
        let limits = SessionLimits::default();
        let tasks = Arc::new(Self(step));
        Running::serve(move || OpenEnv::new(tasks, None, limits).unwrap().into())
    }
}

#[test]
fn pings_are_answered_while_a_step_is_taken() {
    let server = Slow::serve(Duration::from_secs(2));
    let mut session = Session::new(&server);
    session.ask("reset", &json!({"seed": 0}));
    // What is said meanwhile is answered in turn.
    for text in ["first", "second", "third"] {
        let step = json!({"type": "step", "data": {"text": text}}).to_string();
        session.0.send(Message::text(step)).unwrap();
        if text == "first" {
            session.0.send(Message::Ping("still there?".into())).unwrap();
        }
    }
    let started = Instant::now();
    assert_eq!(session.0.read().unwrap(), Message::Pong("still there?".into()));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for text in ["first", "second", "third"] {
        assert_eq!(session.hear()["data"]["observation"]["text"], text);
    }
    // A client that leaves in the middle of a step makes room behind it; a goodbye is heard there.
    session.0.send(Message::text(r#"{"type": "step", "data": {"text": "x"}}"#)).unwrap();
    session.0.send(Message::text(r#"{"type": "close"}"#)).unwrap();
    assert_eq!(session.hear()["type"], "observation");
    assert_eq!(session.closed(), Some(1000));
    server.end().unwrap();
}

#[test]
fn an_environment_that_panics_ends_its_session_alone() {
    let server = Slow::serve(Duration::ZERO);
    let (mut session, mut other) = (Session::new(&server), Session::new(&server));
    for session in [&mut session, &mut other] {
        session.ask("reset", &json!({"seed": 0}));
    }
    let (code, message) = session.refused(r#"{"type": "step", "data": {"text": "panic"}}"#);
    assert_eq!(code, "SESSION_ERROR");
    assert!(message.contains("the environment failed"), "{message}");
    assert_eq!(session.closed(), Some(1011));
    other.ask("step", &json!({"text": "look"}));
    server.end().unwrap();
}

#[test]
fn a_slow_step_holds_the_end_up_for_ten_seconds_at_most() {
    let server = Slow::serve(Duration::from_mins(1));
    let mut session = Session::new(&server);
    session.ask("reset", &json!({"seed": 0}));
    session.0.send(Message::text(r#"{"type": "step", "data": {"text": "x"}}"#)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    server.end().unwrap();
    assert!(started.elapsed() < Duration::from_secs(18), "{:?}", started.elapsed());
}

#[test]
fn the_end_says_goodbye_to_every_session() {
    let server = server(SessionLimits::default());
    let mut sessions: Vec<Session> = (0..8).map(|_| Session::new(&server)).collect();
    for session in &mut sessions {
        session.ask("reset", &json!({"seed": 4}));
    }
    let started = Instant::now();
    let end = std::thread::spawn(move || server.end());
    for session in &mut sessions {
        assert_eq!(session.closed(), Some(1001));
    }
    end.join().unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn stateless_requests() {
    let server = server(SessionLimits::default());
    let mut client = Client::new(server.address);
    let mut post = |path: &str, body: &str| client.send("POST", path, body.as_bytes());
    let (status, first) = post("/reset", r#"{"seed": 3}"#);
    assert_eq!((status, &first["observation"]["task_id"]), (200, &json!("households/train/3")));
    assert_eq!(post("/reset", r#"{"seed": 3}"#).1, first);
    assert_eq!(post("/reset", "").0, 200);
    let (status, body) = post("/step", r#"{"action": {"text": "look"}}"#);
    assert_eq!(status, 500);
    assert!(body["detail"].as_str().unwrap().contains("/ws"), "{body}");
    for (path, body, kind, field) in [
        ("/reset", "{", "json_invalid", "body"),
        ("/reset", "[]", "model_attributes_type", "body"),
        ("/reset", r#"{"seed": -3}"#, "greater_than_equal", "seed"),
        ("/reset", r#"{"episode_id": 3}"#, "string_type", "episode_id"),
        ("/step", "{}", "missing", "action"),
        ("/step", r#"{"action": 3}"#, "dict_type", "action"),
        ("/step", r#"{"action": {}}"#, "missing", "text"),
        ("/step", r#"{"action": {"text": "a", "x": 1}}"#, "extra_forbidden", "x"),
        ("/step", r#"{"action": {"text": "a"}, "timeout_s": 0}"#, "greater_than", "timeout_s"),
    ] {
        let (status, answer) = post(path, body);
        assert_eq!(status, 422, "{body}: {answer}");
        let detail = &answer["detail"][0];
        assert_eq!(detail["type"], kind, "{body}: {answer}");
        assert_eq!(detail["loc"].as_array().unwrap().last().unwrap(), field, "{body}");
    }
    let (status, rpc) = post("/mcp", "{}");
    assert_eq!((status, &rpc["jsonrpc"]), (200, &json!("2.0")));
    assert_eq!(post("/mcp", "{").1["error"]["code"], -32700);
    let mut get = |path: &str| client.send("GET", path, b"");
    assert_eq!(get("/health"), (200, json!({"status": "healthy"})));
    assert_eq!(get("/metadata").1["name"], "households");
    assert_eq!(get("/schema").1["action"]["required"], json!(["text"]));
    assert_eq!(get("/state").1["step_count"], 0);
    assert!(get("/openapi.json").1["paths"]["/reset"].is_object());
    assert_eq!(get("/reset").0, 405);
    assert_eq!(get("/nothing").0, 404);
    server.end().unwrap();
}

struct Nothing;

impl TaskSet for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }
    fn len(&self, _: Split) -> Option<u64> {
        Some(0)
    }
    fn task(&self, _: Split, index: u64) -> Result<Task, EnvError> {
        Err(EnvError::Failed(index.to_string()))
    }
    fn make(&self) -> Box<dyn Env> {
        households(5).make()
    }
}

#[test]
fn a_split_without_tasks_is_refused_at_once() {
    let refused = OpenEnv::new(Arc::new(Nothing), Some(Split::Seen), SessionLimits::default());
    assert!(refused.unwrap_err().to_string().contains("no tasks"));
}

#[test]
fn our_client_plays_our_server_as_the_environment_itself() {
    let server = server(SessionLimits::default());
    let set =
        OpenEnvSet::connect(OpenEnvOptions::new(format!("http://{}", server.address))).unwrap();
    assert_eq!((set.kind(), set.action_field()), ("households", "text"));
    std::thread::scope(|scope| {
        for i in 0..16_u64 {
            let set = &set;
            scope.spawn(move || {
                let tasks = households(5);
                let (mut here, mut there) = (tasks.make(), set.make());
                let text = here.reset(&format!("households/train/{i}"), i).unwrap().text;
                assert_eq!(there.reset(&format!("train/{i}"), 0).unwrap().text, text);
                loop {
                    let commands = here.admissible();
                    assert_eq!(there.admissible(), commands);
                    let action = &commands[i as usize % commands.len()];
                    let (a, b) = (here.step(action).unwrap(), there.step(action).unwrap());
                    assert_eq!(a, b);
                    if a.end.is_some() {
                        break;
                    }
                }
            });
        }
    });
    server.end().unwrap();
}

/// A program that says which seed it is reset with.
#[cfg(unix)]
fn echo(tasks: Option<u64>) -> Arc<dyn TaskSet> {
    let script = r#"while read -r line; do
        n=${line#*\"seed\":}; n=${n%%[!0-9]*}; echo "{\"observation\": \"seed $n\"}"; done"#;
    let command = format!("sh -c '{script}'");
    let options = StdioOptions { tasks, ..StdioOptions::new(command) };
    Arc::new(StdioSet::start(options).unwrap())
}

#[cfg(unix)]
#[test]
fn what_a_client_holds_out_is_held_out_from_a_served_program() {
    const BLOCK: u64 = 1 << 28;
    for tasks in [None, Some(100)] {
        let limits = SessionLimits::default();
        let server =
            Running::serve(move || OpenEnv::new(echo(tasks), None, limits).unwrap().into());
        let url = format!("http://{}", server.address);
        let set = OpenEnvSet::connect(OpenEnvOptions::new(url)).unwrap();
        let mut env = set.make();
        for (task, seed) in
            [("train/7", 7), ("seen/7", BLOCK + 7), ("unseen/7", 2 * BLOCK + 7), ("train/8", 8)]
        {
            assert_eq!(env.reset(task, 0).unwrap().text, format!("seed {seed}"), "{task}");
        }
        // What no split of a client has is trained on; a split that is named is played.
        let mut session = Session::new(&server);
        let mut told = |data: Value| session.ask("reset", &data)["observation"]["text"].take();
        assert_eq!(told(json!({"seed": 3 * BLOCK + 5})), "seed 5");
        assert_eq!(told(json!({"seed": 5, "split": "seen"})), format!("seed {}", BLOCK + 5));
        assert_eq!(
            told(json!({"seed": 5, "task_id": "unseen/9"})),
            format!("seed {}", 2 * BLOCK + 9)
        );
        server.end().unwrap();
    }
    // So is the split that the server is for.
    for (split, seed, expected) in [(Split::Unseen, 5, 2 * BLOCK + 5), (Split::Train, BLOCK + 7, 7)]
    {
        let limits = SessionLimits::default();
        let server =
            Running::serve(move || OpenEnv::new(echo(None), Some(split), limits).unwrap().into());
        let reset = Session::new(&server).ask("reset", &json!({ "seed": seed }));
        assert_eq!(reset["observation"]["text"], format!("seed {expected}"));
        server.end().unwrap();
    }
}
