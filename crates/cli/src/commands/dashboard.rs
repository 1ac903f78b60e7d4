//! `empg dashboard`: runs in a browser, while they train and afterwards.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use empg_serve::{Dashboard, DashboardOptions, Server, Token, block_on, interrupted};
use serde_json::json;

/// Arguments of `empg dashboard`.
#[derive(Args, Debug)]
#[command(after_help = "\
The list, the curves and the credit of every step follow training as it goes;
runs that appear in the folder are picked up. Nothing is written. The first
line of stdout is the address to open; where other machines can reach it
(--host), it holds a token that visitors need. Over ssh, a tunnel needs none:
  ssh -L 7878:localhost:7878 MACHINE

Examples:
  empg dashboard
  empg dashboard runs/ --port 0 --json
  empg dashboard runs/ --host 0.0.0.0")]
pub(crate) struct DashboardArgs {
    /// The folder that holds the runs
    #[arg(value_name = "RUNS", default_value = "runs")]
    folder: PathBuf,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 7878)]
    port: u16,
    /// Address or name to listen on; other machines reach the server only if it is one of theirs to
    /// reach (0.0.0.0: all)
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// What visitors need to know; made up where other machines can reach the server
    #[arg(long, env = "EMPG_DASHBOARD_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Serves until it is interrupted.
pub(crate) fn run(args: DashboardArgs, json: bool) -> anyhow::Result<()> {
    let DashboardArgs { folder, port, host, token } = args;
    let given = token.as_deref().map(Token::new).transpose().context("--token")?;
    // Signals count from here on, so that whoever reads the address may end the server at once.
    block_on(2, 0, async {
        let end = interrupted();
        // The address is known, and a port that is taken told, before the runs are read.
        let listening = Server::listen(&host, port).await?;
        let address = listening.address();
        let alone = is_loopback(address.ip());
        let token = match given {
            None if !alone => Some(Token::random()?),
            given => given,
        };
        let hosts = alone.then(|| vec![host.clone()]);
        let options = DashboardOptions { token: token.clone(), hosts, ..Default::default() };
        let dashboard = Dashboard::open(&folder, options)?;
        let runs = dashboard.runs();
        let unspecified = address.ip().is_unspecified();
        let visible = if unspecified {
            format!("http://127.0.0.1:{}", address.port())
        } else {
            format!("http://{address}")
        };
        let url = match &token {
            Some(token) => format!("{visible}/?token={}", token.text()),
            None => visible,
        };
        if json {
            let token = token.as_ref().map(Token::text);
            let line = json!({ "url": url, "runs": runs, "token": token });
            crate::output::line(&line.to_string())?;
        } else {
            crate::output::line(&url)?;
        }
        if !alone {
            let port = address.port();
            if unspecified {
                crate::say!(
                    "from other machines: this machine's name or address in the place of 127.0.0.1"
                );
            }
            crate::say!(
                "warning: whoever has the address with its token sees all runs, and the line is not \
                 encrypted; ssh -L {port}:localhost:{port} to a dashboard on 127.0.0.1 is"
            );
        }
        let s = if runs == 1 { "" } else { "s" };
        crate::say!("{runs} run{s} in {}; Ctrl-C ends", folder.display());
        let serving = listening.serve(dashboard).run(async {
            end.await;
            crate::say!("ending");
        });
        serving.await.context("serving")
    })?
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
