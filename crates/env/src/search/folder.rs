//! Which files of a data folder hold questions, and which the corpus.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::lines::{each_line, refused};
use crate::EnvError;

/// The corpus that is taken where a folder has several.
pub const CORPUS: &str = "wiki_small.jsonl.gz";

/// What a data folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files of questions, by name.
    pub questions: Vec<PathBuf>,
    /// Files of passages, by name.
    pub corpora: Vec<PathBuf>,
}

impl Found {
    /// Looks at the first line of every `.jsonl` and `.jsonl.gz` file of a folder (or of one file). A
    /// line with `contents` begins a corpus; one with a question and its answers, but without `steps`
    /// (a recorded episode has them), a set of questions; every `.parquet` file is a set of questions.
    /// Where the folder itself has neither, its subfolders `deepsearch` and `search` are looked at.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn look(folder: &Path) -> Result<Self, EnvError> {
        let mut found = Self::default();
        if folder.is_file() {
            found.sort_in(folder.to_owned());
            return Ok(found);
        }
        let entries = std::fs::read_dir(folder).map_err(|e| refused(folder, None, &e))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|e| refused(folder, None, &e))?.path());
        }
        paths.sort();
        for path in paths.into_iter().filter(|path| path.is_file()) {
            found.sort_in(path);
        }
        if found == Self::default() {
            for below in ["deepsearch", "search"] {
                let below = folder.join(below);
                if below.is_dir() {
                    return Self::look(&below);
                }
            }
        }
        Ok(found)
    }

    /// The corpus to use: [`CORPUS`], else the only one.
    ///
    /// # Errors
    /// None at all, or several.
    pub fn corpus(&self, folder: &Path) -> Result<&Path, EnvError> {
        let named = |path: &&PathBuf| path.file_name().is_some_and(|name| name == CORPUS);
        match (self.corpora.iter().find(named), self.corpora.as_slice()) {
            (Some(path), _) => Ok(path),
            (None, [only]) => Ok(only),
            (None, []) => {
                let what = "no corpus here: expected a .jsonl or .jsonl.gz file of {\"id\", \
                            \"contents\"} lines; --corpus FILE (or the address of a retriever) names \
                            one elsewhere";
                Err(refused(folder, None, &what))
            }
            (None, several) => {
                let names: Vec<_> = several.iter().map(|p| p.display().to_string()).collect();
                let what = format!(
                    "{} corpora ({}): --corpus FILE chooses",
                    several.len(),
                    names.join(", ")
                );
                Err(refused(folder, None, &what))
            }
        }
    }

    fn sort_in(&mut self, path: PathBuf) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.to_ascii_lowercase();
        if name.ends_with(".parquet") {
            self.questions.push(path);
        } else if [".jsonl", ".jsonl.gz"].iter().any(|end| name.ends_with(end)) {
            let mut first = None;
            // What cannot be read is none of ours; if it is asked for by name, that tells why.
            let _ = each_line(&path, |_, line| {
                first = serde_json::from_str::<Value>(line).ok();
                Ok(false)
            });
            let has = |key| first.as_ref().is_some_and(|first| first.get(key).is_some());
            if has("contents") && has("id") {
                self.corpora.push(path);
            } else if has("question")
                && !has("steps")
                && ["golden_answers", "reward_model", "answers", "answer"].into_iter().any(has)
            {
                self.questions.push(path);
            }
        }
    }
}
