//! Things, facts, passages and questions of one world.

use std::collections::HashSet;

use super::relation::{Kind, RELATIONS, ask};
use super::words::{
    ADJECTIVES, BAND_FIRST, BAND_SECOND, BRANDS, CITIES, COUNTRIES, CURRENCIES, FIRST, LANGUAGES,
    LAST, NICKNAMES, NOUNS, RIVERS, TRADES,
};
use super::{Domain, GeneratedQuestion, GeneratedQuestions};
use crate::dice::{Dice, mix};

const PEOPLE: usize = 320;
const FILMS: usize = 140;
const BOOKS: usize = 110;
const COMPANIES: usize = 70;
const BANDS: usize = 60;
const TRAIN_QUESTIONS: usize = 4000;
const HELD_OUT_QUESTIONS: usize = 500;

/// Passages and questions.
#[derive(Clone, Debug)]
pub struct KnowledgeBase {
    /// Identifier and text of every passage: the title in quotes, a line break, sentences.
    pub passages: Vec<(String, String)>,
    /// What can be asked.
    pub questions: GeneratedQuestions,
}

struct Thing {
    kind: Kind,
    name: String,
    /// Another name.
    alias: Option<String>,
    /// Relation and the thing it leads to.
    facts: Vec<(usize, usize)>,
    /// Questions of the held-out splits start here.
    held_out: bool,
}

/// The world of a seed. The same seed gives the same world.
pub fn knowledge_base(seed: u64) -> KnowledgeBase {
    let mut dice = Dice::new(mix(0x0077_6f72_6c64, seed));
    let mut things = things(&mut dice);
    facts(&mut things, &mut dice);
    let passages = passages(&things, &mut dice);
    let questions = questions(&things, &mut dice);
    KnowledgeBase { passages, questions }
}

fn things(dice: &mut Dice) -> Vec<Thing> {
    let mut things = Vec::new();
    let mut add = |kind, names: Vec<String>| {
        things.extend(names.into_iter().map(|name| Thing {
            kind,
            name,
            alias: None,
            facts: Vec::new(),
            held_out: false,
        }));
    };
    let single = |words: &[&str]| words.iter().map(|w| (*w).to_string()).collect::<Vec<_>>();
    add(Kind::Person, pairs(FIRST, LAST, PEOPLE, dice));
    // Films, books and second names are drawn together, so that no title stands for two works.
    let mut titles = pairs(ADJECTIVES, NOUNS, FILMS + BOOKS + 80, dice);
    let mut spare = titles.split_off(FILMS + BOOKS);
    let books = titles.split_off(FILMS);
    add(Kind::Film, titles);
    add(Kind::Book, books);
    add(Kind::Company, pairs(BRANDS, TRADES, COMPANIES, dice));
    add(Kind::Band, pairs(BAND_FIRST, BAND_SECOND, BANDS, dice));
    add(Kind::City, single(CITIES));
    add(Kind::Country, single(COUNTRIES));
    for leaf in [LANGUAGES, CURRENCIES, RIVERS] {
        add(Kind::Leaf, single(leaf));
    }
    let mut nicknames = pairs(&["the"], NICKNAMES, NICKNAMES.len(), dice);
    for thing in &mut things {
        thing.held_out = dice.chance(0.2);
        thing.alias = match thing.kind {
            Kind::Film | Kind::Book if dice.chance(0.2) => spare.pop(),
            Kind::Person if dice.chance(0.05) => nicknames.pop(),
            _ => None,
        };
    }
    things
}

/// Different two-word names.
fn pairs(first: &[&str], second: &[&str], count: usize, dice: &mut Dice) -> Vec<String> {
    let mut all: Vec<String> =
        first.iter().flat_map(|a| second.iter().map(move |b| format!("{a} {b}"))).collect();
    dice.shuffle(&mut all);
    all.truncate(count);
    all
}

fn facts(things: &mut [Thing], dice: &mut Dice) {
    let of = |kind: Kind, words: &[&str], things: &[Thing]| -> Vec<usize> {
        (0..things.len())
            .filter(|&i| things[i].kind == kind)
            .filter(|&i| kind != Kind::Leaf || words.contains(&things[i].name.as_str()))
            .collect()
    };
    for (index, relation) in RELATIONS.iter().enumerate() {
        let leaves = match relation.noun {
            "river" => RIVERS,
            "language" => LANGUAGES,
            _ => CURRENCIES,
        };
        let targets = of(relation.to, leaves, things);
        for (place, thing) in things.iter_mut().enumerate() {
            if thing.kind != relation.from {
                continue;
            }
            let target = match relation.noun {
                // The capital lies in its country; see below.
                "capital" => continue,
                "language" => {
                    let country = thing.name.as_str();
                    let place = COUNTRIES.iter().position(|c| *c == country).unwrap_or(0);
                    targets[place % targets.len()]
                }
                _ => loop {
                    let target = targets[dice.below(targets.len())];
                    if target != place {
                        break target;
                    }
                },
            };
            thing.facts.push((index, target));
        }
    }
    capitals(things);
}

/// Every country's capital is its first city; a country without cities has none.
fn capitals(things: &mut [Thing]) {
    let noun = |noun| RELATIONS.iter().position(|r| r.noun == noun);
    let (Some(country), Some(capital)) = (noun("country"), noun("capital")) else { return };
    for city in 0..things.len() {
        let Some(&(_, home)) = things[city].facts.iter().find(|f| f.0 == country) else { continue };
        if !things[home].facts.iter().any(|f| f.0 == capital) {
            things[home].facts.push((capital, city));
        }
    }
}

fn passages(things: &[Thing], dice: &mut Dice) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for thing in things.iter().filter(|t| t.kind != Kind::Leaf) {
        let name = &thing.name;
        let mut sentences: Vec<String> = thing
            .facts
            .iter()
            .map(|&(relation, object)| {
                let forms = RELATIONS[relation].statements;
                forms[dice.below(forms.len())]
                    .replace("{s}", name)
                    .replace("{o}", &things[object].name)
            })
            .collect();
        dice.shuffle(&mut sentences);
        if let Some(alias) = &thing.alias {
            sentences.insert(0, format!("{name} is also known as {alias}."));
        }
        texts.push(format!("\"{name}\"\n{}", sentences.join(" ")));
    }
    // Passages that mention names and answer nothing.
    for city in things.iter().filter(|t| t.kind == Kind::City) {
        let people: Vec<&Thing> = things.iter().filter(|t| t.kind == Kind::Person).collect();
        let guest = &people[dice.below(people.len())].name;
        let host = &people[dice.below(people.len())].name;
        let name = &city.name;
        texts.push(format!(
            "\"{name} Festival\"\nThe festival of {name} was opened by {guest}. {host} was a guest."
        ));
    }
    dice.shuffle(&mut texts);
    texts.into_iter().enumerate().map(|(i, text)| (i.to_string(), text)).collect()
}

/// Whether only questions outside of the domain combine these two relations.
fn reserved(first: usize, second: usize) -> bool {
    const RESERVED: [(&str, &str); 7] = [
        ("director", "spouse"),
        ("author", "teacher"),
        ("star", "birthplace"),
        ("founder", "teacher"),
        ("mayor", "birthplace"),
        ("country", "currency"),
        ("spouse", "teacher"),
    ];
    RESERVED.contains(&(RELATIONS[first].noun, RELATIONS[second].noun))
}

fn questions(things: &[Thing], dice: &mut Dice) -> GeneratedQuestions {
    let starts = |held_out| -> Vec<usize> {
        (0..things.len())
            .filter(|&i| {
                things[i].held_out == held_out
                    && !matches!(things[i].kind, Kind::Leaf | Kind::Country)
            })
            .collect()
    };
    let (train, held_out) = (starts(false), starts(true));
    let mut asked = HashSet::new();
    let mut draw = |from: &[usize], count, domain, dice: &mut Dice| {
        let mut questions = Vec::with_capacity(count);
        // The world has many times as many questions; the bound is for a world that had not.
        for _ in 0..count * 200 {
            if questions.len() == count {
                break;
            }
            let start = from[dice.below(from.len())];
            let hops = [2, 2, 3, 3, 4][dice.below(5)];
            if let Some(question) = question(things, start, hops, domain, dice)
                && asked.insert(question.question.clone())
            {
                questions.push(question);
            }
        }
        questions
    };
    GeneratedQuestions {
        train: draw(&train, TRAIN_QUESTIONS, Domain::In, dice),
        seen: draw(&held_out, HELD_OUT_QUESTIONS, Domain::In, dice),
        unseen: draw(&held_out, HELD_OUT_QUESTIONS, Domain::Out, dice),
    }
}

fn question(
    things: &[Thing],
    start: usize,
    hops: usize,
    domain: Domain,
    dice: &mut Dice,
) -> Option<GeneratedQuestion> {
    let mut chain: Vec<usize> = Vec::with_capacity(hops);
    let mut visited = vec![start];
    let mut novel = false;
    for hop in 0..hops {
        let here = visited[hop];
        let facts = &things[here].facts;
        let &(relation, next) = dice.pick(facts)?;
        // Going back, or around in a circle, is no question.
        if visited.contains(&next) {
            return None;
        }
        if let Some(&before) = chain.last() {
            let held_back = reserved(before, relation);
            if held_back && domain == Domain::In {
                return None;
            }
            novel |= held_back;
        }
        chain.push(relation);
        visited.push(next);
    }
    if domain == Domain::Out && !novel {
        return None;
    }
    let thing = &things[start];
    let name = match &thing.alias {
        Some(alias) if dice.chance(0.5) && thing.kind != Kind::Person => alias,
        _ => &thing.name,
    };
    let answer = &things[*visited.last()?];
    let wording = dice.below(64);
    let question = ask(&chain, name, wording, domain == Domain::Out);
    let golden_answers = std::iter::once(&answer.name).chain(&answer.alias).cloned().collect();
    Some(GeneratedQuestion { question, golden_answers, hops, domain })
}

#[cfg(test)]
mod tests {
    use super::super::relation::{parse, read};
    use super::*;

    #[test]
    fn a_world_answers_its_questions() {
        let base = knowledge_base(1);
        assert_eq!(base.questions.train.len(), TRAIN_QUESTIONS);
        assert_eq!(base.questions.seen.len(), HELD_OUT_QUESTIONS);
        assert_eq!(base.questions.unseen.len(), HELD_OUT_QUESTIONS);
        let passage = |name: &str| {
            base.passages.iter().map(|(_, text)| text.as_str()).find(|text| {
                text.starts_with(&format!("\"{name}\"\n"))
                    || text.contains(&format!("is also known as {name}."))
            })
        };
        let splits = [&base.questions.train[..400], &base.questions.seen, &base.questions.unseen];
        for question in splits.into_iter().flatten() {
            let (chain, start) = parse(&question.question).expect(&question.question);
            assert_eq!(chain.len(), question.hops, "{}", question.question);
            let mut name = start.to_string();
            for relation in chain {
                let text = passage(&name).unwrap_or_else(|| panic!("{name}: {question:?}"));
                let (title, body) = text.split_once('\n').unwrap();
                let title = title.trim_matches('"');
                name = sentences(body)
                    .find_map(|s| read(relation, title, s))
                    .unwrap_or_else(|| panic!("{relation} of {name}: {text}"))
                    .to_string();
            }
            assert_eq!(name, question.golden_answers[0], "{}", question.question);
        }
    }

    fn sentences(text: &str) -> impl Iterator<Item = &str> {
        text.split_inclusive(". ").map(str::trim)
    }

    #[test]
    fn the_same_seed_gives_the_same_world() {
        let (one, two, other) = (knowledge_base(1), knowledge_base(1), knowledge_base(2));
        assert_eq!(one.passages, two.passages);
        assert_eq!(one.questions.train, two.questions.train);
        assert_ne!(one.passages, other.passages);
    }
}
