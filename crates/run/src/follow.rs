//! Reading a run while it grows: every look reads what was added since the one before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::{Map, Value};

use crate::layout::{METRICS, TIMINGS};
use crate::{Result, Run, RunError, events, jsonl};

/// Most bytes of `metrics.jsonl` that one look reads, but for a longer line.
const LOOK: u64 = 1 << 20;

/// A committed training step, as followers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowedStep {
    /// The step.
    pub step: u64,
    /// When it was committed, in seconds since 1970; unknown where the event file lacks the step.
    pub seconds: Option<f64>,
    /// Its line of `metrics.jsonl`.
    pub metrics: Map<String, Value>,
    /// Its line of `timings.jsonl`; empty where there is none.
    pub timings: Map<String, Value>,
}

/// What a look at a run found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// Whether the run went back to an earlier step (it was resumed) since the last look: the
    /// steps below begin at the run's first again, and those told before are void.
    pub rewound: bool,
    /// Steps that were committed since, in order; all of them once [`Follower::caught_up`].
    pub steps: Vec<FollowedStep>,
}

/// A reader that remembers how far it has read. It takes no lock and changes nothing.
#[derive(Debug)]
pub struct Follower {
    run: Run,
    at: u64,
    crc: crc32fast::Hasher,
    timings: Aside<Map<String, Value>>,
    clock: Aside<f64>,
}

/// Lines of `metrics.jsonl` with their steps.
type Lines = Vec<(u64, Map<String, Value>)>;

/// A file beside `metrics.jsonl` with something for most steps, which no checksum covers.
#[derive(Debug)]
struct Aside<T> {
    at: u64,
    waiting: BTreeMap<u64, T>,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self { at: 0, waiting: BTreeMap::new() }
    }
}

impl Follower {
    /// Follows a run from its first step on.
    ///
    /// # Errors
    /// As [`Run::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self {
            run: Run::open(path)?,
            at: 0,
            crc: crc32fast::Hasher::new(),
            timings: Aside::default(),
            clock: Aside::default(),
        })
    }

    /// The run, as of the last look.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Whether everything that was committed at the last look has been told.
    pub fn caught_up(&self) -> bool {
        self.at == self.run.manifest().metrics.bytes
    }

    /// Looks again.
    ///
    /// # Errors
    /// A manifest or committed lines that are damaged or gone.
    pub fn look(&mut self) -> Result<News> {
        self.run.refresh()?;
        let mut rewound = self.run.manifest().metrics.bytes < self.at;
        if rewound {
            self.begin_again();
        }
        let mut lines = self.lines()?;
        if lines.is_none() {
            // The run may be going back this very moment; if it is not, its file is damaged.
            self.run.refresh()?;
            rewound = true;
            self.begin_again();
            lines = self.lines()?;
        }
        let Some(lines) = lines else {
            let path = self.run.path().join(METRICS);
            return Err(RunError::corrupt(&path, "committed lines are missing or changed"));
        };
        if let Some((last, _)) = lines.last() {
            self.read_timings(*last)?;
            self.read_clock(*last)?;
        }
        let steps = lines.into_iter().map(|(step, metrics)| FollowedStep {
            step,
            seconds: self.clock.take(step),
            timings: self.timings.take(step).unwrap_or_default(),
            metrics,
        });
        let steps = steps.collect();
        Ok(News { rewound, steps })
    }

    fn begin_again(&mut self) {
        self.at = 0;
        self.crc = crc32fast::Hasher::new();
        self.timings = Aside::default();
        self.clock = Aside::default();
    }

    /// The next committed lines; `None` where they are not as they were committed.
    fn lines(&mut self) -> Result<Option<Lines>> {
        let path = self.run.path().join(METRICS);
        let committed = self.run.manifest().metrics;
        let left = committed.bytes.saturating_sub(self.at);
        let mut wanted = left.min(LOOK);
        let bytes = loop {
            let mut bytes = read_from(&path, self.at, wanted)?;
            if (bytes.len() as u64) < wanted {
                return Ok(None);
            }
            if let Some(end) = bytes.iter().rposition(|&b| b == b'\n') {
                bytes.truncate(end + 1);
                break bytes;
            }
            if wanted == left {
                // Committed bytes end with a newline; of those read already the checksum tells.
                let same = self.crc.clone().finalize() == committed.crc32;
                return Ok((left == 0 && same).then(Vec::new));
            }
            wanted = left.min(wanted * 2);
        };
        let mut crc = self.crc.clone();
        crc.update(&bytes);
        let at = self.at + bytes.len() as u64;
        if at == committed.bytes && crc.clone().finalize() != committed.crc32 {
            return Ok(None);
        }
        let Ok(parsed) = jsonl::parse(&path, &bytes) else { return Ok(None) };
        let steps = parsed.into_iter().map(|line| {
            let step = line.get("step").and_then(Value::as_u64)?;
            Some((step, line))
        });
        let Some(steps) = steps.collect::<Option<Vec<_>>>() else { return Ok(None) };
        (self.at, self.crc) = (at, crc);
        Ok(Some(steps))
    }

    fn read_timings(&mut self, last: u64) -> Result<()> {
        let path = self.run.path().join(TIMINGS);
        self.timings.read(&path, last, |bytes| {
            let end = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            let lines = bytes[..end].split(|&b| b == b'\n').filter_map(|line| {
                let line: Map<String, Value> = serde_json::from_slice(line).ok()?;
                Some((line.get("step").and_then(Value::as_u64)?, line))
            });
            (end, lines.collect())
        })
    }

    fn read_clock(&mut self, last: u64) -> Result<()> {
        let path = events::path_in(self.run.path(), 0.0)?;
        self.clock.read(&path, last, events::wall_times)
    }
}

impl<T> Aside<T> {
    /// Reads what was added to `path`; from its beginning if that does not lead to step `last`,
    /// since a resumed run may have cut and written the file again.
    fn read(
        &mut self,
        path: &Path,
        last: u64,
        parse: impl Fn(&[u8]) -> (usize, Vec<(u64, T)>),
    ) -> Result<()> {
        let mut again = self.at > 0;
        loop {
            let bytes = read_from(path, self.at, u64::MAX)?;
            let (read, found) = parse(&bytes);
            self.at += read as u64;
            self.waiting.extend(found);
            if !again || self.waiting.contains_key(&last) {
                return Ok(());
            }
            *self = Self::default();
            again = false;
        }
    }

    /// What there is for a step; earlier steps are forgotten.
    fn take(&mut self, step: u64) -> Option<T> {
        self.waiting = self.waiting.split_off(&step);
        self.waiting.remove(&step)
    }
}

/// Up to `limit` bytes of a file; none where there is no file.
fn read_from(path: &Path, at: u64, limit: u64) -> Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| RunError::io("read", path, 0, error)),
    }
}
