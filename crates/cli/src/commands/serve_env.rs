//! `empg serve env`: an environment as an OpenEnv server.

use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use empg_env::Split;
use empg_env::alfworld::DataVersion;
use empg_serve::{OpenEnv, ServeError, Server, SessionLimits, block_on, interrupted};
use serde_json::json;

#[derive(Args, Debug)]
#[command(after_help = "\
Every WebSocket at /ws is a session with an environment of its own; POST /reset
and /step are stateless, as OpenEnv defines them. reset takes seed (equal
seeds, equal tasks), split, task_id and episode_id; an action is {\"text\":
\"...\"}. The first line of stdout is the address. Ctrl-C ends the server.

Examples:
  empg serve env households
  empg serve env alfworld --data ~/.cache/alfworld --port 0 --json
  empg serve env stdio --command 'python my_env.py'
  empg train --env openenv --url http://127.0.0.1:8000")]
pub(crate) struct EnvArgs {
    #[command(flatten)]
    which: super::env::Which,
    #[command(flatten)]
    rules: super::env::RuleArgs,
    /// What a reset plays that names no split: train, seen (valid_seen) or unseen (valid_unseen); where
    /// it is left out train, and of stdio and openenv what the seed says
    #[arg(long, value_parser = super::env::split)]
    split: Option<Split>,
    /// alfworld, households: whose texts, 2.1.1 or 2.1.2+ [default: 2.1.2+]
    #[arg(long)]
    data_version: Option<DataVersion>,
    /// Steps before an episode ends (50; webshop 15, search 4, generated 6)
    #[arg(long)]
    max_steps: Option<u32>,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Address or name to listen on; other machines reach the server only if it is one of theirs to
    /// reach (0.0.0.0: all)
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// A name, besides localhost and --host, by which the server may be called and whose pages may
    /// ask: that of a proxy before it, say (several: repeat it)
    #[arg(long, value_name = "NAME", value_parser = super::serve::host_name)]
    allow_host: Vec<String>,
    /// Sessions at a time
    #[arg(long, value_name = "N", default_value_t = SessionLimits::default().sessions)]
    sessions: usize,
    /// A session ends after so many seconds without a message; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
    idle: f64,
    /// Bytes of a message at most
    #[arg(long, value_name = "BYTES", default_value_t = SessionLimits::default().message)]
    max_message: usize,
    /// Threads; by default one per core
    #[arg(long)]
    threads: Option<usize>,
}

/// Serves until it is interrupted.
pub(crate) fn run(args: EnvArgs, json: bool) -> anyhow::Result<()> {
    let EnvArgs {
        which,
        rules,
        split,
        data_version,
        max_steps,
        port,
        host,
        allow_host,
        sessions,
        idle,
        max_message,
        threads,
    } = args;
    if !(1..=1 << 20).contains(&sessions) {
        bail!("--sessions {sessions}: must be in 1..=1048576");
    }
    let idle = match Duration::try_from_secs_f64(idle) {
        Ok(Duration::ZERO) => None,
        Ok(idle) => Some(idle),
        Err(_) => bail!("--idle {idle}: must be a number of seconds, 0 or more"),
    };
    let limits = SessionLimits { sessions, idle, message: max_message, ..SessionLimits::default() };
    // A port that is taken is told before a large catalogue is read.
    drop(TcpListener::bind((host.as_str(), port)).map_err(|source| {
        let host = host.clone();
        ServeError::Bind { host, port, source }
    })?);
    let tasks = which.tasks(&rules, data_version, max_steps)?;
    let count = tasks.len(split.unwrap_or(Split::Train));
    let env = OpenEnv::new(tasks, split, limits)?;
    let threads = threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    block_on(threads, sessions, async {
        // Before the address is told, so that whoever reads it may end the server at once.
        let end = interrupted();
        let server = Server::bind(env, &host, port).await?.allow_hosts(allow_host);
        let address = server.address();
        let url = format!("http://{address}");
        if json {
            let line = json!({"url": url, "env": which.env, "tasks": count, "sessions": sessions});
            crate::output::line(&line.to_string())?;
        } else {
            crate::output::line(&url)?;
        }
        if !is_loopback(address.ip()) {
            crate::say!(
                "warning: whoever reaches {address} can play without a password; 127.0.0.1 is for \
                 this machine alone"
            );
        }
        crate::say!("serving {} at {url}, sessions at /ws; Ctrl-C ends", which.env);
        server
            .run(async {
                end.await;
                crate::say!("ending: sessions are closed (Ctrl-C again ends at once)");
            })
            .await
            .context("serving")
    })?
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
