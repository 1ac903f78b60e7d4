//! Who may look: a token where others can reach the server, names of this machine where not.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Shared;
use super::pages;
use super::query::Query;
use crate::callers::knows_host;

/// Fewest characters of a token that somebody chose.
const SHORTEST: usize = 12;
/// The cookie's name. Cookies know no ports: several dashboards of one machine share the jar, so the
/// name holds a part of what tells them apart.
const COOKIE: &str = "empg_dashboard";

/// What visitors have to know.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A token that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Too short to be hard to guess.
    #[error("a token needs at least {SHORTEST} characters; leave it out to have one made")]
    Short,
    /// It could not stand in an address or a cookie.
    #[error("a token consists of letters, digits, '-', '.', '_' and '~'")]
    Characters,
    /// The system gave no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl Token {
    /// A token of one's own.
    ///
    /// # Errors
    /// [`TokenError::Short`], [`TokenError::Characters`].
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
            return Err(TokenError::Characters);
        }
        if text.len() < SHORTEST {
            return Err(TokenError::Short);
        }
        Ok(Self(text.to_owned()))
    }

    /// A random one of 192 bits.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn random() -> Result<Self, TokenError> {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| TokenError::Random(e.to_string()))?;
        Ok(Self(bytes.iter().map(|b| char::from(LETTERS[usize::from(b % 64)])).collect()))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether a guess is right; how long it takes does not depend on where it is wrong.
    fn is(&self, guess: &str) -> bool {
        let (own, guess) = (self.0.as_bytes(), guess.as_bytes());
        let mut wrong = own.len() ^ guess.len();
        for (i, byte) in own.iter().enumerate() {
            wrong |= usize::from(byte ^ guess.get(i).copied().unwrap_or_default());
        }
        std::hint::black_box(wrong) == 0
    }
}

/// The rules of one dashboard.
#[derive(Debug)]
pub(super) struct Access {
    token: Option<Token>,
    hosts: Option<Vec<String>>,
    cookie: String,
}

impl Access {
    pub(super) fn new(token: Option<Token>, hosts: Option<Vec<String>>) -> Self {
        // Six letters of a hash: enough to tell two dashboards apart, no help in guessing.
        let hash = token
            .iter()
            .flat_map(|t| t.text().bytes())
            .fold(0xcbf29ce484222325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3));
        Self { token, hosts, cookie: format!("{COOKIE}_{:06x}", hash >> 40) }
    }

    /// Whether the name by which the server was called is one of its own.
    fn knows_host(&self, headers: &HeaderMap) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        knows_host(hosts, headers)
    }

    /// Whether a request shows the token, as header or cookie.
    fn shows_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|h| h.to_str().ok()?.strip_prefix("Bearer "))
            .is_some_and(|guess| token.is(guess.trim()));
        bearer
            || headers
                .get_all(header::COOKIE)
                .iter()
                .filter_map(|h| h.to_str().ok())
                .flat_map(|cookies| cookies.split(';'))
                .filter_map(|cookie| cookie.trim().split_once('='))
                .any(|(name, value)| name == self.cookie && token.is(value))
    }
}

/// Lets a request through, or says why not.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match refuse(&shared.access, &request) {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    response
}

fn refuse(access: &Access, request: &Request) -> Option<Response> {
    let headers = request.headers();
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused =
            pages::error(StatusCode::METHOD_NOT_ALLOWED, "the dashboard only shows: GET and HEAD");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(refused);
    }
    if !access.knows_host(headers) {
        return Some(pages::error(
            StatusCode::MISDIRECTED_REQUEST,
            "this name is not one of the dashboard's: call it by localhost or 127.0.0.1, or start it \
             with --host NAME",
        ));
    }
    // What another site's page asks for; browsers tell.
    let site = headers.get("sec-fetch-site").and_then(|s| s.to_str().ok());
    if path != "/" && matches!(site, Some("cross-site" | "same-site")) {
        return Some(pages::error(StatusCode::FORBIDDEN, "other sites' pages may not ask"));
    }
    if let Some(token) = &access.token
        && path == "/"
        && let Some(guess) =
            request.uri().query().map(Query::parse).as_ref().and_then(|q| q.get("token"))
        && token.is(guess)
    {
        // The token goes from the address into a cookie, so that it stays out of histories.
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000",
            access.cookie,
            token.text()
        );
        let headers = [(header::LOCATION, "/"), (header::SET_COOKIE, cookie.as_str())];
        return Some((StatusCode::SEE_OTHER, headers).into_response());
    }
    if !access.shows_token(headers) {
        return Some(pages::locked(path));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        let token = Token::new("abcdefghijkl").unwrap();
        assert!(token.is("abcdefghijkl"));
        for wrong in ["", "abcdefghijk", "abcdefghijklm", "abcdefghijkL", "bbcdefghijkl"] {
            assert!(!token.is(wrong), "{wrong}");
        }
        assert_eq!(Token::new("short"), Err(TokenError::Short));
        for bad in ["with space inside", "semicolon;semicolon", "ünïcode-ünïcode"] {
            assert_eq!(Token::new(bad), Err(TokenError::Characters));
        }
        let (a, b) = (Token::random().unwrap(), Token::random().unwrap());
        assert!(a != b && Token::new(a.text()).is_ok() && a.text().len() == 32);
        assert!(!format!("{a:?}").contains(a.text()));
    }
}
