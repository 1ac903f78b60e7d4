//! The server as its clients see it.

mod callers;
mod client;
mod dashboard;
mod openenv;
mod requests;
mod runs;
mod shutdown;

use std::net::SocketAddr;
use std::thread::JoinHandle;

use empg_env::search::Corpus;
use empg_serve::{Limits, Retrieval, ServeError, Server, Service, block_on};
use tokio::sync::oneshot;

/// Passages of the tests.
const PASSAGES: [(&str, &str); 4] = [
    ("10", "\"Alpha\"\nThe first letter is alpha."),
    ("9", "\"Beta\"\nThe second letter is beta, after alpha.\nIt has two lines."),
    ("2", "\"Same\"\nequal words here"),
    ("12", "\"Same\"\nequal words here"),
];

/// A server on a free port, on a thread of its own.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Running {
    fn start(corpus: Corpus, limits: Limits) -> Self {
        Self::serve(move || Retrieval::new(corpus, limits).into())
    }

    fn serve(service: impl FnOnce() -> Service + Send + 'static) -> Self {
        Self::named(service, "127.0.0.1", &[])
    }

    /// On a host, with further names.
    fn named(
        service: impl FnOnce() -> Service + Send + 'static,
        host: &'static str,
        names: &'static [&'static str],
    ) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let service = service();
            block_on(2, 0, async {
                let server = Server::bind(service, host, 0).await?;
                let server = server.allow_hosts(names.iter().map(|&name| name.to_owned()));
                tell.send(server.address()).expect("the test waits for the address");
                server.run(async { drop(stopped.await) }).await
            })?
        });
        let address = told.recv().expect("the server starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn small() -> Self {
        Self::start(Corpus::from_passages(PASSAGES), Limits::default())
    }

    /// Asks it to end, and waits until it has.
    fn end(mut self) -> Result<(), ServeError> {
        drop(self.stop.take());
        self.thread.take().expect("it ends once").join().expect("it does not panic")
    }
}
