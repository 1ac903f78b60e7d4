//! Listening, and ending in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, mpsc};
#[cfg(unix)]
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

use crate::answer;
use crate::callers::{Callers, guard};
use crate::dashboard::Dashboard;
use crate::openenv::{self, OpenEnv};
use crate::retrieval::Retrieval;

/// How long requests under way may take once the end was asked for.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// How long the head of a request may take to arrive, from when the connection is free for it.
const HEAD: Duration = Duration::from_secs(30);
/// How long what nobody waits for any more may take: an environment's processes, say, to end.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {host}:{port}: {source}{}", hint(source))]
    Bind {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused what a server needs.
    #[error("the server cannot run: {0}")]
    Run(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program listens there: end it, or choose another --port; 0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 are reserved: choose another --port)"
        }
        io::ErrorKind::AddrNotAvailable => {
            " (this machine has no such address: choose another --host)"
        }
        _ => "",
    }
}

/// What is served.
#[derive(Clone, Debug)]
pub struct Service {
    router: Router,
    /// What ends before the server does.
    lasting: Option<Lasting>,
    /// How callers are told that they may not ask; `None` where the service itself looks who they are.
    refusal: Option<fn(StatusCode, &str) -> Response>,
}

/// What outlives a request.
#[derive(Clone, Debug)]
enum Lasting {
    /// Sessions.
    Env(OpenEnv),
    /// Streams of changes.
    Dashboard(Dashboard),
}

impl Lasting {
    async fn end(&self) {
        match self {
            Self::Env(env) => env.end().await,
            Self::Dashboard(dashboard) => dashboard.end(),
        }
    }
}

impl From<Retrieval> for Service {
    fn from(retrieval: Retrieval) -> Self {
        Self { router: retrieval.router(), lasting: None, refusal: Some(answer::error) }
    }
}

impl From<OpenEnv> for Service {
    fn from(env: OpenEnv) -> Self {
        let refusal = Some(openenv::refused as fn(StatusCode, &str) -> Response);
        Self { router: env.router(), lasting: Some(Lasting::Env(env)), refusal }
    }
}

impl From<Dashboard> for Service {
    fn from(dashboard: Dashboard) -> Self {
        let lasting = Some(Lasting::Dashboard(dashboard.clone()));
        Self { router: dashboard.router(), lasting, refusal: None }
    }
}

/// An address that is taken; who connects waits.
#[derive(Debug)]
pub struct Listening {
    host: String,
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What answers there.
    pub fn serve(self, service: impl Into<Service>) -> Server {
        let Self { host, listener, address } = self;
        let (service, names) = (service.into(), Vec::new());
        Server { host, listener, address, service, names, head: HEAD }
    }
}

/// A server that listens, and answers once it [runs](Self::run).
#[derive(Debug)]
pub struct Server {
    host: String,
    listener: TcpListener,
    address: SocketAddr,
    service: Service,
    names: Vec<String>,
    head: Duration,
}

impl Server {
    /// Listens on a host (name or address) and port; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ServeError::Bind`].
    pub async fn bind(
        service: impl Into<Service>,
        host: &str,
        port: u16,
    ) -> Result<Self, ServeError> {
        Ok(Self::listen(host, port).await?.serve(service))
    }

    /// Listens before there is anything to serve.
    ///
    /// # Errors
    /// [`ServeError::Bind`].
    pub async fn listen(host: &str, port: u16) -> Result<Listening, ServeError> {
        let refused = |source| ServeError::Bind { host: host.to_owned(), port, source };
        let listener = TcpListener::bind((host, port)).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Listening { host: host.to_owned(), listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Further names by which environments and passages may be called: those of a proxy before them,
    /// say. Pages of these names may ask, pages of other sites may not; where nobody but this machine
    /// reaches the server, no other name but those of its loopback is answered.
    #[must_use]
    pub fn allow_hosts(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names);
        self
    }

    /// Answers until `stop` is ready; then takes no more connections, answers what was asked, and
    /// ends, after ten seconds at the latest.
    ///
    /// # Errors
    /// [`ServeError::Run`].
    pub async fn run(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let (end, ended) = oneshot::channel::<()>();
        let Service { mut router, lasting, refusal } = self.service;
        if let Some(refusal) = refusal {
            let open = !self.address.ip().to_canonical().is_loopback();
            let callers = Callers { open, listens: self.host, names: self.names, refusal };
            router = router.layer(from_fn_with_state(Arc::new(callers), guard));
        }
        let serving = tokio::spawn(answer(self.listener, router, self.head, ended));
        let connections = serving.abort_handle();
        stop.await;
        drop(end);
        // Sessions outlive the connections that they began as. One deadline is for all of it.
        let sessions = async {
            if let Some(lasting) = &lasting {
                lasting.end().await;
            }
        };
        let all = async { tokio::join!(serving, sessions).0 };
        let Ok(done) = tokio::time::timeout(LAST_REQUESTS, all).await else {
            connections.abort();
            return Ok(());
        };
        Ok(done.map_err(io::Error::other)?)
    }
}

/// Answers connections until the end, and then what they have asked. As `axum::serve`, which waits
/// for the head of a request as long as a client likes.
async fn answer(
    mut listener: TcpListener,
    router: Router,
    head: Duration,
    mut end: oneshot::Receiver<()>,
) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(head);
    // Every connection has a receiver for as long as it lasts.
    let (ending, asked) = watch::channel(false);
    loop {
        let (connection, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            _ = &mut end => break,
        };
        // Answers are written whole: nothing is gained by waiting for more.
        let _ = connection.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = protocol.serve_connection(TokioIo::new(connection), service);
        let mut asked = asked.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection.with_upgrades());
            // What goes wrong with a connection is its client's affair.
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = asked.wait_for(|ending| *ending) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        });
    }
    drop((listener, asked));
    ending.send_replace(true);
    ending.closed().await;
}

/// Ready when Ctrl-C is pressed or the process is asked to terminate; the second time, the process
/// ends at once with 130. Signals count from the call on.
pub fn interrupted() -> impl Future<Output = ()> + Send + 'static {
    let (tell, told) = oneshot::channel();
    let (ready, listening) = mpsc::channel::<()>();
    // A thread of its own hears the second one whatever the server's threads are at. Without it, the
    // first one ends the process.
    let _ =
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || -> io::Result<()> {
            Builder::new_current_thread().enable_all().build()?.block_on(async {
                let mut signals = Signals::new()?;
                drop(ready);
                signals.next().await;
                if tell.send(()).is_ok() {
                    signals.next().await;
                }
                std::process::exit(130);
            })
        });
    let _ = listening.recv();
    async {
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(vec![signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        std::future::poll_fn(|cx| {
            if self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps)]
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    #[allow(clippy::unused_self)]
    async fn next(&mut self) {
        drop(tokio::signal::ctrl_c().await);
    }
}

/// Does a server's work on so many threads, where so many sessions may each have a slow call under
/// way (0 without sessions). Calls that are still under way when it is done have two seconds more.
///
/// # Errors
/// [`ServeError::Run`].
pub fn block_on<T>(
    threads: usize,
    sessions: usize,
    work: impl Future<Output = T>,
) -> Result<T, ServeError> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        // A call too many would stop the thread that answers everybody else.
        .max_blocking_threads(sessions.saturating_add(64).max(512))
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // Dropped, it would wait for as long as they take.
    runtime.shutdown_timeout(LAST_CALLS);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::{Arc, Barrier};

    use empg_env::search::Corpus;

    use super::*;
    use crate::Limits;

    #[test]
    fn connections_that_do_not_ask_are_closed() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            block_on(2, 0, async {
                let retrieval =
                    Retrieval::new(Corpus::from_passages([("1", "a")]), Limits::default());
                let mut server = Server::bind(retrieval, "127.0.0.1", 0).await?;
                server.head = Duration::from_millis(300);
                tell.send(server.address()).unwrap();
                server.run(async { drop(ended.await) }).await
            })?
        });
        let address = told.recv().unwrap();
        let ask = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // Nothing, half a head, and half a head after a request that was answered.
        for said in [String::new(), ask[..20].to_owned(), format!("{ask}{}", &ask[..20])] {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.write_all(said.as_bytes()).unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).expect("the server closes");
            assert_eq!(heard.starts_with(b"HTTP/1.1 200"), said.len() > 20, "{heard:?}");
        }
        drop(end);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn all_sessions_may_have_a_slow_call_under_way() {
        let sessions = 600;
        let all = Arc::new(Barrier::new(sessions));
        let done = block_on(1, sessions, async {
            let calls: Vec<_> = (0..sessions)
                .map(|_| {
                    let all = Arc::clone(&all);
                    tokio::task::spawn_blocking(move || all.wait())
                })
                .collect();
            let calls = async {
                for call in calls {
                    call.await.unwrap();
                }
            };
            tokio::time::timeout(Duration::from_secs(20), calls).await
        });
        assert!(done.unwrap().is_ok(), "some calls wait for others");
    }
}
