//! `empg report`: one page about runs, or about any trainer's credited trajectories.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use empg_report::episodes::{self, Episode, Vocabulary};
use empg_report::html::{Contents, page, shown};
use empg_report::run_data::RunData;
use empg_run::Run;
use serde_json::json;

use crate::output;

/// Recorded training steps of a run whose episodes the page shows.
const RECORDED: usize = 3;

/// Arguments of `empg report`.
#[derive(Args, Debug)]
#[command(after_help = "\
Runs that differ in their seed only are shown as one arm, with intervals over seeds; a folder of runs
stands for all of them. The page needs no network and may be sent to anyone.

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
    /// Trajectories of any trainer, as `empg advantage` writes them
    #[arg(long, value_name = "FILE.jsonl")]
    trajectories: Vec<PathBuf>,
    /// The page's title
    #[arg(long)]
    title: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: ReportArgs, json: bool) -> anyhow::Result<()> {
    let ReportArgs { runs, out, trajectories, title } = args;
    let started = Instant::now();
    let mut contents = Contents::default();
    let paths = find(&runs)?;
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
    let budget = if contents.runs.len() > 1 { 1 } else { RECORDED };
    for run in &contents.runs {
        match recorded(run, budget) {
            Ok(episodes) => contents.episodes.extend(episodes),
            Err(error) => contents.notes.push(format!("{}: {error:#}", run.name)),
        }
    }
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
    let (runs, episodes) = (contents.runs.len(), contents.episodes.len());
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

/// The episodes of some recorded steps: the first, the last, and those between them, evenly.
fn recorded(data: &RunData, steps: usize) -> anyhow::Result<Vec<Episode>> {
    let all = &data.recorded;
    let n = steps.min(all.len());
    if n == 0 {
        return Ok(Vec::new());
    }
    let run = Run::open(&data.path)?;
    let vocabulary = Vocabulary::of_run(&run);
    let mut episodes = Vec::new();
    for i in 0..n {
        let at = if n == 1 { all.len() - 1 } else { i * (all.len() - 1) / (n - 1) };
        let rows = run.trajectories(all[at])?;
        episodes.extend(episodes::of_rows(&data.name, &rows, &vocabulary));
    }
    Ok(episodes)
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
    fn episodes_that_are_left_out_are_told() {
        assert_eq!(counted(80, 80), "80 episodes");
        assert_eq!(counted(12, 80), "12 of 80 episodes");
    }
}
