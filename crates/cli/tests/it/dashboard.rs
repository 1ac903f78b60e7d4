//! The dashboard as a command.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::program::{empg, run_in};

/// A dashboard that runs, and the first line that it wrote.
struct Running {
    child: Child,
    line: String,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = empg();
        command.current_dir(dir).arg("dashboard").args(args).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, line: line.trim().to_owned() }
    }

    /// Status and body of an answer.
    fn get(address: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Interrupts it; its exit code and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

#[test]
fn an_empty_folder_is_served_until_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("runs")).unwrap();
    let running = Running::start(dir.path(), &["--port", "0"]);
    let address = running.line.strip_prefix("http://").unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let (status, page) = Running::get(&address, "/", "");
    assert!(status == 200 && page.contains("<title>EMPG runs</title>"), "{status} {page}");
    assert!(Running::get(&address, "/api/runs", "").1.contains("\"runs\":[]"));

    let port = address.rsplit(':').next().unwrap();
    let second = run_in(dir.path(), &format!("dashboard --port {port}"));
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("another program listens there"), "{}", second.stderr);

    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 runs in runs") && !said.contains("warning"), "{said}");
}

#[test]
fn others_need_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[".", "--port", "0", "--host", "0.0.0.0", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&running.line).unwrap();
    let (url, token) = (line["url"].as_str().unwrap(), line["token"].as_str().unwrap());
    assert!(token.len() >= 32 && url.ends_with(&format!("/?token={token}")), "{line}");
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    assert_eq!(Running::get(address, "/api/runs", "").0, 401);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(Running::get(address, "/api/runs", &bearer).0, 200);
    assert_eq!(Running::get(address, &format!("/?token={token}"), "").0, 303);
    let (code, said) = running.end();
    assert_eq!(code, Some(0));
    assert!(said.contains("from other machines") && said.contains("not encrypted"), "{said}");
}

#[test]
fn mistakes_are_told() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        ("dashboard nowhere --port 0", "give the folder that holds the runs"),
        ("dashboard . --port 0 --token short", "at least 12 characters"),
        ("dashboard . --port 0 --token no;semicolons;here", "letters, digits"),
        (
            "dashboard . --port 0 --host no.such.host.invalid",
            "cannot listen on no.such.host.invalid",
        ),
    ] {
        let ran = run_in(dir.path(), args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{args}");
        assert!(ran.stderr.contains(part), "{args}: {}", ran.stderr);
    }
}
