//! A searcher for the generated world's questions: one search for each fact, then the answer.

use super::generated::{RELATIONS, parse, read};
use crate::dice::{Dice, mix};
use crate::expert::{Expert, Manner};

/// Mistakes of one episode.
#[derive(Clone, Copy, Debug, Default)]
struct Flaws {
    /// Answers one fact too early.
    stops_early: bool,
    /// At this hop, believes a passage about something else.
    misreads: Option<usize>,
}

/// A searcher in one episode. It understands the questions of the generated world; of any other it
/// searches the question itself, then answers with the first title.
#[derive(Debug)]
pub struct SearchExpert {
    flaws: Flaws,
    wander: f64,
    seed: u64,
    /// Turns taken in, anybody's.
    turn: u64,
    chain: Vec<usize>,
    question: String,
    /// What the next fact is about.
    subject: String,
    /// Facts found.
    found: usize,
    /// Its own searches in a row that did not lead on; what others search says nothing about them.
    vain: usize,
}

const SALT: u64 = 0x7365_6172_6368_6572;
/// Searches in a row without result after which it answers what it has.
const PATIENCE: usize = 2;

impl SearchExpert {
    /// An expert whose mistakes are drawn from a seed.
    pub fn new(manner: Manner, seed: u64) -> Self {
        let mut dice = Dice::new(mix(SALT, seed));
        let careless = manner == Manner::Careless;
        let stops_early = dice.chance(0.4) && careless;
        let misreads = (dice.chance(0.3) && careless).then(|| dice.below(3));
        Self {
            flaws: Flaws { stops_early, misreads },
            wander: if careless { 0.06 } else { 0.0 },
            seed,
            turn: 0,
            chain: Vec::new(),
            question: String::new(),
            subject: String::new(),
            found: 0,
            vain: 0,
        }
    }

    /// Takes in what an action found; `own` says whether this expert would have searched for it.
    fn read(&mut self, own: bool, observation: &str) {
        let passages = passages(observation);
        let Some(&relation) = self.chain.get(self.found) else {
            if self.chain.is_empty() && own {
                self.vain = PATIENCE;
                if let Some((title, _)) = passages.into_iter().next() {
                    self.subject = title;
                }
            }
            return;
        };
        let misread = self.flaws.misreads == Some(self.found);
        let about = |title: &str, body: &str| {
            title.eq_ignore_ascii_case(&self.subject)
                || body.to_lowercase().contains(&format!(
                    "{} is also known as {}.",
                    title.to_lowercase(),
                    self.subject.to_lowercase()
                ))
        };
        let fact = |(title, body): &(String, String)| {
            sentences(body).find_map(|sentence| read(relation, title, sentence)).map(str::to_owned)
        };
        let right = passages.iter().find(|(title, body)| about(title, body)).and_then(fact);
        let wrong = || passages.iter().filter(|(title, body)| !about(title, body)).find_map(fact);
        let object = if misread { wrong().or(right) } else { right };
        match object {
            Some(object) => {
                self.subject = object;
                self.found += 1;
                self.vain = 0;
            }
            None => self.vain += usize::from(own),
        }
    }

    /// The search for the next fact, or for anything else about its subject.
    fn query(&self, noun: &str) -> String {
        format!("{} {noun}", self.subject).trim().to_owned()
    }

    /// What the next fact is called; nothing where the question is not understood.
    fn noun(&self) -> &'static str {
        self.chain.get(self.found).map_or("", |&relation| RELATIONS[relation].noun)
    }
}

impl Expert for SearchExpert {
    fn observe(&mut self, action: Option<&str>, observation: &str) {
        if let Some(action) = action {
            self.turn += 1;
            let own =
                searched(action).is_some_and(|q| q.eq_ignore_ascii_case(&self.query(self.noun())));
            self.read(own, observation);
            return;
        }
        self.question = observation.trim().to_string();
        self.turn = 0;
        self.found = 0;
        self.vain = 0;
        if let Some((chain, start)) = parse(&self.question) {
            self.subject = start.to_string();
            self.chain = chain;
        } else {
            self.subject.clone_from(&self.question);
            self.chain.clear();
        }
    }

    fn next_action(&mut self) -> String {
        let enough = self.chain.len() - usize::from(self.flaws.stops_early && self.chain.len() > 1);
        if self.found >= enough && !self.chain.is_empty() || self.vain >= PATIENCE {
            return format!("<answer>{}</answer>", self.subject);
        }
        let mut noun = self.noun();
        // Drawn from the turn, so that asking changes nothing.
        let mut dice = Dice::new(mix(mix(SALT, self.seed), self.turn));
        if !self.chain.is_empty() && self.wander > 0.0 && dice.chance(self.wander) {
            let other = RELATIONS[dice.below(RELATIONS.len())].noun;
            noun = if other == noun { "" } else { other };
        }
        format!("<search>{}</search>", self.query(noun))
    }
}

/// The query in an action.
fn searched(action: &str) -> Option<&str> {
    let (_, rest) = action.split_once("<search>")?;
    Some(rest.split_once("</search>")?.0.trim())
}

/// Title and text of the passages of an observation, in both protocols.
fn passages(observation: &str) -> Vec<(String, String)> {
    let Some(block) = observation
        .split_once("<information>")
        .and_then(|(_, rest)| rest.split_once("</information>"))
        .map(|(block, _)| block)
    else {
        return Vec::new();
    };
    let text = serde_json::from_str::<serde_json::Value>(block)
        .ok()
        .and_then(|json| json.get("result")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| block.to_owned());
    let mut passages: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let numbered = line
            .strip_prefix("Doc ")
            .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        if let Some(rest) = numbered {
            if let Some((title, body)) =
                rest.strip_prefix("(Title: ").and_then(|rest| rest.split_once(") "))
            {
                passages.push((title.trim_matches('"').to_owned(), body.to_owned()));
                continue;
            }
            if let Some(title) = rest.strip_prefix(": ") {
                passages.push((title.trim_matches('"').to_owned(), String::new()));
                continue;
            }
        }
        if let Some((_, body)) = passages.last_mut() {
            if !body.is_empty() {
                body.push(' ');
            }
            body.push_str(line);
        }
    }
    passages
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(". ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "<information>{\"result\": \"Doc 1: \\\"Silent Harbor\\\"\\nSilent Harbor \
        stars Milo Venn. Ada Lorn directed Silent Harbor.\\nDoc 2: \\\"Iron Harbor\\\"\\nIron Harbor was \
        directed by Otto Hask.\\n\"}</information>";

    #[test]
    fn follows_the_chain() {
        let mut expert = SearchExpert::new(Manner::Clean, 0);
        expert.observe(None, "Where was the director of Silent Harbor born?");
        assert_eq!(expert.next_action(), "<search>Silent Harbor director</search>");
        expert.observe(Some("<search>Silent Harbor director</search>"), RESULT);
        assert_eq!(expert.next_action(), "<search>Ada Lorn birthplace</search>");
        let last = "\n\n<information>Doc 1(Title: \"Ada Lorn\") Ada Lorn was born in Torvale.</information>\n\n";
        expert.observe(Some("<search>Ada Lorn birthplace</search>"), last);
        assert_eq!(expert.next_action(), "<answer>Torvale</answer>");
    }

    #[test]
    fn is_tired_by_its_own_searches_only() {
        let nothing = "<information>{\"result\": \"\"}</information>";
        let mut expert = SearchExpert::new(Manner::Clean, 0);
        expert.observe(None, "Where was the director of Silent Harbor born?");
        for _ in 0..4 {
            expert.observe(Some("<search>harbor</search>"), nothing);
            expert.observe(Some("what?"), "");
        }
        let own = expert.next_action();
        assert_eq!(own, "<search>Silent Harbor director</search>");
        expert.observe(Some(&own), nothing);
        assert_eq!(expert.next_action(), own);
        expert.observe(
            Some("<think>Once more.</think> <search> silent harbor director</search>"),
            nothing,
        );
        assert_eq!(expert.next_action(), "<answer>Silent Harbor</answer>");
        expert.observe(None, "Why?");
        expert.observe(Some("<search>harbor</search>"), RESULT);
        assert_eq!(expert.next_action(), "<search>Why?</search>");
    }

    #[test]
    fn answers_anything() {
        let mut expert = SearchExpert::new(Manner::Clean, 0);
        for question in ["", "the", "What is the of of?", "Who directed ?"] {
            expert.observe(None, question);
            for _ in 0..4 {
                let action = expert.next_action();
                expert.observe(Some(&action), "<information>{\"result\": \"Doc\"}</information>");
            }
            assert!(expert.next_action().starts_with("<answer>"), "{question:?}");
        }
    }
}
