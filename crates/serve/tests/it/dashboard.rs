//! The dashboard as a client meets it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use empg_serve::{Dashboard, DashboardOptions, ServeError, Server, Token, block_on};
use serde_json::Value;

use crate::Running;
use crate::runs::{EVIL, Training, rows};

/// An answer, whole.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
    write!(stream, "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(address: SocketAddr, path: &str) -> Reply {
    ask(address, "GET", path, "")
}

fn options() -> DashboardOptions {
    DashboardOptions { interval: Duration::from_millis(40), ..DashboardOptions::default() }
}

fn start(folder: &Path, options: DashboardOptions) -> Running {
    let folder = folder.to_owned();
    Running::serve(move || Dashboard::open(&folder, options).unwrap().into())
}

/// Asks until the answer is as wanted.
fn until(address: SocketAddr, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let value = get(address, path).json();
        if wanted(&value) {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "it stays {value}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn run<'a>(list: &'a Value, id: &str) -> Option<&'a Value> {
    list["runs"].as_array().unwrap().iter().find(|r| r["id"] == id)
}

/// A finished run with two recorded steps.
fn finished(folder: &Path, name: &str, seed: u64, empg: bool) {
    let mut training = Training::begin(folder, name, seed, empg, 3);
    training.step(0.4, None);
    training.record(rows(2, 3, 4, 5));
    training.step(0.6, None);
    training.record(rows(3, 3, 4, 5));
    training.step(0.8, Some(0.9));
}

#[test]
fn a_finished_run_is_shown_whole() {
    let folder = tempfile::tempdir().unwrap();
    finished(folder.path(), "a", 0, true);
    finished(folder.path(), "b", 0, false);
    fs::create_dir(folder.path().join("study")).unwrap();
    finished(&folder.path().join("study"), "c ü", 1, false);
    let server = start(folder.path(), options());
    let at = server.address;

    let list = get(at, "/api/runs").json();
    let line = run(&list, "a").unwrap();
    assert_eq!(
        (&line["state"], &line["step"], &line["steps"]),
        (&"finished".into(), &3.into(), &3.into())
    );
    assert_eq!((&line["before"], &line["after"]), (&0.5.into(), &0.9.into()));
    assert_eq!((&line["algorithm"], &line["recorded"]), (&"DAPO + EMPG".into(), &2.into()));
    assert_eq!(line["success"], 0.6, "the mean of the last five");
    assert!(run(&list, "study/c ü").is_some() && run(&list, "study").is_none());
    assert_eq!(get(at, "/api/run?id=study%2Fc+%C3%BC").status, 200);

    let facts = get(at, "/api/run?id=a").json();
    assert_eq!(facts["recorded"], serde_json::json!([[2, 60], [3, 60]]));

    let both = get(at, "/api/compare?id=a&id=b").json();
    assert_eq!(both["arms"].as_array().unwrap().len(), 2);
    let all = both["splits"][0]["rows"].as_array().unwrap().last().unwrap();
    assert_eq!(all["arms"], serde_json::json!([[0.5, 0.9], [0.5, 0.9]]));
    assert_eq!(both["differing"][0][0], "empg.enabled");
    assert_eq!(both["differences"][0]["paired"]["pairs"], 1);
    let success =
        both["curves"].as_array().unwrap().iter().find(|c| c["key"] == "success").unwrap();
    assert_eq!(success["arms"][0]["mean"], serde_json::json!([0.4, 0.6, 0.8]));

    let tasks = get(at, "/api/tasks?id=a").json();
    assert_eq!(tasks["evaluations"].as_array().unwrap().len(), 2);

    let columns = get(at, "/api/episodes?id=a&step=all").json();
    assert_eq!(columns["group"].as_array().unwrap().len(), 24);
    assert_eq!(columns["notes"], serde_json::json!([]));
    let last = get(at, "/api/episodes?id=a").json();
    assert_eq!(last["step"][0], 3, "the last step where none is named");
    let episode = get(at, "/api/episode?id=a&step=2&group=0&rollout=0").json();
    let turns = episode["turns"].as_array().unwrap();
    assert_eq!((turns.len(), turns[1]["observation"].as_str()), (5, Some(EVIL)));
    assert_eq!(turns[4]["f_next"], Value::Null);
    let group = get(at, "/api/group?id=a&step=2&group=1").json();
    assert_eq!(group.as_array().unwrap().len(), 4);
    assert_eq!(group[0]["advantage"].as_array().unwrap().len(), 5);
    let hits = get(at, "/api/search?id=a&step=all&q=%3CSCRIPT%3Ewindow").json();
    assert_eq!(hits, serde_json::json!([0, 12]));
    server.end().unwrap();
}

#[test]
fn a_run_that_goes_on_shows_its_new_settings_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = Training::begin(folder.path(), "a", 0, true, 1);
    training.step(0.4, Some(0.9));
    let server = start(folder.path(), options());
    let at = server.address;
    let success = || {
        let compared = get(at, "/api/compare?id=a").json();
        compared["splits"][0]["rows"].as_array().unwrap().last().unwrap()["arms"].clone()
    };
    assert_eq!(run(&get(at, "/api/runs").json(), "a").unwrap()["steps"], 1);
    assert_eq!(success(), serde_json::json!([[0.5, 0.9]]));

    let config = training.path().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("steps = 1\n", "steps = 20\n")).unwrap();
    training.step(0.5, None);
    let list = until(at, "/api/runs", |list| run(list, "a").unwrap()["step"] == 2);
    let line = run(&list, "a").unwrap();
    assert_eq!((&line["steps"], &line["state"]), (&20.into(), &"running".into()));
    assert_eq!(line["after"], 0.9, "the newest");
    assert_eq!(success(), serde_json::json!([[0.5, null]]), "what is half-way is not the end");
    server.end().unwrap();
}

#[test]
fn a_run_that_is_taken_up_again_is_running_before_its_next_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = {
        let mut training = Training::begin(folder.path(), "a", 0, true, 1);
        training.step(0.4, Some(0.9));
        training.path()
    };
    // Yesterday.
    for name in ["manifest.json", "config.toml"] {
        let file = fs::File::options().write(true).open(path.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(24)).unwrap();
    }
    let server = start(folder.path(), options());
    let at = server.address;
    let state = |wanted: &str| {
        until(at, "/api/runs", |list| run(list, "a").is_some_and(|line| line["state"] == wanted))
    };
    state("finished");
    // The same settings, of which all steps are there: a writer, and nothing else that is new.
    let lock = fs::File::options().write(true).open(path.join("run.lock")).unwrap();
    lock.lock().unwrap();
    state("running");
    drop(lock);
    state("finished");
    // More steps, and nobody who writes them yet; then one who does.
    let config = path.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("steps = 1\n", "steps = 20\n")).unwrap();
    let list = state("stopped");
    assert_eq!(run(&list, "a").unwrap()["steps"], 20);
    let lock = fs::File::options().write(true).open(path.join("run.lock")).unwrap();
    lock.lock().unwrap();
    state("running");
    server.end().unwrap();
}

#[test]
fn nothing_outside_of_the_folder_is_told() {
    let outside = tempfile::tempdir().unwrap();
    finished(outside.path(), "secret", 0, true);
    let folder = tempfile::tempdir().unwrap();
    finished(folder.path(), "a", 0, true);
    fs::write(folder.path().join("key.txt"), "hidden words").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink(outside.path().join("secret"), folder.path().join("linked")).unwrap();
        symlink(folder.path().join("a"), folder.path().join("again")).unwrap();
        finished(folder.path(), "half", 0, true);
        let trajectories = folder.path().join("half/trajectories");
        fs::remove_dir_all(&trajectories).unwrap();
        symlink(outside.path().join("secret/trajectories"), &trajectories).unwrap();
    }
    let server = start(folder.path(), options());
    let at = server.address;
    let list = get(at, "/api/runs").json();
    if cfg!(unix) {
        assert!(run(&list, "linked").is_none() && run(&list, "again").is_some());
        let notices = list["notices"].to_string();
        assert!(notices.contains("linked") && notices.contains("leads out"), "{notices}");
        let half = run(&list, "half").unwrap();
        assert!(half["notes"].to_string().contains("leads out"), "{half}");
        assert_eq!(get(at, "/api/episodes?id=half&step=2").status, 404, "nothing of it was read");
    }
    let secret = outside.path().join("secret");
    let secret = secret.to_str().unwrap();
    let up = format!("../{}/secret", outside.path().file_name().unwrap().to_str().unwrap());
    for id in [
        "..",
        ".",
        "%2e%2e",
        "a/..",
        "a%2F..",
        "..%2Fkey.txt",
        "key.txt",
        "%00",
        "a%00",
        "a%00/..",
        "",
        "%ff",
        "/",
        "/etc",
        "linked",
        secret,
        &up,
        "a/../a",
        "./a",
        "A",
    ] {
        for name in ["run", "compare", "tasks", "episodes", "episode", "group", "search"] {
            let reply = get(
                at,
                &format!("/api/{name}?id={}&step=2&group=0&rollout=0", id.replace(' ', "+")),
            );
            assert!(
                matches!(reply.status, 400 | 404),
                "{name} {id:?}: {} {}",
                reply.status,
                reply.body
            );
            assert!(
                !reply.body.contains("hidden words") && !reply.body.contains("households"),
                "{id}"
            );
        }
    }
    for path in [
        "/../key.txt",
        "/..%2fkey.txt",
        "/%2e%2e/key.txt",
        "/assets/../key.txt",
        "/assets/..%2f..%2fkey.txt",
        "/assets/%2e%2e%2fkey.txt",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/a/manifest.json",
        "/assets/%00",
        "/assets/dashboard.js%00",
        "/api/run/../../key.txt",
        "//etc/passwd",
    ] {
        let reply = get(at, path);
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.status);
        assert!(!reply.body.contains("hidden words") && !reply.body.contains("root:"), "{path}");
    }
    server.end().unwrap();
}

#[test]
fn visitors_read_and_are_who_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    finished(folder.path(), "a", 0, true);
    let server = start(folder.path(), options());
    let at = server.address;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let reply = ask(at, method, "/api/runs", "");
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let head = ask(at, "HEAD", "/api/runs", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for host in ["evil.example", "localhost.evil.example", "10.1.2.3:80", "127.0.0.1.nip.example"] {
        let reply = ask(at, "GET", "/api/runs", &format!("Host: {host}\r\n"));
        assert_eq!(reply.status, 421, "{host}");
        assert!(!reply.body.contains("households"));
    }
    for host in ["localhost:9", "127.0.0.1", "[::1]:7878"] {
        assert_eq!(ask(at, "GET", "/api/runs", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    assert_eq!(ask(at, "GET", "/api/runs", "Sec-Fetch-Site: cross-site\r\n").status, 403);
    assert_eq!(
        ask(at, "GET", "/", "Sec-Fetch-Site: cross-site\r\n").status,
        200,
        "links lead here"
    );
    for path in ["/", "/api/runs", "/api/run?id=nothing", "/nothing", "/assets/viewer.js"] {
        let reply = get(at, path);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    assert!(get(at, "/").header("content-type").unwrap().starts_with("text/html"));
    server.end().unwrap();
}

#[test]
fn a_token_is_asked_for_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    finished(folder.path(), "a", 0, true);
    let token = Token::new("correct-horse-battery").unwrap();
    let server =
        start(folder.path(), DashboardOptions { token: Some(token), hosts: None, ..options() });
    let at = server.address;
    for path in [
        "/",
        "/api/runs",
        "/api/events",
        "/assets/viewer.js",
        "/nothing",
        "/api/runs?token=correct-horse-battery",
    ] {
        let reply = get(at, path);
        assert_eq!(reply.status, 401, "{path}");
        assert!(
            !reply.body.contains("households") && !reply.body.contains("correct-horse"),
            "{path}"
        );
    }
    for wrong in ["", "correct-horse", "correct-horse-battery-staple", "Correct-horse-battery"] {
        assert_eq!(get(at, &format!("/?token={wrong}")).status, 401, "{wrong}");
        let bearer = format!("Authorization: Bearer {wrong}\r\n");
        assert_eq!(ask(at, "GET", "/api/runs", &bearer).status, 401, "{wrong}");
    }
    let bearer = "Authorization: Bearer correct-horse-battery\r\nHost: any.name\r\n";
    assert_eq!(ask(at, "GET", "/api/runs", bearer).status, 200);
    let first = get(at, "/?token=correct-horse-battery");
    assert_eq!((first.status, first.header("location")), (303, Some("/")));
    let cookie = first.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(ask(at, "GET", "/", &format!("Cookie: other=1; {pair}\r\n")).status, 200);
    assert_eq!(ask(at, "GET", "/api/runs", &format!("Cookie: {pair}x\r\n")).status, 401);
    server.end().unwrap();
}

/// The stream of changes.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    /// The data of the next event of a name that holds a text.
    fn next(&mut self, name: &str, part: &str) -> String {
        let wanted = format!("event: {name}\n");
        let mut line = String::new();
        let mut named = false;
        loop {
            line.clear();
            assert!(
                self.0.read_line(&mut line).unwrap() > 0,
                "the stream ended before {name} {part}"
            );
            if line.starts_with("event:") {
                named = line == wanted;
            } else if named && line.starts_with("data:") && line.contains(part) {
                return line["data:".len()..].trim().to_owned();
            }
        }
    }
}

#[test]
fn growing_runs_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), options());
    let at = server.address;
    assert_eq!(get(at, "/api/runs").json()["runs"], serde_json::json!([]), "no runs is no error");
    let (mut events, mut other) = (Events::open(at), Events::open(at));
    let hello: Value = serde_json::from_str(&events.next("hello", "")).unwrap();
    assert_eq!(
        (&hello["version"], &hello["boot"]),
        (&0.into(), &get(at, "/api/runs").json()["boot"])
    );
    let elsewhere = start(folder.path(), options());
    assert_ne!(get(elsewhere.address, "/api/runs").json()["boot"], hello["boot"]);
    elsewhere.end().unwrap();

    let mut training = Training::begin(folder.path(), "new", 0, true, 2);
    assert!(training.path().ends_with("new"));
    assert!(events.next("run", "\"new\"").contains("\"state\":\"running\""));
    training.step(0.25, None);
    let line: Value = serde_json::from_str(&events.next("run", "\"step\":1")).unwrap();
    assert_eq!((&line["success"], &line["spark"]), (&0.25.into(), &serde_json::json!([0.25])));
    training.record(rows(2, 1, 2, 3));
    training.step(0.75, Some(1.0));
    assert!(events.next("run", "\"recorded\":1").contains("\"after\":1.0"));
    drop(training);
    events.next("run", "\"state\":\"finished\"");
    other.next("run", "\"state\":\"finished\"");
    let seen = get(at, "/api/compare?id=new").json();
    assert_eq!(seen["curves"][0]["arms"][0]["mean"], serde_json::json!([0.25, 0.75]));

    fs::remove_dir_all(folder.path().join("new")).unwrap();
    assert_eq!(events.next("gone", "new"), r#"{"id":"new"}"#);
    // Streams do not keep the server from ending: they end in order, with an empty chunk.
    server.end().unwrap();
    let mut rest = String::new();
    events.0.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
}

#[test]
fn pages_that_follow_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), DashboardOptions { followers: 1, ..options() });
    let mut first = Events::open(server.address);
    first.next("hello", "");
    assert_eq!(get(server.address, "/api/events").status, 503);
    drop(first);
    // The place is free again once the server has something to tell.
    let training = Training::begin(folder.path(), "a", 0, true, 1);
    until(server.address, "/api/runs", |list| run(list, "a").is_some());
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        if line.contains("200") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{line}");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(training);
    server.end().unwrap();
}

#[test]
fn damaged_and_half_written_runs_are_said_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    finished(folder.path(), "good", 0, true);
    finished(folder.path(), "bad", 0, true);
    let manifest = fs::read(path("bad/manifest.json")).unwrap();
    fs::write(path("bad/manifest.json"), &manifest[..manifest.len() / 2]).unwrap();
    finished(folder.path(), "torn", 0, true);
    let parquet = path("torn/trajectories/step-000003.parquet");
    let bytes = fs::read(&parquet).unwrap();
    fs::write(&parquet, &bytes[..bytes.len() / 2]).unwrap();
    finished(folder.path(), "lines", 0, true);
    fs::write(path("lines/metrics.jsonl"), "{\"step\": 0}\n").unwrap();
    fs::create_dir(path("no-run")).unwrap();
    fs::write(path("file"), "").unwrap();
    let mut odd = Training::begin(folder.path(), "odd", 0, true, 9);
    odd.step(f64::NAN, None);
    odd.step(0.5, None);
    drop(odd);

    let server = start(folder.path(), options());
    let at = server.address;
    let list = get(at, "/api/runs").json();
    assert_eq!(list["runs"].as_array().unwrap().len(), 5);
    assert_eq!(run(&list, "good").unwrap()["state"], "finished");
    for name in ["bad", "lines"] {
        let line = run(&list, name).unwrap();
        assert_eq!(line["state"], "damaged", "{name}");
        assert_eq!(line["notes"].as_array().unwrap().len(), 1, "{line}");
        let reply = get(at, &format!("/api/compare?id={name}&id=good"));
        assert_eq!((reply.status, reply.json()["arms"].as_array().unwrap().len()), (200, 1));
    }
    let line = run(&list, "odd").unwrap();
    assert_eq!(
        (&line["state"], &line["spark"]),
        (&"stopped".into(), &serde_json::json!([null, 0.5]))
    );
    let curves = get(at, "/api/compare?id=odd").json();
    assert_eq!(curves["curves"][0]["arms"][0]["mean"], serde_json::json!([null, 0.5]));

    // What can be read of a run is shown beside what cannot.
    let columns = get(at, "/api/episodes?id=torn&step=all").json();
    assert_eq!(columns["group"].as_array().unwrap().len(), 12);
    assert!(
        columns["notes"][0].as_str().unwrap().contains("step-000003.parquet"),
        "{}",
        columns["notes"]
    );
    let reply = get(at, "/api/episode?id=torn&step=3&group=0&rollout=0");
    assert_eq!(reply.status, 500);
    assert!(reply.json()["error"].as_str().unwrap().contains("step-000003"), "{}", reply.body);
    assert_eq!(get(at, "/api/episode?id=torn&step=2&group=0&rollout=0").status, 200);
    assert_eq!(get(at, "/api/episode?id=torn&step=2&group=9&rollout=0").status, 404);
    assert_eq!(get(at, "/api/episode?id=torn&step=7&group=0&rollout=0").status, 404);
    assert_eq!(get(at, "/api/episode?id=torn&step=2&group=-1&rollout=x").status, 400);

    fs::write(path("bad/manifest.json"), &manifest).unwrap();
    until(at, "/api/runs", |list| run(list, "bad").is_some_and(|r| r["state"] == "finished"));
    server.end().unwrap();
}

#[test]
fn runs_of_the_first_version_open() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../run/tests/compat");
    let server = start(&folder, options());
    let list = get(server.address, "/api/runs").json();
    let line = run(&list, "run_v1").unwrap();
    assert_ne!(line["state"], "damaged", "{line}");
    let columns = get(server.address, "/api/episodes?id=run_v1&step=all").json();
    assert_eq!(columns["notes"], serde_json::json!([]));
    server.end().unwrap();
}

#[test]
fn a_folder_that_is_itself_a_run_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    finished(folder.path(), "only", 0, true);
    let server = start(&folder.path().join("only"), options());
    let list = get(server.address, "/api/runs").json();
    assert_eq!((&list["runs"][0]["id"], &list["runs"][0]["name"]), (&".".into(), &"only".into()));
    assert_eq!(get(server.address, "/api/episodes?id=.&step=2").status, 200);
    server.end().unwrap();
}

#[test]
fn a_taken_port_and_a_missing_folder_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), options());
    let port = server.address.port();
    let error = block_on(1, 0, Server::listen("127.0.0.1", port)).unwrap().unwrap_err();
    assert!(matches!(error, ServeError::Bind { .. }));
    assert!(error.to_string().contains("another program listens there"), "{error}");
    let error = Dashboard::open(&folder.path().join("none"), options()).unwrap_err().to_string();
    assert!(error.contains("none") && error.contains("folder that holds the runs"), "{error}");
    server.end().unwrap();
}
