//! `empg report`: one page about runs, or about any trainer's credited trajectories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use empg_report::episodes::{self, Episode, Vocabulary};
use empg_report::html::{Contents, EPISODE_BYTES, bytes_of, is_page, page, shown};
use empg_report::run_data::RunData;
use empg_run::{Run, RunError};
use serde_json::json;

use crate::output;
use crate::settings::SettingsError;

/// Arguments of `empg report`.
#[derive(Args, Debug)]
#[command(after_help = "\
Runs that differ in their seed only are shown as one arm, with intervals over
seeds; a folder of runs stands for all of them. The page needs no network and
may be sent to anyone. It has every recorded episode, or as many from
everywhere as fit into 3 MB, and says how many those are.

Examples:
  empg report runs/households-dapo-empg-s0 -o report.html
  empg report runs/ -o all.html
  empg advantage < rollouts.jsonl > credited.jsonl
  empg report --trajectories credited.jsonl -o credit.html")]
pub(crate) struct ReportArgs {
    /// Run directories, or folders of runs
    #[arg(value_name = "RUN", required_unless_present = "trajectories")]
    runs: Vec<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Replace a file that is there and is no report
    #[arg(long)]
    force: bool,
    /// Trajectories of any trainer, as `empg advantage` writes them
    #[arg(long, value_name = "FILE.jsonl")]
    trajectories: Vec<PathBuf>,
    /// The page's title
    #[arg(long)]
    title: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: ReportArgs, json: bool) -> anyhow::Result<()> {
    let ReportArgs { runs, out, force, trajectories, title } = args;
    let started = Instant::now();
    let mut contents = Contents::default();
    let paths = find(&runs)?;
    room_for_page(&out, &paths, &trajectories, force)?;
    for (path, read) in paths.iter().zip(read_all(&paths)) {
        match read {
            Ok(run) => contents.runs.push(run),
            // A folder's damaged run does not hide the others.
            Err(error) if !runs.contains(path) => contents.notes.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    // Episodes are told apart by their source: runs in folders of the same name stay two.
    let places = contents.runs.iter().map(|run| &run.path).chain(&trajectories);
    let mut names = episodes::sources(&places.cloned().collect::<Vec<_>>()).into_iter();
    for (run, name) in contents.runs.iter_mut().zip(names.by_ref()) {
        run.name = name;
    }
    let recorded = Recorded::read(&contents.runs, EPISODE_BYTES);
    contents.episodes = recorded.episodes;
    contents.unread = recorded.unread;
    contents.notes.extend(recorded.notes);
    for (path, name) in trajectories.iter().zip(names) {
        let (episodes, notes) = episodes::of_lines(&name, path)?;
        contents.episodes.extend(episodes);
        contents.notes.extend(notes);
    }
    if contents.runs.is_empty() && contents.episodes.is_empty() {
        bail!("there is nothing to report: no run and no trajectory was found");
    }
    contents.title = title.unwrap_or_else(|| match contents.runs.as_slice() {
        [] => "Credit of trajectories".to_owned(),
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    });
    for note in &contents.notes {
        crate::say!("warning: {note}");
    }
    let html = page(&contents);
    write(&out, &html)?;
    let (runs, episodes) = (contents.runs.len(), contents.episodes.len() + contents.unread);
    let shown = shown(&contents.episodes).len();
    if json {
        let line = json!({
            "report": out.display().to_string(), "runs": runs, "episodes": episodes, "episodes_shown": shown, "bytes": html.len(),
            "seconds": started.elapsed().as_secs_f64(),
        });
        return Ok(output::line(&line.to_string())?);
    }
    let size = html.len() as f64 / 1e6;
    Ok(output::line(&format!(
        "{} ({runs} run{}, {}, {size:.1} MB)",
        out.display(),
        if runs == 1 { "" } else { "s" },
        counted(shown, episodes)
    ))?)
}

/// `80 episodes`, `12 of 80 episodes` where the page could not carry all.
fn counted(shown: usize, all: usize) -> String {
    if shown == all { format!("{all} episodes") } else { format!("{shown} of {all} episodes") }
}

/// Reads runs side by side, in their order.
pub(super) fn read_all(paths: &[PathBuf]) -> Vec<Result<RunData, empg_run::RunError>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = paths.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = paths
            .chunks(share)
            .map(|part| {
                let read = || part.iter().map(|path| RunData::read(path)).collect::<Vec<_>>();
                (part, scope.spawn(read))
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|(part, thread)| {
                // A reader that died is asked again, here, where its panic is told.
                thread.join().unwrap_or_else(|_| part.iter().map(|p| RunData::read(p)).collect())
            })
            .collect()
    })
}

/// Run directories among the arguments, and those within folders that are none, sorted.
pub(super) fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if path.join("manifest.json").exists() || !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let entries =
            fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        let mut within: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("manifest.json").exists())
            .collect();
        if within.is_empty() {
            bail!("there is no run in {}", path.display());
        }
        within.sort();
        found.extend(within);
    }
    // A run that is named twice is one run.
    let mut seen = BTreeSet::new();
    found.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    Ok(found)
}

/// What runs recorded, as far as a page has room.
#[derive(Default)]
struct Recorded {
    episodes: Vec<Episode>,
    /// Episodes of the steps that were not read.
    unread: usize,
    notes: Vec<String>,
}

/// A run whose recorded steps are read one after the other.
struct Reader<'a> {
    data: &'a RunData,
    run: Run,
    vocabulary: Rc<Vocabulary>,
    /// Indices of the recorded steps, as they are read.
    order: Vec<usize>,
    read: BTreeMap<usize, Vec<Episode>>,
    /// What cannot be read; it hides nothing else.
    damaged: Vec<RunError>,
}

impl Recorded {
    /// Reads a step of each run in turn until the episodes take so many bytes, and counts the others.
    fn read(runs: &[RunData], bytes: usize) -> Self {
        let mut found = Self::default();
        let mut readers = Vec::new();
        // Large ones, and most runs have the same.
        let mut vocabularies: Vec<Rc<Vocabulary>> = Vec::new();
        for data in runs.iter().filter(|data| !data.recorded.is_empty()) {
            match Run::open(&data.path) {
                Ok(run) => {
                    let own = Rc::new(Vocabulary::of_run(&run));
                    let known = vocabularies.iter().find(|known| **known == own);
                    let vocabulary = known.cloned().unwrap_or_else(|| {
                        vocabularies.push(Rc::clone(&own));
                        own
                    });
                    readers.push(Reader {
                        data,
                        run,
                        vocabulary,
                        order: spread(data.recorded.len()),
                        read: BTreeMap::new(),
                        damaged: Vec::new(),
                    });
                }
                Err(error) => found.notes.push(format!("{}: {error}", data.name)),
            }
        }
        let (mut turn, mut taken) = (0, 0);
        while taken < bytes && readers.iter().any(|reader| turn < reader.order.len()) {
            taken += readers.iter_mut().map(|reader| reader.step(turn)).sum::<usize>();
            turn += 1;
        }
        for mut reader in readers {
            found.unread += reader.count(turn);
            found.notes.extend(reader.note());
            found.episodes.extend(reader.read.into_values().flatten());
        }
        found
    }
}

impl Reader<'_> {
    /// Reads the step whose turn it is; the bytes that its episodes take in a page.
    fn step(&mut self, turn: usize) -> usize {
        let Some(&at) = self.order.get(turn) else { return 0 };
        match self.run.trajectories(self.data.recorded[at]) {
            Ok(rows) => {
                let episodes = episodes::of_rows(&self.data.name, &rows, &self.vocabulary);
                let bytes = episodes.iter().map(bytes_of).sum();
                self.read.insert(at, episodes);
                bytes
            }
            Err(error) => {
                self.damaged.push(error);
                0
            }
        }
    }

    /// How many episodes the steps have whose turn has not come.
    fn count(&mut self, turn: usize) -> usize {
        let mut count = 0;
        for &at in self.order.get(turn..).unwrap_or_default() {
            match self.run.recorded_episodes(self.data.recorded[at]) {
                Ok(episodes) => count += episodes,
                Err(error) => self.damaged.push(error),
            }
        }
        count
    }

    fn note(&self) -> Option<String> {
        let first = self.damaged.first()?;
        let name = &self.data.name;
        Some(match self.damaged.len() {
            1 => format!("{name}: {first}"),
            n => format!("{name}: the episodes of {n} steps cannot be read; the first: {first}"),
        })
    }
}

/// Indices below `n` in an order of which every beginning is spread over all: the last and the first,
/// the middle, the quarters.
fn spread(n: usize) -> Vec<usize> {
    let Some(last) = n.checked_sub(1) else { return Vec::new() };
    let bits = n.next_power_of_two().trailing_zeros();
    let backwards = |i: usize| i.reverse_bits().checked_shr(usize::BITS - bits).unwrap_or(0);
    let halved = (0..n.next_power_of_two()).map(backwards).filter(|&i| i < last);
    std::iter::once(last).chain(halved).collect()
}

/// Refuses a page in whose place something would be lost: what it is made from, a run's own files, and
/// any other file that is no report, unless that is to be replaced.
fn room_for_page(
    out: &Path,
    runs: &[PathBuf],
    trajectories: &[PathBuf],
    force: bool,
) -> Result<(), SettingsError> {
    let refuse = |what: &str| {
        Err(SettingsError::Conflict(format!("--out {} {what}; name another file", out.display())))
    };
    let place = settled(out);
    if trajectories.iter().any(|file| settled(file) == place) {
        return refuse("is what is to be reported");
    }
    let is_run = |folder: &Path| {
        // One that cannot be read is told where it is read.
        matches!(Run::open(folder), Ok(_) | Err(RunError::OtherFormat { .. }))
            || runs.iter().any(|run| settled(run) == folder)
    };
    let about = fs::metadata(&place).ok().filter(fs::Metadata::is_file);
    let other = about.filter(|_| !fs::read(&place).is_ok_and(|file| is_page(&file)));
    if other.is_some() && place.ancestors().skip(1).any(is_run) {
        return refuse("is a run's own file");
    }
    if other.is_some_and(|about| about.len() > 0) && !force {
        return Err(SettingsError::Conflict(format!(
            "--out {} is there already and is no report: name another file, or replace it with --force",
            out.display()
        )));
    }
    Ok(())
}

/// Where a path leads, links followed, whether or not there is a file yet.
fn settled(path: &Path) -> PathBuf {
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (whole.parent(), whole.file_name()) {
        (Some(folder), Some(name)) => settled(folder).join(name),
        _ => whole,
    }
}

/// Writes the page by one rename: a reader never sees half of it. What a link names is replaced, not the
/// link, and pipes and devices are written to.
pub(super) fn write(path: &Path, html: &str) -> anyhow::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return fs::write(path, html).with_context(|| format!("cannot write {}", path.display()));
    }
    let target = path.canonicalize();
    let path = target.as_deref().unwrap_or(path);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".report").tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, html.as_bytes())?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Temporary files are private; a report is not.
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_named_twice_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("a");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("manifest.json"), "{}").unwrap();
        let again = folder.path().join("a/../a");
        let found = find(&[run.clone(), folder.path().to_owned(), again]).unwrap();
        assert_eq!(found, [run]);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_stays_and_its_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("page.html"), folder.path().join("link.html"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        // What is no file is written to, here in vain, and never replaced.
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(write(&socket, "new").is_err());
        assert!(!fs::metadata(&socket).unwrap().is_file());
    }

    #[test]
    fn recorded_steps_are_read_from_everywhere() {
        assert!(spread(0).is_empty());
        assert_eq!((spread(1), spread(2), spread(3)), (vec![0], vec![1, 0], vec![2, 0, 1]));
        assert_eq!(spread(6), [5, 0, 4, 2, 1, 3]);
        for n in [7, 8, 9, 100] {
            let mut order = spread(n);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_not_read_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = empg_run::RunDir::create(folder.path().join("run"), "", &json!({})).unwrap();
        let row = |step, group, rollout, turn| empg_run::TrajectoryRow {
            step,
            group,
            rollout,
            turn,
            ..Default::default()
        };
        for step in 1..=5 {
            // Three episodes, one of two turns.
            let rows = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)];
            let rows = rows.map(|(group, rollout, turn)| row(step, group, rollout, turn));
            let record = empg_run::StepRecord {
                step,
                trajectories: Some(&rows),
                ..empg_run::StepRecord::default()
            };
            run.commit(&record).unwrap();
        }
        let data = [RunData::read(run.path()).unwrap()];
        let steps = |found: &Recorded| {
            let mut steps: Vec<u64> = found.episodes.iter().map(|episode| episode.step).collect();
            steps.dedup();
            steps
        };
        let all = Recorded::read(&data, EPISODE_BYTES);
        assert_eq!((steps(&all), all.unread), (vec![1, 2, 3, 4, 5], 0));
        let one = bytes_of(&all.episodes[0]) + bytes_of(&all.episodes[1]) * 2;
        for (bytes, read, unread) in [(0, vec![], 15), (1, vec![5], 12), (one + 1, vec![1, 5], 9)] {
            let some = Recorded::read(&data, bytes);
            assert_eq!((steps(&some), some.unread), (read, unread));
        }
        for step in [2, 4] {
            fs::write(run.path().join(format!("trajectories/step-{step:06}.parquet")), "x")
                .unwrap();
        }
        let damaged = Recorded::read(&data, 1);
        assert_eq!((steps(&damaged), damaged.unread), (vec![5], 6));
        assert!(
            damaged.notes[0].starts_with("run: the episodes of 2 steps"),
            "{:?}",
            damaged.notes
        );
    }

    #[test]
    fn a_page_takes_the_place_of_a_page_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let run = at("run");
        empg_run::RunDir::create(&run, "", &json!({})).unwrap();
        for (name, text) in [
            ("old.html", page(&Contents::default())),
            ("mine.html", "<!doctype html><p>mine</p>".to_owned()),
            ("empty.html", String::new()),
            ("in.jsonl", "{}\n".to_owned()),
        ] {
            fs::write(at(name), text).unwrap();
        }
        let room = |name: &str, force| {
            room_for_page(&at(name), &[], &[at("in.jsonl")], force).map_err(|e| e.to_string())
        };
        for name in ["new.html", "no/such/folder/new.html", "old.html", "empty.html"] {
            assert_eq!(room(name, false), Ok(()), "{name}");
        }
        assert!(room("mine.html", false).unwrap_err().contains("--force"));
        assert_eq!(room("mine.html", true), Ok(()));
        assert_eq!(room("run/report.html", false), Ok(()));
        for (name, why) in [
            ("in.jsonl", "what is to be reported"),
            ("run/../in.jsonl", "what is to be reported"),
            ("run/config.toml", "is a run's own file"),
            ("run/metrics.jsonl", "is a run's own file"),
        ] {
            let refused = room(name, true).unwrap_err();
            assert!(refused.contains(why), "{name}: {refused}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&run, at("link")).unwrap();
            assert!(room("link/config.toml", true).unwrap_err().contains("a run's own file"));
        }
        // A folder of other people's with a file of that name is no run.
        fs::create_dir(at("site")).unwrap();
        fs::write(at("site/manifest.json"), "{\"name\": \"site\"}").unwrap();
        assert_eq!(room("site/new.html", false), Ok(()));
    }

    #[test]
    fn episodes_that_are_left_out_are_told() {
        assert_eq!(counted(80, 80), "80 episodes");
        assert_eq!(counted(12, 80), "12 of 80 episodes");
    }
}
