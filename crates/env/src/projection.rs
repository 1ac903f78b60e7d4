//! From what a model wrote to the action that is played, as verl-agent's environments read it.

use std::fmt;

/// Which environment's convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// `<think>…</think><action>…</action>`; without an action, the last 30 characters.
    Alfworld,
    /// The same; without an action, the last 20 characters.
    Webshop,
    /// `<search>…</search>` or `<answer>…</answer>`.
    Search,
    /// The same as Search-R1 reads it: the first that is closed by its own tag, in small letters.
    SearchR1,
}

impl Projection {
    /// The convention of an environment, by its name on the command line; Deep Search's is
    /// verl-agent's.
    pub fn of(env: &str) -> Option<Self> {
        match env {
            "alfworld" | "households" => Some(Self::Alfworld),
            "webshop" => Some(Self::Webshop),
            "search" => Some(Self::Search),
            _ => None,
        }
    }

    /// The action in a model's text, and whether the text keeps the format. An action that the
    /// environment does not admit is still valid here.
    pub fn project(self, raw: &str) -> Projected {
        match self {
            Self::Alfworld => tagged(raw, 30),
            Self::Webshop => tagged(raw, 20),
            Self::Search => search(raw),
            Self::SearchR1 => search_r1(raw),
        }
    }

    /// Whether the environment takes what the model wrote and reads the action itself.
    pub(crate) fn is_read_by_environment(self) -> bool {
        matches!(self, Self::Search | Self::SearchR1)
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alfworld => "alfworld",
            Self::Webshop => "webshop",
            Self::Search => "search",
            Self::SearchR1 => "search-r1",
        })
    }
}

/// What a text comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projected {
    /// The action that is played.
    pub action: String,
    /// Whether the text keeps the format.
    pub valid: bool,
}

fn tagged(raw: &str, tail: usize) -> Projected {
    let text = raw.to_lowercase();
    let (open, close) = ("<action>", "</action>");
    let (Some(start), Some(end)) = (text.find(open), text.find(close)) else {
        let skip = text.chars().count().saturating_sub(tail);
        return Projected { action: text.chars().skip(skip).collect(), valid: false };
    };
    let inner = text.get(start + open.len()..end).unwrap_or_default();
    let thinks = raw.contains("<think>") && raw.contains("</think>");
    let chinese = raw.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    Projected { action: strip(inner).to_owned(), valid: thinks && !chinese }
}

fn search(raw: &str) -> Projected {
    let end = ["</search>", "</answer>"].iter().find_map(|t| Some(raw.find(t)? + t.len()));
    let kept = &raw[..end.unwrap_or(raw.len())];
    let block = ["search", "answer"].into_iter().find_map(|name| {
        let (_, start) = find_tag(kept, 0, name, false)?;
        let (end, _) = find_tag(kept, start, name, true)?;
        Some((name, strip(&kept[start..end])))
    });
    let count = |name| {
        let mut at = 0;
        std::iter::from_fn(|| {
            let (_, end) = find_tag(raw, at, name, false)?;
            at = end;
            Some(())
        })
        .count()
    };
    let (searches, answers) = (count("search"), count("answer"));
    match block {
        None => Projected { action: String::new(), valid: false },
        Some((name, inner)) => Projected {
            action: format!("<{name}>{inner}</{name}>"),
            valid: searches + answers <= 1,
        },
    }
}

fn search_r1(raw: &str) -> Projected {
    match crate::search::first_action(raw) {
        None => Projected { action: String::new(), valid: false },
        Some((is_search, inner)) => {
            let name = if is_search { "search" } else { "answer" };
            Projected { action: format!("<{name}>{}</{name}>", strip(inner)), valid: true }
        }
    }
}

/// The first opening (or closing) tag at or after `from`, letter case aside: its start and end.
fn find_tag(text: &str, from: usize, name: &str, closing: bool) -> Option<(usize, usize)> {
    let mut at = from;
    while let Some(offset) = text[at..].find('<') {
        let start = at + offset;
        let mut rest = &text[start + 1..];
        if closing {
            rest = rest.strip_prefix('/').unwrap_or("");
        }
        let mut chars = rest.char_indices();
        // `ſ` is an s to a reader that ignores case.
        let matches = name.chars().all(|want| {
            let same = |c: char| c.to_ascii_lowercase() == want || (c == 'ſ' && want == 's');
            chars.next().is_some_and(|(_, c)| same(c))
        });
        if matches && let Some((i, '>')) = chars.next() {
            let end = text.len() - rest.len() + i + 1;
            return Some((start, end));
        }
        at = start + 1;
    }
    None
}

/// Python's `str.strip`.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(projection: Projection, raw: &str) -> (String, bool) {
        let Projected { action, valid } = projection.project(raw);
        (action, valid)
    }

    #[test]
    fn reads_the_action() {
        let raw = "<think>hm</think> <ACTION> Go to Shelf 1\n</Action>";
        assert_eq!(parts(Projection::Alfworld, raw), ("go to shelf 1".to_owned(), true));
    }

    #[test]
    fn falls_back_to_the_tail() {
        let raw = "x".repeat(50);
        assert_eq!(parts(Projection::Alfworld, &raw), ("x".repeat(30), false));
        assert_eq!(parts(Projection::Webshop, &raw), ("x".repeat(20), false));
    }

    #[test]
    fn an_end_before_the_start_is_empty() {
        let raw = "<think></think></action>look<action>";
        assert_eq!(parts(Projection::Alfworld, raw), (String::new(), true));
    }

    #[test]
    fn thought_is_needed_and_chinese_refused() {
        assert!(!Projection::Alfworld.project("<action>look</action>").valid);
        assert!(!Projection::Alfworld.project("<think>中</think><action>look</action>").valid);
    }

    #[test]
    fn search_takes_the_first_block() {
        let raw = "so <Search> who? </search> <answer>x</answer>";
        assert_eq!(parts(Projection::Search, raw), ("<search>who?</search>".to_owned(), false));
        assert_eq!(
            parts(Projection::Search, "<answer> 42 </answer>"),
            ("<answer>42</answer>".to_owned(), true)
        );
    }

    #[test]
    fn search_r1_takes_the_first_closed_block() {
        for (raw, action) in [
            ("<search>a</search> <answer>b</answer>", "<search>a</search>"),
            ("<answer> b </answer>", "<answer>b</answer>"),
            ("<search>a</answer>", ""),
            ("<answer>b</answer><search>a</search>", "<answer>b</answer>"),
            ("<Search>a</Search>", ""),
        ] {
            let read = parts(Projection::SearchR1, raw);
            assert_eq!(read, (action.to_owned(), !action.is_empty()), "{raw}");
        }
    }
}
