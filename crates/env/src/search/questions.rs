//! A set of questions and the splits that they fall into.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::lines::{each_line, read_lines, refused};
use super::question::Question;
use crate::{EnvError, Split, Task};

/// Data sets that Search-R1 trains on.
pub const IN_DOMAIN: [&str; 2] = ["nq", "hotpotqa"];
/// Data sets that Search-R1 keeps for the comparison out of domain, and the web's.
pub const OUT_OF_DOMAIN: [&str; 6] =
    ["triviaqa", "popqa", "2wikimultihopqa", "musique", "bamboogle", "webwalker"];

/// Questions, split and found by identifier.
///
/// The split of a question:
/// 1. what its file says, where that is `train`, `seen` or `unseen`; `train` always trains;
/// 2. a data set of [`OUT_OF_DOMAIN`] is unseen;
/// 3. a data set of [`IN_DOMAIN`] whose file says `dev`, `valid`, `validation` or `test` is seen; of any
///    other data set `dev`, `valid` and `validation` are seen and `test` is unseen;
/// 4. where the file says nothing of this kind, a stable hash of the question's text decides: of a
///    data set in [`IN_DOMAIN`] nine tenths train and one is seen; of any other eight tenths train,
///    one is seen, one unseen.
///
/// The hash is of the text, so that a data set's question in two files is never on both sides.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    all: Vec<Arc<Question>>,
    splits: [Vec<u32>; 3],
    by_id: HashMap<String, u32>,
    notices: Vec<String>,
}

impl Questions {
    /// A set of questions. One without an accepted answer is left out. One without an identifier gets
    /// `search/<split>/<index>`; one that repeats another (identifier, question and answers) is left
    /// out; one that shares only the identifier gets a number behind it. [`Questions::notices`] tells
    /// of it all.
    pub fn new(questions: impl IntoIterator<Item = Question>) -> Self {
        let mut set = Self::default();
        let (mut repeated, mut renamed) = (0_usize, Vec::new());
        let mut open = 0_usize;
        for mut question in questions {
            if question.golden_answers.is_empty() {
                open += 1;
                continue;
            }
            let split = split_of(&question);
            let members = &mut set.splits[split as usize];
            if question.id.is_empty() {
                question.id = task_id(split, members.len() as u64);
            }
            if let Some(&known) = set.by_id.get(&question.id) {
                let known = &set.all[known as usize];
                let same = known.question == question.question
                    && known.golden_answers == question.golden_answers;
                if same {
                    repeated += 1;
                    continue;
                }
                let new = (2..).map(|n| format!("{}#{n}", question.id));
                let new = new.into_iter().find(|id| !set.by_id.contains_key(id));
                let Some(new) = new else { continue };
                renamed.push(new.clone());
                question.id = new;
            }
            let Ok(index) = u32::try_from(set.all.len()) else { break };
            members.push(index);
            set.by_id.insert(question.id.clone(), index);
            set.all.push(Arc::new(question));
        }
        if open > 0 {
            set.notices.push(format!("{open} questions have no accepted answer and are left out"));
        }
        if repeated > 0 {
            let what = "questions repeat another (identifier, text and answers) and are left out";
            set.notices.push(format!("{repeated} {what}"));
        }
        if let Some(first) = renamed.first() {
            let count = renamed.len();
            let what = "questions share the identifier of another and are numbered";
            set.notices.push(format!("{count} {what} (the first is now {first:?})"));
        }
        set
    }

    /// Reads a file: Parquet (`.parquet`), else JSON lines, plain or gzip (`.gz`).
    ///
    /// # Errors
    /// A file that cannot be read or holds no question, a line or row that is none: the error names
    /// file and line.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, EnvError> {
        let questions = read(path.as_ref())?;
        Ok(Self::new(questions))
    }

    /// Reads several files as one set.
    ///
    /// # Errors
    /// As [`Questions::load`].
    pub fn load_all<P: AsRef<Path>>(paths: &[P]) -> Result<Self, EnvError> {
        let mut questions = Vec::new();
        for path in paths {
            questions.append(&mut read(path.as_ref())?);
        }
        Ok(Self::new(questions))
    }

    /// Reads JSON lines from memory.
    ///
    /// # Errors
    /// As [`Questions::load`], with the line's number.
    pub fn parse(bytes: &[u8], fallback_source: &str) -> Result<Self, EnvError> {
        let mut questions = Vec::new();
        read_lines(bytes, false, &mut |_, line| {
            questions.push(Question::parse(line, fallback_source)?);
            Ok(true)
        })
        .map_err(|(line, what)| refused(Path::new("questions"), Some(line), &what))?;
        Ok(Self::new(questions))
    }

    /// Reads a Parquet file from memory.
    ///
    /// # Errors
    /// As [`Questions::load`], with the row's number.
    #[cfg(feature = "parquet")]
    pub fn parse_parquet(bytes: Vec<u8>, fallback_source: &str) -> Result<Self, EnvError> {
        let questions = super::parquet_rows::parse(bytes, fallback_source)?;
        Ok(Self::new(questions))
    }

    /// All questions, in the order of their files.
    pub fn all(&self) -> &[Arc<Question>] {
        &self.all
    }

    /// How many a split has.
    pub fn len(&self, split: Split) -> u64 {
        self.splits[split as usize].len() as u64
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The question at an index of a split.
    pub fn get(&self, split: Split, index: u64) -> Option<&Arc<Question>> {
        let at = *self.splits[split as usize].get(usize::try_from(index).ok()?)?;
        self.all.get(at as usize)
    }

    /// The question of a task: its identifier, or `search/<split>/<index>`.
    pub fn find(&self, task: &str) -> Option<&Arc<Question>> {
        if let Some(&index) = self.by_id.get(task) {
            return self.all.get(index as usize);
        }
        let (split, index) = task.strip_prefix("search/")?.split_once('/')?;
        let split = match split {
            "train" => Split::Train,
            "seen" => Split::Seen,
            "unseen" => Split::Unseen,
            _ => return None,
        };
        self.get(split, index.parse().ok()?)
    }

    /// The task at an index of a split; its kind is the question's data set.
    pub fn task(&self, split: Split, index: u64) -> Option<Task> {
        let question = self.get(split, index)?;
        Some(Task { id: question.id.clone(), kind: question.source.clone() })
    }

    /// What a user should know of the files: repeated questions, shared identifiers.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
}

/// `search/<split>/<index>`.
pub(super) fn task_id(split: Split, index: u64) -> String {
    let split = match split {
        Split::Train => "train",
        Split::Seen => "seen",
        Split::Unseen => "unseen",
    };
    format!("search/{split}/{index}")
}

fn read(path: &Path) -> Result<Vec<Question>, EnvError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let source = name.split('.').next().unwrap_or_default();
    let mut questions = Vec::new();
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) {
        questions = super::parquet_rows::load(path, source)?;
    } else {
        each_line(path, |_, line| {
            questions.push(Question::parse(line, source)?);
            Ok(true)
        })?;
    }
    if questions.is_empty() {
        return Err(refused(path, None, &"the file holds no question"));
    }
    Ok(questions)
}

fn split_of(question: &Question) -> Split {
    let source = question.source.as_str();
    let in_domain = IN_DOMAIN.contains(&source);
    let said = question.split.as_deref().unwrap_or_default();
    match said {
        "train" => return Split::Train,
        "seen" => return Split::Seen,
        "unseen" => return Split::Unseen,
        _ if OUT_OF_DOMAIN.contains(&source) => return Split::Unseen,
        "dev" | "valid" | "validation" => return Split::Seen,
        "test" => return if in_domain { Split::Seen } else { Split::Unseen },
        _ => {}
    }
    match (hash(&question.question) % 10, in_domain) {
        (0, _) => Split::Seen,
        (1, false) => Split::Unseen,
        _ => Split::Train,
    }
}

/// FNV-1a with a final mix, so that the last decimal digit is as good as any.
fn hash(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: &str, source: &str, split: Option<&str>, text: &str) -> Question {
        Question {
            id: id.to_owned(),
            source: source.to_owned(),
            question: text.to_owned(),
            golden_answers: vec!["a".to_owned()],
            split: split.map(str::to_owned),
            ..Question::default()
        }
    }

    #[test]
    fn splits_follow_the_file_then_the_data_set() {
        for (source, split, expected) in [
            ("musique", Some("train"), Split::Train),
            ("musique", Some("dev"), Split::Unseen),
            ("bamboogle", None, Split::Unseen),
            ("nq", Some("test"), Split::Seen),
            ("own", Some("test"), Split::Unseen),
            ("own", Some("validation"), Split::Seen),
            ("own", Some("unseen"), Split::Unseen),
        ] {
            assert_eq!(split_of(&question("", source, split, "q")), expected, "{source} {split:?}");
        }
    }

    #[test]
    fn the_hash_shares_out() {
        let mut counts = [0; 3];
        for i in 0..1000 {
            counts[split_of(&question("", "own", None, &format!("question {i}"))) as usize] += 1;
        }
        assert!((750..850).contains(&counts[0]) && counts[1] > 70 && counts[2] > 70, "{counts:?}");
        for i in 0..100 {
            let q = question("", "nq", Some("eval"), &format!("question {i}"));
            assert_ne!(split_of(&q), Split::Unseen);
        }
    }

    #[test]
    fn identifiers_are_unique() {
        let set = Questions::new([
            question("a", "x", Some("train"), "1"),
            question("a", "x", Some("test"), "1"),
            question("a", "x", Some("train"), "2"),
            question("", "x", Some("train"), "3"),
        ]);
        let ids: Vec<_> = set.all().iter().map(|q| q.id.as_str()).collect();
        assert_eq!(ids, ["a", "a#2", "search/train/2"]);
        assert_eq!(set.notices().len(), 2);
        assert_eq!(set.len(Split::Train), 3);
        assert_eq!(set.find("search/train/1").unwrap().id, "a#2");
        assert_eq!(set.find("a#2").unwrap().question, "2");
        assert!(set.find("search/train/3").is_none() && set.find("b").is_none());
        assert_eq!(set.task(Split::Train, 0).unwrap().kind, "x");
    }
}
