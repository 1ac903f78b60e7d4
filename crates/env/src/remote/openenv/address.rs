//! Where a server is.

use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::EnvError;

/// A server's address, in the forms in which it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `http://HOST:PORT/PATH`, without a slash at its end.
    pub(super) http: String,
    /// `ws://HOST:PORT/PATH/ws`.
    pub(super) socket: String,
    host: String,
    port: u16,
}

impl Address {
    /// Reads `http://HOST[:PORT][/PATH]`; `ws://` and no scheme at all mean the same.
    ///
    /// # Errors
    /// Encrypted addresses, which are not supported, and what is no address.
    pub(super) fn read(url: &str) -> Result<Self, EnvError> {
        let refuse = |what: &str| EnvError::Failed(format!("env.url {url:?}: {what}"));
        let expected = || refuse("expected http://HOST:PORT");
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => {}
            "https" | "wss" => {
                return Err(refuse(
                    "encrypted connections are not supported: run the server in your own \
                     network, or a proxy that takes http",
                ));
            }
            _ => return Err(expected()),
        }
        let rest = rest.trim_end_matches('/');
        let rest = rest.strip_suffix("/ws").unwrap_or(rest);
        if rest.chars().any(|c| c.is_whitespace() || c.is_control() || "?#@".contains(c)) {
            return Err(expected());
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            // Colons inside of brackets belong to an address of IPv6.
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| expected())?)
            }
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(expected());
        }
        Ok(Self {
            http: format!("http://{rest}"),
            socket: format!("ws://{rest}/ws"),
            host: host.to_owned(),
            port,
        })
    }

    /// The addresses behind the name.
    pub(super) fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        let read = |url: &str| Address::read(url).unwrap();
        for url in ["http://a.org:80", "a.org", "ws://a.org:80/", "http://a.org/ws"] {
            let address = read(url);
            assert_eq!((address.host.as_str(), address.port), ("a.org", 80), "{url}");
        }
        let address = read("http://[::1]:8000/env/");
        assert_eq!(address.http, "http://[::1]:8000/env");
        assert_eq!(address.socket, "ws://[::1]:8000/env/ws");
        assert_eq!((address.host.as_str(), address.port), ("::1", 8000));
        for (url, part) in [
            ("https://a.org", "not supported"),
            ("wss://a.org", "not supported"),
            ("ftp://a.org", "expected http://"),
            ("http://", "expected http://"),
            ("http://a b", "expected http://"),
            ("http://a.org:port", "expected http://"),
            ("http://a.org:99999", "expected http://"),
        ] {
            let error = Address::read(url).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(url), "{error}");
        }
    }
}
