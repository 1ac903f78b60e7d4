//! `empg serve`: what others can ask over HTTP.

use std::net::{Ipv6Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use empg_env::search::{Corpus, Found};
use empg_serve::{Limits, Retrieval, ServeError, Server, block_on, interrupted};
use serde_json::json;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  empg serve env households
  empg serve retrieval --corpus wiki.jsonl.gz")]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Passages of a corpus by BM25, for Search-R1, verl-agent and what speaks like them
    Retrieval(RetrievalArgs),
    /// An environment as an OpenEnv server, for TRL, SkyRL, verl and what else connects to one
    Env(Box<super::serve_env::EnvArgs>),
}

#[derive(Args, Debug)]
#[command(after_help = "\
POST /retrieve takes Search-R1's {\"queries\": [...], \"topk\": 3, \"return_scores\": true} and
verl-agent's {\"query\": \"...\", ...}; GET /health tells whether the server is up. The first line of
stdout is the address. Ctrl-C ends the server once the requests under way are answered.

Examples:
  empg serve retrieval --corpus wiki.jsonl.gz
  empg serve retrieval --data DIR --port 0 --json
  curl -s localhost:8000/retrieve -d '{\"queries\": [\"who wrote Hamlet?\"], \"topk\": 3}'")]
struct RetrievalArgs {
    /// Passages: {"id", "contents"} lines (.jsonl or .jsonl.gz), contents beginning with "Title"
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    corpus: Option<PathBuf>,
    /// A folder with such a file
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Address or name to listen on; other machines reach the server only if it is one of theirs to
    /// reach (0.0.0.0: all)
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// A name, besides localhost and --host, by which the server may be called and whose pages may
    /// ask: that of a proxy before it, say (several: repeat it)
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    allow_host: Vec<String>,
    /// Passages per query where a request names no number
    #[arg(long, default_value_t = 3)]
    topk: usize,
    /// Bytes of a request at most
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().body)]
    max_request: usize,
    /// Threads; by default one per core
    #[arg(long)]
    threads: Option<usize>,
}

/// A name or address without scheme, port and path.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let name = text.trim_start_matches('[').trim_end_matches(']');
    let legal = |c: char| c.is_alphanumeric() || "-._".contains(c);
    if !name.is_empty() && name.chars().all(legal) || name.parse::<Ipv6Addr>().is_ok() {
        Ok(name.to_owned())
    } else {
        Err("a name or an address alone, as in env.example.org".to_owned())
    }
}

/// Serves until it is interrupted.
pub(crate) fn run(args: ServeArgs, json: bool) -> anyhow::Result<()> {
    match args.what {
        What::Retrieval(args) => retrieval(args, json),
        What::Env(args) => super::serve_env::run(*args, json),
    }
}

fn retrieval(args: RetrievalArgs, json: bool) -> anyhow::Result<()> {
    let RetrievalArgs { corpus, data, port, host, allow_host, topk, max_request, threads } = args;
    let mut limits = Limits::default();
    if !(1..=limits.topk).contains(&topk) {
        bail!("--topk {topk}: must be in 1..={}", limits.topk);
    }
    limits.default_topk = topk;
    limits.body = max_request;
    let path = match (corpus, data) {
        // A name that is no file here may be one of the data folder.
        (Some(corpus), Some(data)) if !corpus.exists() => data.join(corpus),
        (Some(corpus), _) => corpus,
        (None, Some(data)) => Found::look(&data)?.corpus(&data)?.to_owned(),
        (None, None) => bail!("--corpus FILE or --data DIR is needed"),
    };
    // A port that is taken is told before a large corpus is read.
    drop(TcpListener::bind((host.as_str(), port)).map_err(|source| {
        let host = host.clone();
        ServeError::Bind { host, port, source }
    })?);
    let started = std::time::Instant::now();
    let corpus = Corpus::load(&path)?;
    for notice in corpus.notices() {
        crate::say!("{}: {notice}", path.display());
    }
    let retrieval = Retrieval::new(corpus, limits);
    let passages = retrieval.corpus().len();
    let seconds = started.elapsed().as_secs_f64();
    crate::say!("{}: {passages} passages, read and indexed in {seconds:.1} s", path.display());
    let threads = threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    block_on(threads, 0, async {
        // Before the address is told, so that whoever reads it may end the server at once.
        let end = interrupted();
        let server = Server::bind(retrieval, &host, port).await?.allow_hosts(allow_host);
        let url = format!("http://{}", server.address());
        if json {
            crate::output::line(&json!({ "url": url, "passages": passages }).to_string())?;
        } else {
            crate::output::line(&url)?;
        }
        crate::say!("answering POST {url}/retrieve; Ctrl-C ends");
        server
            .run(async {
                end.await;
                crate::say!(
                    "ending: requests under way are answered first (Ctrl-C again ends at once)"
                );
            })
            .await
            .context("serving")
    })?
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn names_are_bare() {
        for (given, name) in
            [("env.example.org", "env.example.org"), ("10.0.0.5", "10.0.0.5"), ("[::1]", "::1")]
        {
            assert_eq!(host_name(given).as_deref(), Ok(name));
        }
        for wrong in ["", "https://env.example.org", "env.example.org:443", "a/b", "*", "a b"] {
            assert!(host_name(wrong).is_err(), "{wrong}");
        }
    }
}
