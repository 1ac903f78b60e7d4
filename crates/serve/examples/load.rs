//! Load for a retriever: many connections that ask one question after the other.
//!
//! ```sh
//! # a server of its own over a corpus, in this process
//! cargo run --release -p empg-serve --example load -- --corpus CORPUS --questions QUESTIONS
//! # one that runs
//! cargo run --release -p empg-serve --example load -- --address 127.0.0.1:8000 --questions QUESTIONS
//! ```
//! `QUESTIONS` are lines with `question` or `query`. More: `--connections 64`, `--seconds 10`,
//! `--topk 3`, `--threads 2` (the server's and the client's together share them), `--together 1`
//! (questions in one request).
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use empg_env::search::Corpus;
use empg_serve::{Limits, Retrieval, Server, block_on};
use flate2::bufread::MultiGzDecoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let mut options = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        options.insert(name.trim_start_matches('-').to_owned(), value);
    }
    let number = |name: &str, default: usize| -> Result<usize> {
        Ok(options.get(name).map_or(Ok(default), |n| n.parse())?)
    };
    let (connections, seconds) = (number("connections", 64)?, number("seconds", 10)?);
    let (topk, together) = (number("topk", 3)?, number("together", 1)?.max(1));
    let questions = options.get("questions").ok_or("--questions FILE is missing")?;
    let requests = Arc::new(requests(Path::new(questions), topk, together)?);
    block_on(number("threads", 2)?, 0, async {
        let address: SocketAddr = if let Some(address) = options.get("address") {
            address.parse()?
        } else {
            let corpus =
                options.get("corpus").ok_or("--corpus FILE or --address HOST:PORT is missing")?;
            let started = Instant::now();
            let retrieval = Retrieval::new(Corpus::load(corpus)?, Limits::default());
            println!(
                "{} passages ready after {:.2} s",
                retrieval.corpus().len(),
                started.elapsed().as_secs_f64()
            );
            let server = Server::bind(retrieval, "127.0.0.1", 0).await?;
            let address = server.address();
            tokio::spawn(server.run(std::future::pending()));
            address
        };
        let started = Instant::now();
        let until = started + Duration::from_secs(seconds as u64);
        let clients: Vec<_> = (0..connections)
            .map(|n| tokio::spawn(client(address, Arc::clone(&requests), n, together, until)))
            .collect();
        let (mut times, mut lost) = (Vec::new(), 0);
        for client in clients {
            let (of_client, lost_by_client) = client.await?;
            times.extend(of_client);
            lost += lost_by_client;
        }
        let elapsed = started.elapsed().as_secs_f64();
        times.sort_unstable();
        let quantile = |q: f64| {
            let at = (times.len() as f64 * q) as usize;
            times.get(at).or(times.last()).map_or(0.0, |t| t.as_secs_f64() * 1e3)
        };
        println!(
            "{connections} connections, {elapsed:.1} s: {:.0} queries/s, {} requests, p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms, {lost} lost",
            (times.len() * together) as f64 / elapsed,
            times.len(),
            quantile(0.5),
            quantile(0.99),
            quantile(1.0)
        );
        Ok(())
    })?
}

/// The requests, head and body.
fn requests(path: &Path, topk: usize, together: usize) -> Result<Vec<Vec<u8>>> {
    let file = BufReader::new(std::fs::File::open(path)?);
    let lines: Box<dyn BufRead> = if path.extension().is_some_and(|e| e == "gz") {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(file)
    };
    let mut questions = Vec::new();
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        let text = line.get("question").or(line.get("query")).and_then(|q| q.as_str());
        questions.push(text.ok_or("a line without question")?.to_owned());
    }
    let request = |queries: &[String]| {
        let body = serde_json::json!({"queries": queries, "topk": topk, "return_scores": true})
            .to_string();
        let head = format!(
            "POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head, body].concat().into_bytes()
    };
    Ok(questions.chunks_exact(together).map(request).collect())
}

/// Asks until the time is up; how long each answer took, and how many requests had none.
async fn client(
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
    number: usize,
    together: usize,
    until: Instant,
) -> (Vec<Duration>, usize) {
    let (mut times, mut lost) = (Vec::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    let mut connection = None;
    let mut at = number * 997;
    while Instant::now() < until {
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => {
                if let Ok(stream) = TcpStream::connect(address).await {
                    drop(stream.set_nodelay(true));
                    stream
                } else {
                    lost += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            }
        };
        let started = Instant::now();
        at = (at + 1) % requests.len();
        if ask(&mut stream, &requests[at], &mut buffer, together).await.is_some() {
            times.push(started.elapsed());
            connection = Some(stream);
        } else {
            lost += 1;
        }
    }
    (times, lost)
}

/// Sends a request and reads its answer; `None` if that is not whole and good.
async fn ask(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
    lists: usize,
) -> Option<()> {
    stream.write_all(request).await.ok()?;
    let (mut filled, mut whole) = (0, None);
    while whole.is_none_or(|whole| filled < whole) {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        match stream.read(&mut buffer[filled..]).await.ok()? {
            0 => return None,
            n => filled += n,
        }
        if whole.is_none()
            && let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&buffer[..end]).ok()?.to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") {
                return None;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
            whole = Some(end + 4 + length.trim().parse::<usize>().ok()?);
        }
    }
    let answer = &buffer[..filled];
    let found = answer.windows(11).filter(|w| w == b"\"document\":").count();
    (answer.ends_with(b"]]}") && found > 0 && found <= lists * 1000).then_some(())
}
