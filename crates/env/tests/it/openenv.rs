//! The client of OpenEnv servers against servers that behave well, badly, or not at all.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use empg_env::remote::{Notice, OpenEnvOptions, OpenEnvSet};
use empg_env::{EnvEnd, EnvError, Split, TaskSet};
use serde_json::{Value, json};
use tungstenite::{Message, accept};

/// What a server does with a message.
enum Reply {
    Say(Value),
    Raw(String),
    Bytes,
    Ping(Value),
    Wait,
    HangUp,
}

/// Connection (from 0), message in it (from 0), message.
type Behaviour = dyn Fn(usize, usize, &Value) -> Reply + Send + Sync;

struct Server {
    url: String,
    /// Every message with its connection.
    heard: Arc<Mutex<Vec<(usize, Value)>>>,
    /// Pongs that came.
    pongs: Arc<Mutex<usize>>,
}

impl Server {
    /// `refused` connections are answered with status 503 first.
    fn start(
        refused: usize,
        schema: Option<Value>,
        behaviour: impl Fn(usize, usize, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let pongs = Arc::new(Mutex::new(0));
        let server = Self { url, heard: Arc::clone(&heard), pongs: Arc::clone(&pongs) };
        std::thread::spawn(move || {
            let mut sockets = 0;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 16];
                while stream.peek(&mut head).unwrap_or(0) < 8 {}
                let head = String::from_utf8_lossy(&head).into_owned();
                if !head.starts_with("GET /ws") {
                    let body = match (&schema, head.starts_with("GET /schema")) {
                        (Some(schema), true) => json!({"action": schema}).to_string(),
                        (Some(_), false) => json!({"name": "lamps"}).to_string(),
                        (None, _) => String::new(),
                    };
                    let status = if body.is_empty() { 404 } else { 200 };
                    respond(&mut stream, status, &body);
                    continue;
                }
                let connection = sockets;
                sockets += 1;
                if connection < refused {
                    respond(&mut stream, 503, "busy");
                    continue;
                }
                let (behaviour, heard, pongs) =
                    (Arc::clone(&behaviour), Arc::clone(&heard), Arc::clone(&pongs));
                std::thread::spawn(move || {
                    converse(stream, connection, &*behaviour, &heard, &pongs);
                });
            }
        });
        server
    }

    fn options(&self) -> OpenEnvOptions {
        OpenEnvOptions {
            timeout: Duration::from_secs(10),
            retries: 2,
            backoff: Duration::from_millis(5),
            ..OpenEnvOptions::new(&self.url)
        }
    }

    fn set(&self) -> OpenEnvSet {
        OpenEnvSet::connect(self.options()).unwrap()
    }
}

fn respond(stream: &mut TcpStream, status: u16, body: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(text.as_bytes());
}

fn converse(
    stream: TcpStream,
    connection: usize,
    behaviour: &Behaviour,
    heard: &Mutex<Vec<(usize, Value)>>,
    pongs: &Mutex<usize>,
) {
    let Ok(mut socket) = accept(stream) else { return };
    let mut index = 0;
    loop {
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Pong(_)) => {
                *pongs.lock().unwrap() += 1;
                continue;
            }
            Ok(Message::Ping(_) | Message::Binary(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(_)) | Err(_) => return,
        };
        let message: Value = serde_json::from_str(&text).unwrap();
        heard.lock().unwrap().push((connection, message.clone()));
        let sent = match behaviour(connection, index, &message) {
            Reply::Say(value) => socket.send(Message::text(value.to_string())),
            Reply::Raw(text) => socket.send(Message::text(text)),
            Reply::Bytes => socket.send(Message::binary(vec![1, 2, 3])),
            Reply::Ping(value) => socket
                .send(Message::text(value.to_string()))
                .and_then(|()| socket.send(Message::Ping(vec![7].into()))),
            Reply::Wait => {
                std::thread::sleep(Duration::from_secs(20));
                return;
            }
            Reply::HangUp => return,
        };
        if sent.is_err() {
            return;
        }
        index += 1;
    }
}

fn observation(text: &str, reward: f64, done: bool) -> Value {
    json!({"type": "observation", "data": {"observation": {"text": text}, "reward": reward, "done": done}})
}

fn refusal(code: &str, message: &str) -> Value {
    json!({"type": "error", "data": {"message": message, "code": code}})
}

/// A game that answers the same in every session: `win` wins it.
fn game(index: usize, message: &Value) -> Value {
    match message["type"].as_str().unwrap() {
        "reset" => observation(&format!("seed {}", message["data"]["seed"]), 0.0, false),
        "step" => {
            let action = message["data"]["text"].as_str().unwrap();
            let won = action == "win";
            observation(&format!("{index} {action}"), f64::from(u8::from(won)), won)
        }
        other => panic!("{other}"),
    }
}

fn failure(result: Result<impl std::fmt::Debug, EnvError>) -> String {
    match result {
        Err(EnvError::Failed(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_episode_is_played_on_one_session_after_another() {
    let server = Server::start(0, None, |_, index, message| Reply::Say(game(index, message)));
    let set = server.set();
    assert_eq!((set.kind(), set.action_field()), ("openenv", "text"));
    assert_eq!(set.len(Split::Train), None);
    let task = set.task(Split::Seen, 3).unwrap();
    assert_eq!(task.id, "seen/3");
    let mut env = set.make();
    assert!(matches!(env.step("x"), Err(EnvError::NotRunning)));
    assert_eq!(env.reset(&task.id, 1).unwrap().text, format!("seed {}", (1 << 28) + 3));
    let step = env.step("open \"it\"").unwrap();
    assert_eq!(step.observation.text, "1 open \"it\"");
    assert!(step.end.is_none() && step.effect && !step.won);
    let step = env.step("win").unwrap();
    assert!(step.won && step.reward == 1.0 && step.end == Some(EnvEnd::Terminated));
    assert!(matches!(env.step("x"), Err(EnvError::NotRunning)));
    // The session serves the next episode, of whichever environment.
    drop(env);
    let mut other = set.make();
    other.reset("train/0", 0).unwrap();
    other.reset("train/0", 0).unwrap();
    let heard = server.heard.lock().unwrap();
    assert!(heard.iter().all(|(connection, _)| *connection == 0), "{heard:?}");
    assert_eq!(heard.last().unwrap().1, json!({"type": "reset", "data": {"seed": 0}}));
}

#[test]
fn actions_and_resets_follow_schema_and_settings() {
    let schema = json!({"properties": {"message": {"type": "string"}, "metadata": {}},
        "required": ["message"]});
    let server = Server::start(0, Some(schema), |_, _, message| {
        Reply::Say(match message["type"].as_str() {
            Some("reset") => {
                json!({"type": "observation", "data": {"observation": {"board": {"rows": ["ab"]}}}})
            }
            _ => refusal("VALIDATION_ERROR", "Invalid message"),
        })
    });
    let mut options = server.options();
    options.observation_field = Some("board.rows.0".into());
    options.reset.insert("split".into(), "{split}".into());
    let set = OpenEnvSet::connect(options).unwrap().with(Some(2));
    assert_eq!((set.kind(), set.action_field()), ("lamps", "message"));
    assert_eq!(set.task(Split::Unseen, 0).unwrap().kind, "lamps");
    let mut env = set.make();
    assert_eq!(env.reset("train/9", 0).unwrap().text, "ab");
    // An action that the server's model refuses is the policy's mistake.
    let step = env.step("up").unwrap();
    assert!(!step.effect && step.end.is_none() && step.observation.text == "Invalid message");
    assert_eq!(env.step("up").unwrap().end, Some(EnvEnd::Truncated(empg::Limit::Turns)));
    let heard = server.heard.lock().unwrap();
    assert_eq!(heard[0].1["data"], json!({"seed": 9, "split": "train"}));
    assert_eq!(heard[1].1, json!({"type": "step", "data": {"message": "up"}}));
    drop(heard);
    let mut options = server.options();
    options.action_field = Some("code".into());
    let error = failure(OpenEnvSet::connect(options));
    assert!(error.contains("\"code\"") && error.contains("message"), "{error}");
}

#[test]
fn a_session_lost_in_an_episode_is_played_again() {
    let server = Server::start(0, None, |connection, index, message| {
        if connection == 0 && index == 3 { Reply::HangUp } else { Reply::Say(game(index, message)) }
    });
    let set = server.set();
    let mut env = set.make();
    env.reset("train/5", 0).unwrap();
    for action in ["a", "b"] {
        env.step(action).unwrap();
    }
    // Lost here, and answered all the same.
    assert_eq!(env.step("c").unwrap().observation.text, "3 c");
    assert!(env.step("win").unwrap().won);
    let heard = server.heard.lock().unwrap();
    let again: Vec<_> = heard.iter().filter(|(c, _)| *c == 1).map(|(_, m)| m).collect();
    assert_eq!(again.len(), 5);
    assert_eq!(again[0], &heard[0].1);
    assert_eq!(again[2]["data"]["text"], "b");
}

#[test]
fn a_server_that_plays_otherwise_after_a_loss_ends_the_episode() {
    let server = Server::start(0, None, |connection, index, message| match (connection, index) {
        (0, 2) => Reply::HangUp,
        (1, 1) => Reply::Say(observation("something else", 0.0, false)),
        _ => Reply::Say(game(index, message)),
    });
    let set = server.set();
    let mut env = set.make();
    env.reset("train/5", 0).unwrap();
    env.step("a").unwrap();
    let error = failure(env.step("b"));
    assert!(error.contains("lost in step 2") && error.contains("another way"), "{error}");
    assert!(matches!(env.step("c"), Err(EnvError::NotRunning)));
    // The next episode has a session of its own.
    env.reset("train/6", 0).unwrap();
    assert!(env.step("win").unwrap().won);
}

#[test]
fn late_answers_end_the_episode() {
    let server = Server::start(0, None, |connection, index, message| {
        if connection == 0 && index == 1 { Reply::Wait } else { Reply::Say(game(index, message)) }
    });
    let set = OpenEnvSet::connect(OpenEnvOptions {
        timeout: Duration::from_millis(200),
        ..server.options()
    })
    .unwrap();
    let mut env = set.make();
    env.reset("train/1", 0).unwrap();
    let started = Instant::now();
    let error = failure(env.step("a"));
    assert!(error.contains("step 1 within 0.2 s") && error.contains("env.timeout"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    env.reset("train/2", 0).unwrap();
    assert_eq!(server.heard.lock().unwrap().last().unwrap().0, 1);
}

#[test]
fn nonsense_ends_the_episode_with_what_it_was() {
    for (reply, part) in [
        (Reply::Raw("<html>".into()), "<html>"),
        (Reply::Raw("{\"type\": \"hello\"}".into()), "expected an observation or an error"),
        (Reply::Raw("x".repeat((16 << 20) + 1)), "longer than 16777216 bytes"),
        (Reply::Bytes, "bytes where text belongs"),
        (Reply::Say(json!({"type": "observation", "data": [1]})), "no object"),
        (
            Reply::Say(json!({"type": "observation", "data": {"observation": "o", "reward": "x"}})),
            "\"reward\" is no number",
        ),
        (
            Reply::Raw(
                "{\"type\": \"observation\", \"data\": {\"observation\": \"o\", \"reward\": NaN}}"
                    .into(),
            ),
            "NaN",
        ),
        (
            Reply::Say(refusal("EXECUTION_ERROR", "the disk is full")),
            "the disk is full (EXECUTION_ERROR)",
        ),
    ] {
        let reply = Mutex::new(Some(reply));
        let server = Server::start(0, None, move |_, index, message| match index {
            1 => reply.lock().unwrap().take().unwrap_or(Reply::HangUp),
            _ => Reply::Say(game(index, message)),
        });
        let set = server.set();
        let mut env = set.make();
        env.reset("train/1", 0).unwrap();
        let error = failure(env.step("a"));
        assert!(error.contains(part) && error.contains("step 1"), "{error}");
        assert!(error.len() < 1000, "{}", error.len());
        env.reset("train/1", 0).unwrap();
    }
}

#[test]
fn full_and_busy_servers_are_asked_again() {
    let full = |connection: usize, index: usize, message: &Value| {
        if connection < 2 {
            Reply::Say(refusal("CAPACITY_REACHED", "Server at capacity: 1/1 sessions active."))
        } else {
            Reply::Say(game(index, message))
        }
    };
    let server = Server::start(1, None, full);
    server.set().make().reset("train/1", 0).unwrap();

    let server = Server::start(3, None, full);
    let error = failure(server.set().make().reset("train/1", 0));
    assert!(error.contains("status 503") && error.contains("3 attempts"), "{error}");

    let server = Server::start(0, None, |_, _, _| {
        Reply::Say(refusal("CAPACITY_REACHED", "Server at capacity: 1/1 sessions active."))
    });
    let error = failure(server.set().make().reset("train/1", 0));
    assert!(error.contains("1/1 sessions") && error.contains("env.sessions"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let options = OpenEnvOptions {
        retries: 1,
        backoff: Duration::from_millis(1),
        ..OpenEnvOptions::new(format!("http://{address}"))
    };
    let error = failure(OpenEnvSet::connect(options));
    assert!(error.contains(&address.to_string()) && error.contains("2 attempts"), "{error}");
    assert!(error.contains("empg serve env"), "{error}");
    // One that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = OpenEnvOptions {
        timeout: Duration::from_millis(100),
        ..OpenEnvOptions::new(format!("http://{}", silent.local_addr().unwrap()))
    };
    let error = failure(OpenEnvSet::connect(options));
    assert!(error.contains("not answered in time"), "{error}");
}

#[test]
fn episodes_that_cannot_begin_are_failures() {
    let server = Server::start(0, None, |_, _, message| {
        Reply::Say(match message["data"]["task_id"].as_str() {
            Some("over") => observation("o", 0.0, true),
            _ => refusal("EXECUTION_ERROR", "no such task"),
        })
    });
    let mut env = server.set().make();
    let error = failure(env.reset("chess", 0));
    assert!(error.contains("refused to reset to chess: no such task"), "{error}");
    let error = failure(env.reset("over", 0));
    assert!(error.contains("over before its first step"), "{error}");
}

#[test]
fn a_task_that_begins_in_two_ways_is_told() {
    let server = Server::start(0, None, |_, index, _| {
        Reply::Say(observation(&format!("the {index}th beginning"), 0.0, false))
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&told);
    let notice = Notice::to(move |text| copy.lock().unwrap().push(text.to_owned()));
    let set = OpenEnvSet::connect(OpenEnvOptions { notice, ..server.options() }).unwrap();
    let mut env = set.make();
    env.reset("train/1", 0).unwrap();
    env.reset("train/2", 0).unwrap();
    assert!(told.lock().unwrap().is_empty());
    env.reset("train/1", 0).unwrap();
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains("train/1"), "{told:?}");
}

#[test]
fn pings_are_answered_while_nobody_asks() {
    let server = Server::start(0, None, |_, index, message| match index {
        0 => Reply::Ping(game(index, message)),
        _ => Reply::Say(game(index, message)),
    });
    let set = server.set();
    let mut env = set.make();
    env.reset("train/1", 0).unwrap();
    let started = Instant::now();
    while *server.pongs.lock().unwrap() == 0 {
        assert!(started.elapsed() < Duration::from_secs(15), "no pong came");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(env.step("win").unwrap().won);
}
