//! Listening, and ending in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::dashboard::Dashboard;
use crate::openenv::OpenEnv;
use crate::retrieval::Retrieval;

/// How long requests under way may take once the end was asked for.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

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
        Self { router: retrieval.router(), lasting: None }
    }
}

impl From<OpenEnv> for Service {
    fn from(env: OpenEnv) -> Self {
        Self { router: env.router(), lasting: Some(Lasting::Env(env)) }
    }
}

impl From<Dashboard> for Service {
    fn from(dashboard: Dashboard) -> Self {
        Self { router: dashboard.router(), lasting: Some(Lasting::Dashboard(dashboard)) }
    }
}

/// An address that is taken; who connects waits.
#[derive(Debug)]
pub struct Listening {
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
        let Self { listener, address } = self;
        Server { listener, address, service: service.into() }
    }
}

/// A server that listens, and answers once it [runs](Self::run).
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    service: Service,
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
        Ok(Listening { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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
        let Service { router, lasting } = self.service;
        // Answers are written whole: nothing is gained by waiting for more.
        let listener = self.listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let mut serving = tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(async move { drop(ended.await) })
                .await
        });
        let leaving = lasting.clone();
        let stopping = tokio::spawn(async move {
            stop.await;
            drop(end);
            // Sessions outlive the connections that they began as.
            if let Some(leaving) = leaving {
                let _ = tokio::time::timeout(LAST_REQUESTS, leaving.end()).await;
            }
            tokio::time::sleep(LAST_REQUESTS).await;
        });
        // Whichever is first: all is answered, or time is up.
        let mut stopping = pin!(stopping);
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut serving).poll(cx) {
                return Poll::Ready(done.unwrap_or_else(|e| Err(io::Error::other(e))));
            }
            stopping.as_mut().poll(cx).map(|_| Ok(()))
        })
        .await;
        // All requests may be answered before the last session has said goodbye.
        if let Some(lasting) = lasting {
            let _ = tokio::time::timeout(LAST_REQUESTS, lasting.end()).await;
        }
        stopping.abort();
        serving.abort();
        Ok(result?)
    }
}

/// Ready when Ctrl-C is pressed or the process is asked to terminate. To be called within a
/// [`runtime`]; signals count from the call on.
#[cfg(unix)]
pub fn interrupted() -> impl Future<Output = ()> + Send + 'static {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals: Vec<_> = [SignalKind::interrupt(), SignalKind::terminate()]
        .into_iter()
        .filter_map(|kind| signal(kind).ok())
        .collect();
    std::future::poll_fn(move |cx| {
        if signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
}

/// Ready when Ctrl-C is pressed.
#[cfg(not(unix))]
pub fn interrupted() -> impl Future<Output = ()> + Send + 'static {
    async { drop(tokio::signal::ctrl_c().await) }
}

/// The threads that a server runs on.
///
/// # Errors
/// [`ServeError::Run`].
pub fn runtime(threads: usize) -> Result<Runtime, ServeError> {
    Ok(Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build()?)
}
