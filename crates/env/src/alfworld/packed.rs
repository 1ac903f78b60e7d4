//! The packed layout: one file of games, a JSON object a line, with its domains and grammars
//! beside it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use super::error::GameError;
use super::game::Game;
use super::rules::{Domain, Grammar, Rules};
use crate::EnvError;

/// Name of the packed file.
pub(crate) const FILE: &str = "games.jsonl.gz";

/// One line of a packed file, borrowed from it where possible.
#[derive(Debug, Deserialize)]
pub struct PackedRecord<'a> {
    /// `<split>/<task>/<trial>`.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// Which `domain_*.pddl` beside the file.
    #[serde(borrow)]
    pub domain: Cow<'a, str>,
    /// Which `grammar_*.twl2` beside the file.
    #[serde(borrow)]
    pub grammar: Cow<'a, str>,
    /// The goal sentence.
    #[serde(borrow)]
    pub task_desc: Cow<'a, str>,
    /// The problem's text.
    #[serde(borrow)]
    pub pddl_problem: Cow<'a, str>,
    /// Games that are not solvable are no tasks.
    #[serde(default = "solvable")]
    pub solvable: bool,
}

fn solvable() -> bool {
    true
}

impl<'a> PackedRecord<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// Bytes that are no JSON object with these fields.
    pub fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// The record's game.
    ///
    /// # Errors
    /// As [`Game::parse`].
    pub fn game(&self, rules: Rules) -> Result<Game, GameError> {
        Game::parse_with(&self.path, &self.pddl_problem, &self.task_desc, rules)
    }
}

/// The domains and grammars beside a packed file.
struct Library {
    domains: HashMap<String, Result<Domain, GameError>>,
    grammars: HashMap<String, Result<Grammar, GameError>>,
}

impl Library {
    fn read(folder: &Path) -> Result<Self, EnvError> {
        let mut library = Self { domains: HashMap::new(), grammars: HashMap::new() };
        let entries = std::fs::read_dir(folder).map_err(|e| data(folder, None, &e))?;
        for entry in entries {
            let path = entry.map_err(|e| data(folder, None, &e))?.path();
            let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let part = |start, end| file.strip_prefix(start)?.strip_suffix(end);
            if let Some(name) = part("domain_", ".pddl") {
                let text = read_text(&path)?;
                library.domains.insert(name.to_owned(), Domain::recognise(file, &text));
            } else if let Some(name) = part("grammar_", ".twl2") {
                let text = read_text(&path)?;
                library.grammars.insert(name.to_owned(), Grammar::recognise(file, &text));
            }
        }
        Ok(library)
    }

    fn rules(&self, record: &PackedRecord<'_>) -> Result<Rules, String> {
        let (domain, grammar) = (&*record.domain, &*record.grammar);
        let domain = self.domains.get(domain).ok_or_else(|| {
            format!("the domain {domain:?} is unknown: domain_{domain}.pddl is not beside the file")
        })?;
        let grammar = self.grammars.get(grammar).ok_or_else(|| {
            format!(
                "the grammar {grammar:?} is unknown: grammar_{grammar}.twl2 is not beside the file"
            )
        })?;
        let domain = domain.as_ref().map_err(ToString::to_string)?;
        let grammar = grammar.as_ref().map_err(ToString::to_string)?;
        Ok(domain.with(*grammar))
    }
}

/// Whole lines, and the number of the first.
struct Chunk {
    first: usize,
    text: Vec<u8>,
}

/// Size at which a chunk goes to a worker.
const CHUNK: usize = 1 << 20;
/// Parsing threads; the reading thread inflates meanwhile.
const WORKERS: usize = 2;

/// A line's game (`None` where the line is no task), or its number and what is wrong.
type Parsed = Result<Vec<Game>, (usize, String)>;

/// Reads every solvable game of `folder/games.jsonl.gz`, in no particular order.
pub(crate) fn load(folder: &Path) -> Result<Vec<Game>, EnvError> {
    let path = folder.join(FILE);
    let file = File::open(&path).map_err(|e| data(&path, None, &e))?;
    let library = Library::read(folder)?;
    let (send, receive) = sync_channel::<Chunk>(2 * WORKERS);
    let receive = Arc::new(Mutex::new(receive));
    let (read, parsed) = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let receive = Arc::clone(&receive);
                let library = &library;
                scope.spawn(move || work(&receive, library))
            })
            .collect();
        // Only the workers hold the receiver now: if all stop, sending fails instead of blocking.
        drop(receive);
        let read = chunks(file, |chunk| send.send(chunk).is_ok());
        drop(send);
        let parsed: Vec<Parsed> = workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| Err((0, "a parsing thread failed".to_owned()))))
            .collect();
        (read, parsed)
    });
    let mut games = Vec::new();
    let mut worst: Option<(usize, String)> = None;
    for result in parsed {
        match result {
            Ok(mut part) => games.append(&mut part),
            Err(error) if worst.as_ref().is_none_or(|w| error.0 < w.0) => worst = Some(error),
            Err(_) => {}
        }
    }
    if let Some((line, what)) = worst {
        return Err(data(&path, Some(line), &what));
    }
    read.map_err(|(line, what)| data(&path, Some(line), &what))?;
    Ok(games)
}

/// Inflates a file and hands on whole lines, until `send` refuses.
fn chunks(file: File, send: impl Fn(Chunk) -> bool) -> Result<(), (usize, String)> {
    let inflate = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file));
    let mut reader = BufReader::with_capacity(1 << 18, inflate);
    let mut chunk = Chunk { first: 1, text: Vec::with_capacity(CHUNK + CHUNK / 4) };
    let mut line = 0;
    loop {
        let read = reader.read_until(b'\n', &mut chunk.text).map_err(|e| {
            (line + 1, format!("{e}: the file is damaged or incomplete; download it again"))
        })?;
        line += usize::from(read > 0);
        if (read == 0 && !chunk.text.is_empty()) || chunk.text.len() >= CHUNK {
            let next = Chunk { first: line + 1, text: Vec::with_capacity(CHUNK + CHUNK / 4) };
            if !send(std::mem::replace(&mut chunk, next)) {
                return Ok(());
            }
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn work(receive: &Mutex<Receiver<Chunk>>, library: &Library) -> Parsed {
    let mut games = Vec::new();
    loop {
        let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(chunk) = next else { return Ok(games) };
        for (i, line) in chunk.text.split(|&b| b == b'\n').enumerate() {
            if !line.iter().all(u8::is_ascii_whitespace) {
                let fail = |what| (chunk.first + i, what);
                let record =
                    PackedRecord::parse(line).map_err(|e| fail(format!("not a game: {e}")))?;
                if record.solvable && is_task(&record.path) {
                    let rules = library.rules(&record).map_err(fail)?;
                    let game = record.game(rules);
                    games.push(game.map_err(|e| fail(format!("{}: {e}", record.path)))?);
                }
            }
        }
    }
}

/// Whether ALFWorld plays the game at a path: it leaves out movable receptacles and sliced objects.
pub(crate) fn is_task(path: &str) -> bool {
    !path.contains("movable") && !path.contains("Sliced")
}

pub(crate) fn read_text(path: &Path) -> Result<String, EnvError> {
    std::fs::read_to_string(path).map_err(|e| data(path, None, &e))
}

pub(crate) fn data(path: &Path, line: Option<usize>, what: &impl ToString) -> EnvError {
    EnvError::Data { path: path.display().to_string(), line, what: what.to_string() }
}
