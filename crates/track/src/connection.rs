//! One server, spoken to by JSON over HTTP.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

use crate::{Result, TrackError};

/// Longest answer that is read. A run's latest metrics come whole.
const LONGEST_ANSWER: u64 = 64 << 20;
/// Longest text of a refusal that is passed on.
const LONGEST_WORDS: usize = 300;

/// Where a tracking server is: `http://` or `https://`, with or without a path before MLflow's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Without a slash at its end and without credentials.
    url: String,
    credentials: Credentials,
}

/// How a client shows who it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// A name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Bearer(String),
}

/// Nothing of it may reach a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// Which servers are believed to be who they say they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those with a certificate of a public authority.
    #[default]
    Public,
    /// Those with a certificate of the authorities in this PEM file.
    File(PathBuf),
    /// All of them.
    Everyone,
}

impl Address {
    /// Reads an address. Credentials may stand in it (`http://name:password@host`).
    ///
    /// # Errors
    /// [`TrackError::Address`]: another scheme (a folder or a database, which only MLflow itself
    /// writes), no host, white space.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |what: &str| {
            // What stands before an @ may be a password.
            let address = match text.rsplit_once('@') {
                Some((_, host)) => format!("…@{host}"),
                None => text.to_owned(),
            };
            Err(TrackError::Address { address, what: what.to_owned() })
        };
        let expected = "expected http://HOST:PORT or https://HOST (`mlflow server` starts one)";
        let Some((scheme, rest)) = text.split_once("://") else { return refuse(expected) };
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return refuse(&format!(
                "{expected}; folders, databases and Databricks are written by MLflow's own client"
            ));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("it has white space in it");
        }
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if path.contains(['?', '#']) {
            return refuse("it has a query or a fragment; the server's address is enough");
        }
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((before, host)) => {
                let (user, password) = before.split_once(':').unwrap_or((before, ""));
                let plain = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
                (Credentials::Basic { user: plain(user), password: plain(password) }, host)
            }
            None => (Credentials::None, authority),
        };
        if host.is_empty() || host.starts_with(':') {
            return refuse(expected);
        }
        let url = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
        if url.parse::<http::Uri>().is_err() {
            return refuse(expected);
        }
        Ok(Self { url, credentials })
    }

    /// The address, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether credentials stood in the text.
    pub fn has_credentials(&self) -> bool {
        self.credentials != Credentials::None
    }

    /// Whether it is this very machine.
    fn is_loopback(&self) -> bool {
        let host = self.url.split("://").nth(1).unwrap_or_default();
        let host = host.split('/').next().unwrap_or_default();
        host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
    }
}

/// A client of one server.
#[derive(Debug)]
pub(crate) struct Connection {
    address: Address,
    authorization: Option<String>,
    agent: Agent,
}

impl Connection {
    /// Makes a client; the first request connects. Credentials in the address stand over the given
    /// ones.
    pub(crate) fn new(
        address: Address,
        credentials: &Credentials,
        trust: &Trust,
        timeout: Duration,
    ) -> Result<Self> {
        let own = address.has_credentials().then_some(&address.credentials);
        let authorization = match own.unwrap_or(credentials) {
            Credentials::None => None,
            Credentials::Basic { user, password } => {
                let plain = format!("{user}:{password}");
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain)))
            }
            Credentials::Bearer(token) => Some(format!("Bearer {token}")),
        };
        if authorization.as_ref().is_some_and(|a| http::HeaderValue::from_str(a).is_err()) {
            return Err(TrackError::Address {
                address: address.url,
                what: "its token has characters that no request can carry".to_owned(),
            });
        }
        let tls = TlsConfig::builder();
        let tls = match trust {
            Trust::Public => tls,
            Trust::Everyone => tls.disable_verification(true),
            Trust::File(path) => tls.root_certs(certificates(path)?),
        };
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(Duration::from_secs(10))))
            .http_status_as_error(false)
            // A server that moved is told of: most redirections would make a question of a command.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls.build());
        // What the environment says about proxies is for servers elsewhere.
        let config = if address.is_loopback() { config.proxy(None) } else { config };
        Ok(Self { authorization, agent: config.build().into(), address })
    }

    pub(crate) fn url(&self) -> &str {
        &self.address.url
    }

    /// Asks with parameters in the address.
    pub(crate) fn get(&self, call: &'static str, query: &[(&str, &str)]) -> Result<Value> {
        let mut request = self.agent.get(self.at(call));
        for (key, value) in query {
            request = request.query(*key, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.answer(call, request.call())
    }

    /// Asks with a JSON body.
    pub(crate) fn post(&self, call: &'static str, body: &Value) -> Result<Value> {
        let mut request = self.agent.post(self.at(call)).header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.answer(call, request.send(body.to_string().as_bytes()))
    }

    fn at(&self, call: &str) -> String {
        format!("{}/api/2.0/mlflow/{call}", self.address.url)
    }

    fn answer(
        &self,
        call: &'static str,
        sent: Result<http::Response<Body>, ureq::Error>,
    ) -> Result<Value> {
        let address = || self.address.url.clone();
        let lost = |error: ureq::Error| {
            let (address, what) = (address(), error.to_string());
            match error {
                // What TLS says of the other side.
                ureq::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
                    TrackError::Untrusted { address, what }
                }
                ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => {
                    TrackError::Untrusted { address, what }
                }
                _ => TrackError::Unreachable { address, what },
            }
        };
        let mut response = sent.map_err(lost)?;
        let status = response.status().as_u16();
        let elsewhere = response.headers().get("location").filter(|_| (300..400).contains(&status));
        if let Some(place) = elsewhere.and_then(|place| place.to_str().ok()) {
            let message = format!("it has moved to {}", start_of(place, LONGEST_WORDS));
            let (address, code) = (address(), String::new());
            return Err(TrackError::Refused { address, call, status, code, message });
        }
        let text = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        if !(200..300).contains(&status) {
            let (code, message) = refusal(&text.unwrap_or_default());
            return Err(TrackError::Refused { address: address(), call, status, code, message });
        }
        let text = text.map_err(lost)?;
        let value: Result<Value, _> = serde_json::from_str(&text);
        value.ok().filter(Value::is_object).ok_or_else(|| TrackError::NotMlflow {
            address: address(),
            call,
            what: format!("the answer begins with {:?}", start_of(&text, 60)),
        })
    }

    /// An answer that lacks what it must have.
    pub(crate) fn lacking(&self, call: &'static str, what: &str) -> TrackError {
        let what = format!("the answer has no {what}");
        TrackError::NotMlflow { address: self.address.url.clone(), call, what }
    }
}

fn certificates(path: &PathBuf) -> Result<RootCerts> {
    let refuse = |what: String| TrackError::Certificate { path: path.clone(), what };
    let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| refuse(e.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(refuse("there is none in it (PEM is expected)".to_owned()));
    }
    Ok(RootCerts::from(found))
}

/// MLflow's name of an error and its words; of a stranger's page, its beginning.
fn refusal(text: &str) -> (String, String) {
    let parsed: Value = serde_json::from_str(text).unwrap_or_default();
    let part = |key: &str| parsed.get(key).and_then(Value::as_str).unwrap_or_default();
    match (part("error_code"), part("message")) {
        ("", "") => (String::new(), start_of(text.trim(), LONGEST_WORDS)),
        (code, message) => (code.to_owned(), start_of(message.trim(), LONGEST_WORDS)),
    }
}

fn start_of(text: &str, limit: usize) -> String {
    let start: String = text.chars().take(limit).collect();
    if start.len() < text.len() { start + "…" } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_credentials_taken_out() {
        for (text, url) in [
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("HTTPS://mlflow.example.org/", "https://mlflow.example.org"),
            ("http://host/team/mlflow//", "http://host/team/mlflow"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("http://a%40b:p%3Aw@host:1/x", "http://host:1/x"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.url(), url);
            assert_eq!(address.has_credentials(), text.contains('@'));
        }
        let address = Address::parse("http://a%40b:p%3Aw@host:1/x").unwrap();
        let basic = Credentials::Basic { user: "a@b".into(), password: "p:w".into() };
        assert_eq!(address.credentials, basic);
        assert!(!format!("{address:?}").contains("p:w"));
    }

    #[test]
    fn what_is_no_address_is_said_without_its_password() {
        for text in [
            "",
            "mlruns",
            "sqlite:///m.db",
            "databricks://profile",
            "http://",
            "http://:5000",
            "http://a b",
            "http://host/?x=1",
            "http://ho\nst",
            "http://name:secret@",
            "host:5000",
            "ftp://name:secret@host",
            "http://ho[st",
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn files_without_certificates_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for text in [None, Some("nonsense"), Some("-----BEGIN CERTIFICATE-----\n!\n")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let address = Address::parse("https://host").unwrap();
            let trust = Trust::File(path.clone());
            let made = Connection::new(address, &Credentials::None, &trust, Duration::from_secs(1));
            assert!(made.unwrap_err().to_string().contains("ca.pem"));
        }
    }

    #[test]
    fn refusals_are_told_in_mlflows_words_or_the_pages() {
        let (code, message) = refusal(r#"{"error_code": "INVALID", "message": "no such run"}"#);
        assert_eq!((code.as_str(), message.as_str()), ("INVALID", "no such run"));
        assert_eq!(refusal("<html>Bad gateway</html>").1, "<html>Bad gateway</html>");
        assert_eq!(refusal(&"ü".repeat(400)).1.chars().count(), LONGEST_WORDS + 1);
    }
}
