//! Names and places of the files of a run.

use std::path::{Path, PathBuf};

use crate::{Result, RunError};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const CONFIG: &str = "config.toml";
pub(crate) const PROMPT: &str = "prompt.jinja";
pub(crate) const CREATED: &str = "created.json";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const TIMINGS: &str = "timings.jsonl";
pub(crate) const LOCK: &str = "run.lock";
pub(crate) const PANELS: &str = "panels";
pub(crate) const ANALYSES: &str = "analyses";
pub(crate) const TRAJECTORIES: &str = "trajectories";
pub(crate) const CHECKPOINTS: &str = "checkpoints";
pub(crate) const STATE: &str = "state.json";
/// Ending of everything that is not complete yet.
pub(crate) const PARTIAL: &str = ".tmp";
/// What TensorBoard looks for in a file's name.
pub(crate) const EVENTS: &str = "events.out.tfevents.";
/// Ending of our own event files: another program's stand in the same folder unharmed.
const EVENTS_END: &str = ".empg";

/// `events.out.tfevents.1795198339.empg`: the event file of a run that was created then.
pub(crate) fn events_name(seconds: u64) -> String {
    format!("{EVENTS}{seconds:010}{EVENTS_END}")
}

/// Whether [`events_name`] gives such a name.
pub(crate) fn is_events_name(name: &str) -> bool {
    name.strip_prefix(EVENTS)
        .and_then(|rest| rest.strip_suffix(EVENTS_END))
        .is_some_and(|digits| digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// `step-000050`.
pub(crate) fn step_name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The step of `step-000050`; `None` for any other name.
pub(crate) fn parse_step(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// `trajectories/step-000010.parquet`.
pub(crate) fn trajectory_file(root: &Path, step: u64) -> PathBuf {
    root.join(TRAJECTORIES).join(step_name(step) + ".parquet")
}

/// `checkpoints/step-000050`.
pub(crate) fn checkpoint_dir(root: &Path, step: u64) -> PathBuf {
    root.join(CHECKPOINTS).join(step_name(step))
}

/// Where a file or folder is written before it is renamed to `path`.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(PARTIAL);
    path.with_file_name(name)
}

/// Whether a run that is just being created, and has no manifest yet, may have an entry `name`
/// that a new start leaves as it is: the lock and the folders.
pub(crate) fn is_kept_by_a_start(name: &str) -> bool {
    [LOCK, PANELS, ANALYSES, TRAJECTORIES, CHECKPOINTS].contains(&name)
}

/// Whether it may have a file `name` that a new start replaces.
pub(crate) fn is_replaced_by_a_start(name: &str) -> bool {
    let name = name.strip_suffix(PARTIAL).unwrap_or(name);
    [MANIFEST, CONFIG, CREATED, METRICS, TIMINGS].contains(&name) || is_events_name(name)
}

/// Checks a name that the caller gave for a file of a checkpoint or a panel.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        "it must be a plain name, without folders"
    } else if name.ends_with(PARTIAL) {
        "the ending .tmp marks unfinished files"
    } else {
        return Ok(());
    };
    Err(RunError::FileName { name: name.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names_round_trip_and_nothing_else_is_one() {
        for step in [0, 10, 999_999, 1_000_000, u64::MAX] {
            assert_eq!(parse_step(&step_name(step)), Some(step));
        }
        for name in ["step-10", "step-+00010", "step-", "step-000010.parquet", "other"] {
            assert_eq!(parse_step(name), None, "{name}");
        }
    }

    #[test]
    fn event_files_of_other_programs_are_not_ours() {
        for seconds in [0, 1_795_198_339, 9_999_999_999] {
            assert!(is_events_name(&events_name(seconds)), "{seconds}");
        }
        for name in [
            "events.out.tfevents.1795198339.host.4711.0",
            "events.out.tfevents.1795198339",
            "events.out.tfevents.1795198339.host.empg",
            "events.out.tfevents.179519833x.empg",
            "events.out.tfevents..empg",
        ] {
            assert!(!is_events_name(name) && !is_replaced_by_a_start(name), "{name}");
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "a\\b", "a\0", "a.tmp"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("model.safetensors").unwrap();
    }
}
