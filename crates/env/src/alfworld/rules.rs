//! Which domain and grammar a game file brings: recognised by content, refused if unknown.

use super::error::GameError;

/// In which points the known domains and grammars differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// A receptacle of type `SinkType` cleans, as `SinkBasinType` does.
    pub sink_cleans: bool,
    /// `open` needs every receptacle to be closed.
    pub one_open_at_a_time: bool,
    /// `use` needs the object at the agent's location, not in a receptacle there.
    pub use_by_location: bool,
    /// The answer to `open` tells what is inside.
    pub open_shows_contents: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            sink_cleans: true,
            one_open_at_a_time: false,
            use_by_location: false,
            open_shows_contents: true,
        }
    }
}

const USUAL: Domain =
    Domain { sink_cleans: true, one_open_at_a_time: false, use_by_location: false };
const BASIN_ONLY: Domain = Domain { sink_cleans: false, ..USUAL };
const EARLY: Domain = Domain { one_open_at_a_time: true, use_by_location: true, ..USUAL };

/// The domains whose rules are built in, by the fingerprint of their text: each as it was
/// released, and with the `help` action that data 2.1.2 adds.
const DOMAINS: [(u64, Domain); 6] = [
    (0x89239e96e82b7e9b, USUAL),
    (0xc965db97cf4bf84e, USUAL),
    (0xf84c353e467d45ea, BASIN_ONLY),
    (0x76856f4bd2a49053, BASIN_ONLY),
    (0x65fe99e46db346b0, EARLY),
    (0x4299e1cb007fd365, EARLY),
];

const TELLS: Grammar = Grammar { open_shows_contents: true };
const SILENT: Grammar = Grammar { open_shows_contents: false };

/// The grammars whose texts are built in: as released in 2.1.1, patched to 2.1.2 (the text of
/// `help` with line breaks or with escapes), and the one inside alfworld 0.4.
const GRAMMARS: [(u64, Grammar); 7] = [
    (0xa5c5dc0bebab8b35, TELLS),
    (0x69fa8cb327bdcad0, TELLS),
    (0xfa10c68255287fa6, TELLS),
    (0x1889c2aa361a5fd9, TELLS),
    (0x4a73d1f5eaeb817d, SILENT),
    (0xdc684bd22e083d64, SILENT),
    (0x6f220c3c44ec7d6a, SILENT),
];

/// A known domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    sink_cleans: bool,
    one_open_at_a_time: bool,
    use_by_location: bool,
}

/// A known grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grammar {
    open_shows_contents: bool,
}

impl Domain {
    /// Recognises a domain's text; `name` is what an error calls it.
    pub(crate) fn recognise(name: &str, text: &str) -> Result<Self, GameError> {
        let print = domain_fingerprint(text);
        DOMAINS.iter().find(|(known, _)| *known == print).map(|(_, domain)| *domain).ok_or_else(
            || GameError::UnknownDomain { name: format!("{name} (fingerprint {print:016x})") },
        )
    }

    /// The rules of games with this domain and a grammar.
    pub(crate) fn with(self, grammar: Grammar) -> Rules {
        Rules {
            sink_cleans: self.sink_cleans,
            one_open_at_a_time: self.one_open_at_a_time,
            use_by_location: self.use_by_location,
            open_shows_contents: grammar.open_shows_contents,
        }
    }
}

impl Grammar {
    /// Recognises a grammar's text, whatever its goal sentence says.
    pub(crate) fn recognise(name: &str, text: &str) -> Result<Self, GameError> {
        let print = grammar_fingerprint(text);
        GRAMMARS.iter().find(|(known, _)| *known == print).map(|(_, grammar)| *grammar).ok_or_else(
            || GameError::UnknownGrammar { name: format!("{name} (fingerprint {print:016x})") },
        )
    }
}

const TASK_MARK: &str = "Your task is to: ";

/// The goal sentence that a game's grammar carries, its full stop included.
pub(crate) fn task_sentence(grammar: &str) -> Option<&str> {
    let (_, rest) = grammar.split_once(TASK_MARK)?;
    rest.split_once('"').map(|(sentence, _)| sentence)
}

/// The name that a domain gives itself in `(domain NAME)`; empty if it has none.
pub(crate) fn domain_name(text: &str) -> &str {
    let rest = text.split_once("(domain").map_or("", |(_, rest)| rest);
    rest.split(')').next().unwrap_or_default().trim()
}

/// A fingerprint of a domain: comments, white space and letter case do not count.
pub(crate) fn domain_fingerprint(text: &str) -> u64 {
    let mut hash = Fnv::new();
    for line in text.lines() {
        let code = line.split(';').next().unwrap_or_default();
        hash.add(code.bytes().filter(|b| !b.is_ascii_whitespace()).map(|b| b.to_ascii_lowercase()));
    }
    hash.0
}

/// A fingerprint of a grammar: white space and the goal sentence do not count.
pub(crate) fn grammar_fingerprint(text: &str) -> u64 {
    let mut hash = Fnv::new();
    let (before, after) = match text.split_once(TASK_MARK) {
        Some((before, rest)) => (before, rest.split_once('"').map_or("", |(_, after)| after)),
        None => (text, ""),
    };
    for part in [before, TASK_MARK, after] {
        hash.add(part.bytes().filter(|b| !b.is_ascii_whitespace()));
    }
    hash.0
}

/// 64-bit FNV-1a: stable across releases and platforms.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_comments_do_not_count() {
        let a = domain_fingerprint("(define (domain X) ; a comment\n (:action go))");
        let b = domain_fingerprint("(define\t(domain x)\n\n(:action go)\n)");
        assert_eq!(a, b);
        assert_ne!(a, domain_fingerprint("(define (domain x) (:action stay))"));
        assert_eq!(domain_name("; a comment\n(define (domain blocks-world)\n"), "blocks-world");
        assert_eq!(domain_name("nothing"), "");
    }

    #[test]
    fn the_goal_sentence_does_not_count() {
        let grammar = |task: &str| format!("{{\"rhs\": \"Your task is to: {task}\"}} rest");
        assert_eq!(grammar_fingerprint(&grammar("a.")), grammar_fingerprint(&grammar("UNKNOWN.")));
        assert_eq!(task_sentence(&grammar("put it there.")), Some("put it there."));
    }

    #[test]
    fn strangers_are_refused_with_their_name() {
        let error = Domain::recognise("sokoban", "(define (domain sokoban))").unwrap_err();
        assert!(error.to_string().contains("sokoban"), "{error}");
    }
}
