//! A dashboard for the browser.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use empg_serve::{Dashboard, DashboardOptions, ServeError, Server, block_on};
use tokio::sync::oneshot;

pub(crate) struct Served {
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Served {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::at(folder, 0)
    }

    /// On a port that may have been another's.
    pub(crate) fn at(folder: &Path, port: u16) -> Self {
        let folder = folder.to_owned();
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            block_on(2, 0, async {
                let options = DashboardOptions {
                    interval: Duration::from_millis(100),
                    ..DashboardOptions::default()
                };
                let dashboard = Dashboard::open(&folder, options).expect("the folder is there");
                let server = Server::bind(dashboard, "127.0.0.1", port).await?;
                tell.send(server.address()).expect("the test waits");
                server.run(async { drop(stopped.await) }).await
            })?
        });
        let url = format!("http://{}", told.recv().expect("the server starts"));
        Self { url, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("it does not panic").expect("it ends in order");
            }
        }
    }
}
