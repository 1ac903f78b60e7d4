//! Who may call a server without a password.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use empg_env::search::Corpus;
use empg_env::{EnvOptions, Source};
use empg_serve::{Limits, OpenEnv, Retrieval, Service, SessionLimits};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;

use crate::{PASSAGES, Running};

fn passages() -> Service {
    Retrieval::new(Corpus::from_passages(PASSAGES), Limits::default()).into()
}

fn households() -> Service {
    let tasks = Source::generated("households", 0).unwrap().tasks(EnvOptions::default()).unwrap();
    OpenEnv::new(tasks, None, SessionLimits::default()).unwrap().into()
}

/// Status and body of a request with these headers.
fn ask(address: SocketAddr, what: &str, headers: &[&str], body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = format!("{what} HTTP/1.1\r\nConnection: close\r\n");
    for header in headers {
        head += header;
        head += "\r\n";
    }
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    (status, serde_json::from_str(rest.split_once("\r\n\r\n").unwrap().1).unwrap())
}

#[test]
fn pages_of_other_sites_and_names_of_others_are_refused() {
    for (service, what, body, said) in [
        (passages as fn() -> Service, "POST /retrieve", r#"{"query": "alpha"}"#, "error"),
        (households, "POST /reset", r#"{"seed": 1}"#, "detail"),
    ] {
        let server = Running::serve(service);
        let at = server.address;
        let own = format!("Host: {at}");
        let page = format!("Origin: http://{at}");
        for headers in [&[own.as_str()][..], &[&own, &page], &["Host: localhost:80"], &[]] {
            assert_eq!(ask(at, what, headers, body).0, 200, "{headers:?}");
        }
        for (headers, status) in [
            (&[own.as_str(), "Origin: http://evil.example"][..], 403),
            (&[&own, "Origin: http://127.0.0.1:1"], 403),
            (&[&own, "Origin: null"], 403),
            (&["Host: evil.example"], 421),
            (&["Host: evil.example", "Origin: http://evil.example"], 421),
        ] {
            let (refused, answer) = ask(at, what, headers, body);
            assert_eq!(refused, status, "{headers:?}");
            assert!(answer[said].as_str().unwrap().contains("--allow-host"), "{answer}");
        }
        assert_eq!(ask(at, "GET /health", &["Host: evil.example"], "").0, 421);
        server.end().unwrap();
    }
}

#[test]
fn a_page_of_another_site_gets_no_session() {
    let server = Running::serve(households);
    let open = |origin: Option<&str>| {
        let url = format!("ws://{}/ws", server.address);
        let mut request = url.into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        let stream = TcpStream::connect(server.address).unwrap();
        match tungstenite::client(request, stream) {
            Ok((mut socket, _)) => {
                let reset = json!({"type": "reset", "data": {"seed": 1}}).to_string();
                socket.send(tungstenite::Message::text(reset)).unwrap();
                assert!(socket.read().unwrap().to_text().unwrap().contains("observation"));
                200
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                answer.status().as_u16()
            }
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(open(None), 200);
    assert_eq!(open(Some(&format!("http://{}", server.address))), 200);
    assert_eq!(open(Some("http://evil.example")), 403);
    assert_eq!(open(Some("null")), 403);
    server.end().unwrap();
}

#[test]
fn a_proxy_has_its_name() {
    let server = Running::named(passages, "127.0.0.1", &["rag.example.org"]);
    let (at, body) = (server.address, r#"{"query": "alpha"}"#);
    let status = |headers: &[&str]| ask(at, "POST /retrieve", headers, body).0;
    assert_eq!(status(&["Host: rag.example.org", "Origin: https://rag.example.org"]), 200);
    assert_eq!(status(&["Host: 127.0.0.1", "Origin: https://rag.example.org"]), 200);
    assert_eq!(status(&["Host: other.example.org"]), 421);
    assert_eq!(status(&["Host: 127.0.0.1", "Origin: https://other.example.org"]), 403);
    server.end().unwrap();
    // What other machines can reach is called as they like.
    let server = Running::named(passages, "0.0.0.0", &[]);
    let at = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let status = |headers: &[&str]| ask(at, "POST /retrieve", headers, body).0;
    assert_eq!(status(&["Host: any.name"]), 200);
    assert_eq!(status(&["Host: any.name", "Origin: https://any.name"]), 200);
    assert_eq!(status(&["Host: any.name", "Origin: https://evil.example"]), 403);
    server.end().unwrap();
}
