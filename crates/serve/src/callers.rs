//! Who may call: neither another site's page, nor anybody by a name that somebody else pointed here.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

/// The name of `NAME:PORT`, brackets around an address taken off.
fn name_of(authority: &str) -> &str {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    name.trim_start_matches('[').trim_end_matches(']')
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

/// Whether the name by which a server was called is one of this machine's loopback or of the names:
/// another site may have pointed a name of its own to this machine.
pub(crate) fn knows_host(names: &[String], headers: &HeaderMap) -> bool {
    host(headers).is_some_and(|host| {
        let name = name_of(host);
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            || is_among(names, name)
    })
}

fn is_among(names: &[String], name: &str) -> bool {
    // They are names or addresses alone: a colon is no port's.
    let bare = |own: &str| own.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    names.iter().any(|own| bare(own) == name.to_ascii_lowercase())
}

/// Whether a request comes from no page, or from a page of the server's own. Every browser names the
/// page's site with what may change something and with a WebSocket; other clients name none, or where
/// they call.
fn is_own_page(names: &[String], headers: &HeaderMap) -> bool {
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let Some((scheme, site)) = origin.to_str().ok().and_then(|o| o.split_once("://")) else {
            return false;
        };
        let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        let bare = |authority: &str| {
            authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase()
        };
        host(headers).is_some_and(|host| bare(host) == bare(site)) || is_among(names, name_of(site))
    })
}

/// The rules of a server without a password.
#[derive(Debug)]
pub(crate) struct Callers {
    /// Whether others can reach the server, by names that it does not know.
    pub(crate) open: bool,
    /// Where it listens.
    pub(crate) listens: String,
    /// Further names by which it may be called.
    pub(crate) names: Vec<String>,
    /// How the service says no.
    pub(crate) refusal: fn(StatusCode, &str) -> Response,
}

impl Callers {
    fn refuse(&self, headers: &HeaderMap) -> Option<(StatusCode, String)> {
        // Every browser says whom it calls; a proxy that asks for health may not.
        let named = headers.contains_key(header::HOST);
        let listens = std::slice::from_ref(&self.listens);
        let known =
            || self.open || knows_host(&self.names, headers) || knows_host(listens, headers);
        if named && !known() {
            let name: String = name_of(host(headers).unwrap_or("NAME")).chars().take(100).collect();
            let what = format!(
                "{name} is not a name of this server: call it by localhost or 127.0.0.1, or start it \
                 with --allow-host {name}"
            );
            return Some((StatusCode::MISDIRECTED_REQUEST, what));
        }
        if !is_own_page(&self.names, headers) {
            let origin = headers.get(header::ORIGIN).and_then(|o| o.to_str().ok());
            let site: String = origin.unwrap_or("another site").chars().take(100).collect();
            let what = format!(
                "pages of {site} may not ask (Origin): only the server's own may, and what is no page. \
                 If the server stands behind that name, start it with --allow-host and the name"
            );
            return Some((StatusCode::FORBIDDEN, what));
        }
        None
    }
}

/// Lets a request through, or says why not.
pub(crate) async fn guard(
    State(callers): State<Arc<Callers>>,
    request: Request,
    next: Next,
) -> Response {
    match callers.refuse(request.headers()) {
        Some((status, what)) => (callers.refusal)(status, &what),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::response::IntoResponse as _;

    use super::*;

    fn headers(host: &str, origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if value != "-" {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        headers
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let names = ["box.lan", "[fd00::1]", "fd00::12"].map(str::to_owned);
        let knows = |host| knows_host(&names, &headers(host, "-"));
        for own in [
            "localhost",
            "LOCALHOST:7000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:80",
            "Box.lan:8",
            "[fd00::1]:8000",
            "[fd00::12]:8000",
            "[fd00::12]",
        ] {
            assert!(knows(own), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "",
            ":",
            "-",
        ] {
            assert!(!knows(other), "{other}");
        }
    }

    #[test]
    fn pages_of_others_may_not_ask() {
        let names = ["env.example.org".to_owned()];
        for (host, origin) in [
            ("localhost:8000", "-"),
            ("localhost:8000", "http://localhost:8000"),
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("Localhost", "http://localhost:80"),
            ("[::1]:8000", "http://[::1]:8000"),
            // A proxy that ends the encryption.
            ("other.example", "https://other.example"),
            ("other.example:443", "https://other.example"),
            // One that calls us by an address.
            ("10.0.0.5:8000", "https://env.example.org"),
            ("10.0.0.5:8000", "https://Env.example.org:8443"),
        ] {
            assert!(is_own_page(&names, &headers(host, origin)), "{host} {origin}");
        }
        for (host, origin) in [
            ("localhost:8000", "http://localhost:3000"),
            ("localhost:8000", "http://evil.example"),
            ("localhost:8000", "http://localhost:8000.evil.example"),
            ("localhost:8000", "null"),
            ("localhost:8000", ""),
            ("localhost:8000", "file://"),
            ("-", "http://evil.example"),
            ("10.0.0.5:8000", "https://env.example.org.evil.example"),
        ] {
            assert!(!is_own_page(&names, &headers(host, origin)), "{host} {origin}");
        }
    }

    #[test]
    fn what_others_can_reach_has_any_name_but_no_pages_of_others() {
        let callers = |open| Callers {
            open,
            listens: "box.lan".to_owned(),
            names: Vec::new(),
            refusal: |status, _| status.into_response(),
        };
        let status = |open, host, origin| {
            callers(open).refuse(&headers(host, origin)).map(|(status, what)| {
                assert!(what.contains("--allow-host"), "{what}");
                status.as_u16()
            })
        };
        for (open, host, origin, refused) in [
            (false, "localhost:8", "-", None),
            (false, "box.lan:8", "-", None),
            (false, "-", "-", None),
            (false, "evil.example:8", "-", Some(421)),
            (false, "evil.example:8", "http://evil.example:8", Some(421)),
            (true, "evil.example:8", "-", None),
            (true, "box:8", "http://box:8", None),
            (true, "box:8", "http://evil.example", Some(403)),
        ] {
            assert_eq!(status(open, host, origin), refused, "{open} {host} {origin}");
        }
    }
}
