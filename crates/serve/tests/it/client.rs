//! A client that says exactly what it is told to say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit can be set");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a request and reads status and body.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        self.begin(method, path, body.len());
        // A server that refuses may stop reading before everything is sent.
        let _ = self.stream.get_mut().write_all(body);
        self.answer()
    }

    pub(crate) fn post(&mut self, body: &str) -> (u16, Value) {
        self.send("POST", "/retrieve", body.as_bytes())
    }

    /// Sends the head of a request.
    pub(crate) fn begin(&mut self, method: &str, path: &str, length: usize) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        self.stream.get_mut().write_all(head.as_bytes()).expect("the server reads");
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the server reads");
    }

    /// Reads an answer.
    pub(crate) fn answer(&mut self) -> (u16, Value) {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer comes");
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("the head is whole");
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(n) = header.strip_prefix("content-length:") {
                length = n.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the body is whole");
        (status, serde_json::from_slice(&body).expect("answers are JSON"))
    }

    /// Whether the server has closed the connection.
    pub(crate) fn closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}
