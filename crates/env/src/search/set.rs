//! Deep Search as a set of tasks.

use std::path::Path;
use std::sync::Arc;

use super::bm25_retriever::Bm25Retriever;
use super::corpus::Corpus;
use super::dense_retriever::DenseRetriever;
use super::episode::{Episode, Rules, TokenCut};
use super::expert::SearchExpert;
use super::folder::Found;
use super::generated::{GeneratedQuestion, knowledge_base};
use super::http::{HttpOptions, HttpRetriever};
use super::lines::refused;
use super::options::SearchOptions;
use super::passage::Retriever;
use super::question::Question;
use super::questions::Questions;
use crate::expert::show;
use crate::{
    Demonstration, Env, EnvError, Expert, Manner, Observation, Showing, Split, Task, TaskSet,
    Transition,
};

/// Questions, the retriever that answers searches, and the rules of play. Cheap to clone.
#[derive(Clone)]
pub struct SearchSet {
    questions: Arc<Questions>,
    retriever: Arc<dyn Retriever>,
    rules: Rules,
    notices: Arc<[String]>,
}

impl std::fmt::Debug for SearchSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchSet")
            .field("questions", &self.questions.all().len())
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl SearchSet {
    /// Questions over a retriever. Episodes end after `max_turns` (`None`: with an answer only).
    pub fn new(
        questions: Arc<Questions>,
        retriever: Arc<dyn Retriever>,
        options: SearchOptions,
        max_turns: Option<u32>,
    ) -> Self {
        let notices = questions.notices().into();
        Self { questions, retriever, rules: Rules::new(options, max_turns), notices }
    }

    /// The questions of a data folder (every file of them) over its corpus, with the default rules;
    /// [`SearchSet::with`] changes them. `corpus` names a file elsewhere, a folder of vectors
    /// ([`DenseRetriever::load`]), or a retriever by its address (`http://…`, not `https`).
    ///
    /// # Errors
    /// A folder without questions, no corpus or several, files that cannot be read.
    pub fn load(folder: &Path, corpus: Option<&Path>) -> Result<Self, EnvError> {
        let found = Found::look(folder)?;
        if found.questions.is_empty() {
            let what = "no questions here: expected .jsonl(.gz) lines of {\"id\", \"data_source\", \
                        \"question\", \"golden_answers\"}, or Search-R1's .parquet files";
            return Err(refused(folder, None, &what));
        }
        let corpus = match corpus {
            Some(corpus) => corpus,
            None => found.corpus(folder)?,
        };
        let (questions, retriever) = std::thread::scope(|scope| {
            let retriever = scope.spawn(|| retriever(corpus));
            let questions = Questions::load_all(&found.questions);
            let retriever = retriever
                .join()
                .unwrap_or_else(|_| Err(EnvError::Failed("the index was not built".to_owned())));
            (questions, retriever)
        });
        let questions = questions?;
        let (retriever, mut notices) = retriever?;
        notices.extend_from_slice(questions.notices());
        let options = SearchOptions::default();
        let mut set = Self::new(Arc::new(questions), retriever, options, Some(4));
        set.notices = notices.into();
        Ok(set)
    }

    /// A generated world: its questions over its passages. Kinds are `2 hops` to `4 hops`, with
    /// `, other domain` behind them outside of the training distribution.
    pub fn generated(seed: u64, options: SearchOptions, max_turns: Option<u32>) -> Self {
        let base = knowledge_base(seed);
        let question = |split: &str, domain: &str, q: GeneratedQuestion| Question {
            id: String::new(),
            source: format!("{} hops{domain}", q.hops),
            question: q.question,
            golden_answers: q.golden_answers,
            split: Some(split.to_owned()),
            metadata: serde_json::Value::Null,
        };
        let train = base.questions.train.into_iter().map(|q| question("train", "", q));
        let seen = base.questions.seen.into_iter().map(|q| question("seen", "", q));
        let unseen =
            base.questions.unseen.into_iter().map(|q| question("unseen", ", other domain", q));
        let questions = Questions::new(train.chain(seen).chain(unseen));
        let corpus = Corpus::from_passages(base.passages);
        let retriever = Bm25Retriever::new(Arc::new(corpus));
        Self::new(Arc::new(questions), Arc::new(retriever), options, max_turns)
    }

    /// The same questions over another retriever, with what is notable of it.
    #[must_use]
    pub fn over(self, (retriever, notices): (Arc<dyn Retriever>, Vec<String>)) -> Self {
        let notices = notices.into_iter().chain(self.notices.iter().cloned()).collect();
        Self { retriever, notices, ..self }
    }

    /// The same questions and retriever under other rules.
    #[must_use]
    pub fn with(&self, options: SearchOptions, max_turns: Option<u32>) -> Self {
        let rules = Rules { options, max_turns, ..self.rules.clone() };
        Self { rules, ..self.clone() }
    }

    /// The same with another sentence for actions that cannot be read (Search-R1's protocol).
    #[must_use]
    pub fn with_corrective(mut self, sentence: &str) -> Self {
        self.rules.corrective = sentence.into();
        self
    }

    /// The same with another count of observation tokens (Search-R1's protocol).
    #[must_use]
    pub fn with_token_cut(mut self, cut: TokenCut) -> Self {
        self.rules.cut = cut;
        self
    }

    /// The questions.
    pub fn questions(&self) -> &Arc<Questions> {
        &self.questions
    }

    /// The retriever.
    pub fn retriever(&self) -> &Arc<dyn Retriever> {
        &self.retriever
    }

    /// The rules of play.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What a user should know of the data: repeated passages or questions, shared identifiers.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
}

/// The retriever that a file of passages, a folder of vectors ([`DenseRetriever::load`]) or a server's
/// address stands for, and what is notable of it.
///
/// # Errors
/// A file that cannot be read, an address that cannot be used.
pub fn retriever(corpus: &Path) -> Result<(Arc<dyn Retriever>, Vec<String>), EnvError> {
    if let Some(url) = corpus.to_str().filter(|text| text.contains("://")) {
        let http = HttpRetriever::new(url, HttpOptions::default());
        let http = http.map_err(|e| EnvError::Failed(e.to_string()))?;
        return Ok((Arc::new(http), Vec::new()));
    }
    if corpus.is_dir() {
        return Ok((Arc::new(DenseRetriever::load(corpus)?), Vec::new()));
    }
    let corpus = Corpus::load(corpus)?;
    let notices = corpus.notices().to_vec();
    Ok((Arc::new(Bm25Retriever::new(Arc::new(corpus))), notices))
}

impl TaskSet for SearchSet {
    fn name(&self) -> &'static str {
        "search"
    }

    fn len(&self, split: Split) -> Option<u64> {
        Some(self.questions.len(split))
    }

    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError> {
        self.questions.task(split, index).ok_or_else(|| EnvError::UnknownTask {
            task: super::questions::task_id(split, index),
            set: "search".to_owned(),
            hint: Some(format!("the split has {} questions", self.questions.len(split))),
        })
    }

    fn find(&self, id: &str) -> Result<Task, EnvError> {
        let question = self.questions.find(id).ok_or_else(|| unknown(id))?;
        Ok(Task { id: id.to_owned(), kind: question.source.clone() })
    }

    fn make(&self) -> Box<dyn Env> {
        Box::new(SearchEnv { set: self.clone(), episode: None })
    }

    fn expert(&self, manner: Manner, seed: u64) -> Option<Box<dyn Expert>> {
        Some(Box::new(SearchExpert::new(manner, seed)))
    }

    fn demonstrate(
        &self,
        task: &str,
        seed: u64,
        showing: &Showing,
    ) -> Result<Option<Demonstration>, EnvError> {
        let mut env = self.make();
        let mut expert = SearchExpert::new(showing.manner, seed);
        let question = self.questions.find(task).map(|q| q.question.clone()).unwrap_or_default();
        let words: Vec<&str> = question.split(|c: char| !c.is_alphanumeric()).collect();
        let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
        // Searches for one or two of the question's words.
        let played = show(&mut *env, &mut expert, task, seed, showing, |_, dice| {
            let at = dice.below(words.len());
            let query = words.get(at..(at + dice.range(1, 2)).min(words.len()))?.join(" ");
            Some(format!("<search>{query}</search>"))
        })?;
        Ok(Some(played))
    }
}

fn unknown(task: &str) -> EnvError {
    EnvError::UnknownTask {
        task: task.to_owned(),
        set: "search".to_owned(),
        hint: Some("a question's id, or search/train/0 with train, seen or unseen".to_owned()),
    }
}

/// An engine of a [`SearchSet`]. Its actions are what the model wrote: the environment itself reads
/// the search or the answer out of it. A search runs within `step`.
#[derive(Debug)]
struct SearchEnv {
    set: SearchSet,
    episode: Option<Episode>,
}

impl Env for SearchEnv {
    fn reset(&mut self, task: &str, _seed: u64) -> Result<Observation, EnvError> {
        let question = self.set.questions.find(task).ok_or_else(|| unknown(task))?;
        let episode = self.episode.insert(Episode::new(Arc::clone(question)));
        Ok(episode.observe())
    }

    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        let running = self.episode.as_mut().filter(|episode| !episode.is_over());
        let episode = running.ok_or(EnvError::NotRunning)?;
        episode
            .step(action, &self.set.rules, &*self.set.retriever)
            .map_err(|error| EnvError::Failed(error.to_string()))
    }
}
