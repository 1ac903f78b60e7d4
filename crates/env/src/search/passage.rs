//! A passage, and whoever finds passages.

/// One passage that a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passage {
    /// The corpus' identifier.
    pub id: String,
    /// The first line of the contents, without the quotes around it.
    pub title: String,
    /// What follows the first line.
    pub text: String,
    /// The whole passage: `"Title"`, a line break, the text.
    pub contents: String,
    /// The retriever's score; larger is better.
    pub score: f32,
}

impl Passage {
    /// A passage from its contents, title and text split off as Search-R1's server does.
    pub fn from_contents(id: String, contents: String, score: f32) -> Self {
        let (title, text) = split(&contents);
        Self { id, title: title.to_owned(), text: text.to_owned(), contents, score }
    }
}

/// Title and text of a passage: the first line without the quotes around it, and what follows.
pub fn split(contents: &str) -> (&str, &str) {
    let (first, rest) = contents.split_once('\n').unwrap_or((contents, ""));
    (first.trim_matches('"'), rest)
}

/// Finds passages for queries.
pub trait Retriever: Send + Sync {
    /// The best passages of every query, best first: as many lists as queries, none longer than
    /// `topk`. A query without a match has an empty list.
    ///
    /// # Errors
    /// The retriever cannot answer. It never answers with an empty list instead.
    fn retrieve(&self, queries: &[&str], topk: usize) -> Result<Vec<Vec<Passage>>, RetrieverError>;
}

/// Why a retriever could not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetrieverError {
    /// The address cannot be used.
    #[error("the retriever's address {url:?} cannot be used: {what}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// Nobody answers there.
    #[error(
        "no retriever answers at {url} ({what}; {attempts} attempts): start one there, e.g. with \
         `empg serve retrieval --corpus FILE`, or name another"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What the last attempt met.
        what: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// No answer in time.
    #[error("the retriever at {url} did not answer within {limit:?}")]
    Timeout {
        /// The address.
        url: String,
        /// The limit.
        limit: std::time::Duration,
    },
    /// An HTTP status that says no.
    #[error("the retriever at {url} answered with status {status} ({attempts} attempts): {body}")]
    Status {
        /// The address.
        url: String,
        /// The status of the last attempt.
        status: u16,
        /// The beginning of what it said.
        body: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// An answer that is none.
    #[error("the retriever at {url} answered in a shape that is not /retrieve's: {what}")]
    Shape {
        /// The address.
        url: String,
        /// What did not fit, and the beginning of the answer.
        what: String,
    },
    /// A query that the retriever does not know (embeddings looked up by their text).
    #[error("no embedding of the query {query:?}")]
    UnknownQuery {
        /// The query.
        query: String,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_title() {
        assert_eq!(split("\"A \"B\" C\"\ntext\nmore"), ("A \"B\" C", "text\nmore"));
        assert_eq!(split("no title line"), ("no title line", ""));
        assert_eq!(split(""), ("", ""));
    }
}
