//! `empg track` and `empg train --track` against a server that notes every request and fails when it
//! is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use empg_run::{RunDir, StepRecord};
use serde_json::{Value, json};

use crate::program::{Ran, SMALL, empg, run_in};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// This status, and this body.
    Status(u16, &'static str),
    /// The request is carried out, and the connection closed without an answer.
    Lost,
    /// A page that no MLflow wrote.
    Page,
    /// No answer until the client goes.
    Silence,
}

#[derive(Debug, Default)]
struct Image {
    params: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    /// `(step, value)` by metric, in the order of arrival.
    metrics: BTreeMap<String, Vec<(u64, f64)>>,
    status: String,
    deleted: bool,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<(String, Option<String>)>,
    experiments: Vec<(String, bool)>,
    runs: Vec<Image>,
    /// For the next requests; `None` is none.
    faults: VecDeque<Option<Fault>>,
    always: Option<Fault>,
    largest: BTreeMap<&'static str, usize>,
}

/// The server.
struct Fake {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || answer(stream, &state));
            }
        });
        Self { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn fail(&self, faults: &[Option<Fault>]) {
        self.state().faults = faults.iter().copied().collect();
    }

    fn calls(&self, call: &str) -> usize {
        self.state().requests.iter().filter(|(path, _)| path.contains(call)).count()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (fault, (status, text)) = {
        let mut state = state.lock().unwrap();
        state.requests.push((path.clone(), authorization));
        let always = state.always;
        let fault = state.faults.pop_front().unwrap_or(always);
        let answered = match fault {
            None | Some(Fault::Lost) => state.carry_out(&path, &body),
            Some(Fault::Status(status, text)) => (status, text.to_owned()),
            Some(Fault::Page) => (200, "<html>Welcome</html>".to_owned()),
            Some(Fault::Silence) => (200, String::new()),
        };
        (fault, answered)
    };
    match fault {
        Some(Fault::Lost) => return None,
        Some(Fault::Silence) => {
            let _ = stream.read(&mut [0]);
            return None;
        }
        _ => {}
    }
    let length = text.len();
    let place = if status == 308 { "location: https://elsewhere/\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} x\r\n{place}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + &text).as_bytes()).ok()
}

impl State {
    /// MLflow's answer, as far as a mirror asks for it.
    fn carry_out(&mut self, path: &str, body: &Value) -> (u16, String) {
        let missing = || {
            let text = json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such thing"});
            (404, text.to_string())
        };
        let call = path.split("/api/2.0/mlflow/").nth(1).unwrap_or_default();
        let (call, query) = call.split_once('?').unwrap_or((call, ""));
        let value = match call {
            "experiments/get-by-name" => {
                let name = query.split('=').nth(1).unwrap_or_default();
                let Some(at) = self.experiments.iter().position(|(n, _)| n == name) else {
                    return missing();
                };
                let stage = if self.experiments[at].1 { "deleted" } else { "active" };
                json!({"experiment": {"experiment_id": at.to_string(), "lifecycle_stage": stage}})
            }
            "experiments/create" => {
                self.experiments.push((body["name"].as_str().unwrap().to_owned(), false));
                json!({"experiment_id": (self.experiments.len() - 1).to_string()})
            }
            "runs/search" => {
                let wanted = body["filter"].as_str().unwrap().split('\'').nth(1).unwrap();
                let found = self.runs.iter().position(|r| r.tags["empg.id"] == wanted);
                let runs: Vec<Value> =
                    found.iter().map(|at| json!({"info": {"run_id": at.to_string()}})).collect();
                json!({ "runs": runs })
            }
            "runs/create" => {
                let mut run = Image { status: "RUNNING".into(), ..Image::default() };
                texts(&mut run.tags, &body["tags"]);
                self.runs.push(run);
                json!({"run": {"info": {"run_id": (self.runs.len() - 1).to_string()}}})
            }
            "runs/get" => {
                let run = &self.runs[query.split('=').nth(1).unwrap().parse::<usize>().unwrap()];
                let pairs = |map: &BTreeMap<String, String>| -> Vec<Value> {
                    map.iter().map(|(k, v)| json!({"key": k, "value": v})).collect()
                };
                // Zeros and empty texts are left out, and steps may be texts, as protobuf's JSON has
                // them.
                let metrics: Vec<Value> = run
                    .metrics
                    .iter()
                    .map(|(key, points)| match points.iter().map(|p| p.0).max().unwrap() {
                        0 => json!({"key": key}),
                        step if step % 2 == 0 => json!({"key": key, "step": step.to_string()}),
                        step => json!({"key": key, "step": step}),
                    })
                    .collect();
                let stage = if run.deleted { "deleted" } else { "active" };
                json!({"run": {
                    "info": {"status": run.status, "lifecycle_stage": stage},
                    "data": {"params": pairs(&run.params), "tags": pairs(&run.tags), "metrics": metrics},
                }})
            }
            "runs/log-batch" => {
                for kind in ["metrics", "params", "tags"] {
                    let size = body[kind].as_array().map_or(0, Vec::len);
                    let largest = self.largest.entry(kind).or_default();
                    *largest = size.max(*largest);
                }
                let run =
                    &mut self.runs[body["run_id"].as_str().unwrap().parse::<usize>().unwrap()];
                texts(&mut run.params, &body["params"]);
                texts(&mut run.tags, &body["tags"]);
                for metric in body["metrics"].as_array().into_iter().flatten() {
                    let key = metric["key"].as_str().unwrap().to_owned();
                    assert!(metric["timestamp"].as_i64().unwrap() > 1_600_000_000_000);
                    let point =
                        (metric["step"].as_u64().unwrap(), metric["value"].as_f64().unwrap());
                    run.metrics.entry(key).or_default().push(point);
                }
                json!({})
            }
            "runs/update" => {
                let run =
                    &mut self.runs[body["run_id"].as_str().unwrap().parse::<usize>().unwrap()];
                body["status"].as_str().unwrap().clone_into(&mut run.status);
                json!({})
            }
            _ => return missing(),
        };
        (200, value.to_string())
    }
}

fn texts(into: &mut BTreeMap<String, String>, list: &Value) {
    for pair in list.as_array().into_iter().flatten() {
        let text = |key: &str| pair[key].as_str().unwrap().to_owned();
        into.insert(text("key"), text("value"));
    }
}

/// A run of so many steps with so many metrics each, of ten steps.
fn a_run(path: &Path, steps: u64, metrics: usize) {
    let config = format!(
        "steps = 10\nseed = 3\n[rollout]\nsystem = \"Grüße 🎲 <b>\"\nlong = \"{}\"\n\
         [env.reset]\n\"a:b//c\" = \"x\"\n",
        "ü".repeat(7000)
    );
    let info = json!({"empg": "0.1.0", "algo": "DAPO + EMPG", "env": "households", "seed": 3});
    let mut run = RunDir::create(path, &config, &info).unwrap();
    go_on(&mut run, 1..=steps, metrics);
}

fn go_on(run: &mut RunDir, steps: impl Iterator<Item = u64>, metrics: usize) {
    for step in steps {
        let mut line = json!({
            "success": 0.5, "loss": null, "flag": true, "odd@näme": 1,
            "eval": [{"split": "unseen", "success": step, "by_task": {"heat: <1>": {"won": 2}}}],
        });
        for metric in 0..metrics {
            line[format!("metric {metric}")] = json!(metric as f64 / 7.0 + step as f64);
        }
        let metrics = line.as_object().unwrap().clone();
        let timings = json!({"tokens_per_s": 10.5}).as_object().unwrap().clone();
        run.commit(&StepRecord { step, metrics, timings, ..StepRecord::default() }).unwrap();
    }
}

fn track(dir: &Path, args: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = empg();
    for name in ["URI", "USERNAME", "PASSWORD", "TOKEN"] {
        command.env_remove(format!("MLFLOW_TRACKING_{name}"));
    }
    command.env_remove("MLFLOW_EXPERIMENT_NAME").envs(variables.iter().copied());
    let command = command.current_dir(dir).arg("track").args(args.split_whitespace());
    command.output().unwrap().into()
}

/// Every point once, and in order.
fn assert_each_once(image: &Image, steps: u64, names: usize) {
    assert_eq!(image.metrics.len(), names, "{:?}", image.metrics.keys());
    for (key, points) in &image.metrics {
        let told: Vec<u64> = points.iter().map(|p| p.0).collect();
        assert_eq!(told, (1..=steps).collect::<Vec<_>>(), "{key}");
    }
}

#[test]
fn a_run_is_told_once_in_requests_that_the_server_takes() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    a_run(&dir.path().join("run"), 4, 700);
    let args = format!("run --mlflow {}/ --experiment some --json", fake.url);
    let ran = track(dir.path(), &args, &[("MLFLOW_TRACKING_TOKEN", "geheim")]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let one = &told["runs"][0];
    // Four steps of ten, and nobody writes it: stopped.
    assert_eq!((&one["points"], &one["status"]), (&json!(4 * 705), &json!("KILLED")));
    assert_eq!(one["url"], format!("{}/#/experiments/0/runs/0", fake.url));
    {
        let state = fake.state();
        assert!(state.requests.iter().all(|(_, who)| who.as_deref() == Some("Bearer geheim")));
        assert_eq!(state.experiments, [("some".to_owned(), false)]);
        assert_eq!(state.largest["metrics"], 1000);
        assert!(state.largest["params"] <= 100 && state.largest["tags"] <= 100);
        let image = &state.runs[0];
        assert_each_once(image, 4, 705);
        assert_eq!(image.metrics["metric 699"][3], (4, 699.0 / 7.0 + 4.0));
        assert_eq!(image.metrics["eval/unseen/by_task/heat_ _1_/won"][0], (1, 2.0));
        assert!(image.metrics.contains_key("odd_näme") && !image.metrics.contains_key("loss"));
        assert_eq!(image.params["rollout.system"], "Grüße 🎲 <b>");
        assert_eq!(image.params["env.reset.a_b/_/c"], "x");
        assert_eq!(image.params["rollout.long"].chars().count(), 6000);
        assert_eq!(image.tags["empg.version"], "0.1.0");
        assert_eq!(image.status, "KILLED");
    }
    // Trained further: the same run goes on, under another name of the user's.
    let mut run = RunDir::resume(dir.path().join("run")).unwrap().0;
    go_on(&mut run, 1..=10, 700);
    drop(run);
    std::fs::rename(dir.path().join("run"), dir.path().join("moved")).unwrap();
    let args = format!("moved --mlflow {} --experiment some", fake.url);
    let basic = [("MLFLOW_TRACKING_USERNAME", "me"), ("MLFLOW_TRACKING_PASSWORD", "p")];
    let ran = track(dir.path(), &args, &basic);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("4230 points sent, 2820 there before, finished"), "{}", ran.stdout);
    let state = fake.state();
    assert_eq!(state.runs.len(), 1);
    assert_each_once(&state.runs[0], 10, 705);
    assert_eq!(state.requests.last().unwrap().1.as_deref(), Some("Basic bWU6cA=="));
    assert_eq!(state.runs[0].status, "FINISHED");
}

#[test]
fn what_passes_is_tried_again_and_answers_that_were_lost_are_asked_for() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    a_run(&dir.path().join("run"), 10, 300);
    // Asked for the experiment, made it, searched, made the run, told parameters and tags, points.
    let unavailable = Some(Fault::Status(503, "<h1>restarting</h1>"));
    fake.fail(&[unavailable, None, None, None, None, None, None, None, Some(Fault::Lost)]);
    let ran = track(dir.path(), &format!("run --mlflow {}", fake.url), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("503: <h1>restarting</h1>; trying again"), "{}", ran.stderr);
    assert_each_once(&fake.state().runs[0], 10, 305);
    assert_eq!((fake.calls("runs/create"), fake.calls("runs/search")), (1, 2));

    // The run was made and nobody was told.
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    for name in ["a", "b"] {
        a_run(&dir.path().join(name), 2, 1);
    }
    fake.fail(&[None, Some(Fault::Lost), None, None, Some(Fault::Lost)]);
    let ran = track(dir.path(), &format!("a b --mlflow {}", fake.url), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let state = fake.state();
    let identities: BTreeSet<&String> = state.runs.iter().map(|r| &r.tags["empg.id"]).collect();
    assert_eq!((state.runs.len(), identities.len(), state.experiments.len()), (2, 2, 1));
    state.runs.iter().for_each(|run| assert_each_once(run, 2, 6));
    assert_eq!(ran.stdout.lines().count(), 2);
}

#[test]
fn refusals_end_it_at_once_in_the_servers_words() {
    let dir = tempfile::tempdir().unwrap();
    a_run(&dir.path().join("run"), 2, 1);
    let denied = r#"{"error_code": "PERMISSION_DENIED", "message": "not yours"}"#;
    for (fault, expected) in [
        (Fault::Status(403, denied), "status 403: not yours"),
        (Fault::Status(401, ""), "status 401"),
        (Fault::Page, "does not answer experiments/get-by-name as an MLflow server does"),
        (Fault::Status(404, "<html>nothing here"), "status 404: <html>nothing here"),
        (Fault::Status(308, ""), "status 308: it has moved to https://elsewhere/"),
    ] {
        let fake = Fake::start();
        fake.state().always = Some(fault);
        let ran = track(dir.path(), &format!("run --mlflow {}", fake.url), &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        assert_eq!(fake.state().requests.len(), 1);
    }
    // A server that is down for good is given up, and what was deleted there is not brought back.
    let fake = Fake::start();
    fake.state().always = Some(Fault::Status(500, ""));
    let ran = track(dir.path(), &format!("run --mlflow {} --retries 1", fake.url), &[]);
    assert!(ran.code == Some(1) && ran.stderr.contains("status 500"), "{}", ran.stderr);
    assert_eq!(fake.state().requests.len(), 2);
    fake.state().always = None;
    assert_eq!(track(dir.path(), &format!("run --mlflow {}", fake.url), &[]).code, Some(0));
    fake.state().runs[0].deleted = true;
    let ran = track(dir.path(), &format!("run --mlflow {}", fake.url), &[]);
    assert!(ran.code == Some(1) && ran.stderr.contains("the run 0 was deleted"), "{}", ran.stderr);
    fake.state().experiments[0].1 = true;
    let ran = track(dir.path(), &format!("run --mlflow {}", fake.url), &[]);
    assert!(ran.stderr.contains("experiment \"empg\" was deleted"), "{}", ran.stderr);
}

#[test]
fn one_run_that_cannot_be_sent_keeps_no_other() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    for name in ["a", "b", "c"] {
        a_run(&dir.path().join(name), 2, 1);
    }
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::write(dir.path().join("b/metrics.jsonl"), "not what was committed").unwrap();
    let ran = track(dir.path(), &format!("empty a b c --json --mlflow {}", fake.url), &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for part in
        ["empty is not a run", "b has not been sent", "error: 2 of 4 runs have not been sent"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let names: Vec<&Value> = told["runs"].as_array().unwrap().iter().map(|r| &r["run"]).collect();
    assert_eq!(names, ["a", "c"]);
    let state = fake.state();
    for run in [state.runs.first().unwrap(), state.runs.last().unwrap()] {
        assert_each_once(run, 2, 6);
    }
}

#[test]
fn a_run_that_failed_stays_failed_until_it_goes_on() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    a_run(&dir.path().join("run"), 2, 1);
    let args = format!("run --json --mlflow {}", fake.url);
    let send = || {
        let ran = track(dir.path(), &args, &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let told: Value = serde_json::from_str(&ran.stdout).unwrap();
        let status = fake.state().runs[0].status.clone();
        assert_eq!(told["runs"][0]["status"], status);
        status
    };
    assert_eq!(send(), "KILLED");
    // What the training said of itself.
    "FAILED".clone_into(&mut fake.state().runs[0].status);
    assert_eq!(send(), "FAILED");
    let mut run = RunDir::resume(dir.path().join("run")).unwrap().0;
    go_on(&mut run, 1..=3, 1);
    drop(run);
    assert_eq!(send(), "KILLED");
}

#[test]
fn a_run_is_followed_to_its_end() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("run");
    a_run(&path, 0, 1);
    let mut run = RunDir::resume(&path).unwrap().0;
    go_on(&mut run, 1..=3, 1);
    let mut follower = empg()
        .current_dir(dir.path())
        .args(["track", "run", "--follow", "--mlflow", &fake.url])
        .spawn()
        .unwrap();
    let arrived = |steps: usize| {
        let state = fake.state();
        state.runs.first().and_then(|r| r.metrics.get("success")).map(Vec::len) == Some(steps)
    };
    let wait = |steps| {
        while !arrived(steps) {
            thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait(3);
    // It goes down for a while, which a follower sits out.
    fake.fail(&[Some(Fault::Status(500, "")), Some(Fault::Lost)]);
    go_on(&mut run, 4..=7, 1);
    wait(7);
    assert_eq!(fake.state().runs[0].status, "RUNNING");
    go_on(&mut run, 8..=10, 1);
    drop(run);
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    let state = fake.state();
    assert_each_once(&state.runs[0], 10, 6);
    assert_eq!(state.runs[0].status, "FINISHED");
}

#[test]
fn training_neither_fails_nor_changes_with_its_tracker() {
    let dir = tempfile::tempdir().unwrap();
    let train = |out: &str, more: &str| {
        let ran = run_in(dir.path(), &format!("train --steps 2 {SMALL} --out {out} {more}"));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let metrics = std::fs::read(dir.path().join(out).join("metrics.jsonl")).unwrap();
        (metrics, ran.stderr)
    };
    let (plain, _) = train("plain", "");
    let fake = Fake::start();
    let (tracked, said) = train("tracked", &format!("--track mlflow={}", fake.url));
    assert!(said.contains("tracked at   http") && !said.contains("warning"), "{said}");
    assert_eq!(fake.state().runs[0].status, "FINISHED");
    let lines = String::from_utf8(tracked.clone()).unwrap();
    assert_eq!(fake.state().runs[0].metrics["success"].len(), lines.lines().count() - 1);

    // One that refuses, one that never answers, both at once.
    let (refusing, silent) = (Fake::start(), Fake::start());
    refusing.state().always = Some(Fault::Status(403, ""));
    silent.state().always = Some(Fault::Silence);
    let both = format!("--track mlflow={} --track mlflow={}", refusing.url, silent.url);
    let (unlucky, said) = train("unlucky", &both);
    assert!(said.contains("is not tracked any more") && said.contains("status 403"), "{said}");
    let later = format!("empg track unlucky --mlflow {}", silent.url);
    assert!(said.contains("has not taken the whole run") && said.contains(&later), "{said}");
    assert!(plain == tracked && plain == unlucky);

    // The configuration remembers the tracker, and a resumed run goes on there.
    let ran = run_in(dir.path(), "train --resume tracked --steps 3");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let state = fake.state();
    assert_eq!((state.runs.len(), state.runs[0].metrics["success"].len()), (1, 3));
    assert_eq!(state.runs[0].tags["empg.now.steps"], "3");
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    a_run(&dir.path().join("run"), 1, 1);
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let mut text = String::new();
    for (args, code) in [
        ("track run", 2),
        ("track run --mlflow mlruns", 2),
        ("track run --mlflow sqlite:///mlflow.db", 2),
        ("track run --mlflow ftp://me:secret@host", 2),
        ("track empty --mlflow http://127.0.0.1:1", 1),
        ("track run nowhere --mlflow http://127.0.0.1:1 --retries 0", 1),
        ("track run --mlflow http://127.0.0.1:1 --retries 0", 1),
        ("train --track wandb", 2),
        ("train --track tensorboard", 2),
        ("train --track comet", 2),
        ("train --track mlflow", 2),
        ("train --track mlflow=http://me:secret@host", 2),
        ("train --set record.track=mlflow", 2),
    ] {
        let ran: Ran = empg()
            .current_dir(dir.path())
            .env_remove("MLFLOW_TRACKING_URI")
            .args(args.split_whitespace())
            .output()
            .unwrap()
            .into();
        assert_eq!(ran.code, Some(code), "{args}: {}", ran.stderr);
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
        let _ = write!(text, "$ empg {args}\n{}", ran.stderr);
    }
    assert!(!dir.path().join("runs").exists());
    insta::assert_snapshot!(text);
}
