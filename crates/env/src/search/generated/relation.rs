//! The relations of the generated world: how a passage states one, and how a question asks for one.

/// Kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Person,
    Film,
    Book,
    Company,
    Band,
    City,
    Country,
    /// Languages, currencies, rivers: nothing is told about them.
    Leaf,
}

/// A relation from a thing to another.
#[derive(Debug)]
pub(crate) struct Relation {
    /// Its noun: "the director of X".
    pub(crate) noun: &'static str,
    /// Whose it is.
    pub(crate) from: Kind,
    /// What it leads to.
    pub(crate) to: Kind,
    /// How passages state it; `{s}` and `{o}` are the two names.
    pub(crate) statements: &'static [&'static str],
    /// How a question of the training distribution asks for it last; `{}` is whose it is.
    pub(crate) questions: &'static [&'static str],
    /// How a question outside of it asks.
    pub(crate) other_questions: &'static [&'static str],
}

use Kind::{Band, Book, City, Company, Country, Film, Leaf, Person};

/// All relations.
pub(crate) const RELATIONS: &[Relation] = &[
    Relation {
        noun: "director",
        from: Film,
        to: Person,
        statements: &["{s} was directed by {o}.", "{o} directed {s}."],
        questions: &["Who directed {}?", "Find the director of {}."],
        other_questions: &["Name the director of {}."],
    },
    Relation {
        noun: "star",
        from: Film,
        to: Person,
        statements: &["{s} stars {o}.", "{o} plays the lead in {s}."],
        questions: &["Who stars in {}?", "Find the star of {}."],
        other_questions: &["Name the star of {}."],
    },
    Relation {
        noun: "author",
        from: Book,
        to: Person,
        statements: &["{s} was written by {o}.", "{o} wrote {s}."],
        questions: &["Who wrote {}?", "Find the author of {}."],
        other_questions: &["Name the author of {}."],
    },
    Relation {
        noun: "founder",
        from: Company,
        to: Person,
        statements: &["{s} was founded by {o}.", "{o} founded {s}."],
        questions: &["Who founded {}?", "Find the founder of {}."],
        other_questions: &["Name the founder of {}."],
    },
    Relation {
        noun: "headquarters",
        from: Company,
        to: City,
        statements: &["{s} has its headquarters in {o}."],
        questions: &["Where does {} have its headquarters?", "Find the headquarters of {}."],
        other_questions: &["Name the headquarters of {}."],
    },
    Relation {
        noun: "singer",
        from: Band,
        to: Person,
        statements: &["{s} is led by the singer {o}.", "{o} sings for {s}."],
        questions: &["Who sings for {}?", "Find the singer of {}."],
        other_questions: &["Name the singer of {}."],
    },
    Relation {
        noun: "birthplace",
        from: Person,
        to: City,
        statements: &["{s} was born in {o}."],
        questions: &[
            "Where was {} born?",
            "In which city was {} born?",
            "Find the birthplace of {}.",
        ],
        other_questions: &["Name the birthplace of {}."],
    },
    Relation {
        noun: "spouse",
        from: Person,
        to: Person,
        statements: &["{s} is married to {o}."],
        questions: &["Who is {} married to?", "Find the spouse of {}."],
        other_questions: &["Name the spouse of {}."],
    },
    Relation {
        noun: "teacher",
        from: Person,
        to: Person,
        statements: &["{s} was taught by {o}.", "The teacher of {s} was {o}."],
        questions: &["Who taught {}?", "Find the teacher of {}."],
        other_questions: &["Name the teacher of {}."],
    },
    Relation {
        noun: "country",
        from: City,
        to: Country,
        statements: &["{s} is a city in {o}."],
        questions: &["In which country is {}?", "Find the country of {}."],
        other_questions: &["Name the country of {}."],
    },
    Relation {
        noun: "mayor",
        from: City,
        to: Person,
        statements: &["The mayor of {s} is {o}."],
        questions: &["Who is the mayor of {}?", "Find the mayor of {}."],
        other_questions: &["Name the mayor of {}."],
    },
    Relation {
        noun: "river",
        from: City,
        to: Leaf,
        statements: &["{s} lies on the river {o}."],
        questions: &["On which river lies {}?", "Find the river of {}."],
        other_questions: &["Name the river of {}."],
    },
    Relation {
        noun: "capital",
        from: Country,
        to: City,
        statements: &["The capital of {s} is {o}."],
        questions: &["What is the capital of {}?", "Find the capital of {}."],
        other_questions: &["Name the capital of {}."],
    },
    Relation {
        noun: "language",
        from: Country,
        to: Leaf,
        statements: &["The language of {s} is {o}."],
        questions: &["Which language is spoken in {}?", "Find the language of {}."],
        other_questions: &["Name the language of {}."],
    },
    Relation {
        noun: "currency",
        from: Country,
        to: Leaf,
        statements: &["The currency of {s} is the {o}."],
        questions: &["Which currency is used in {}?", "Find the currency of {}."],
        other_questions: &["Name the currency of {}."],
    },
];

/// The relation of a noun.
pub(crate) fn by_noun(noun: &str) -> Option<usize> {
    RELATIONS.iter().position(|r| r.noun == noun)
}

/// A question's text: the last relation asked, the others nested in front of the thing they start
/// from. `wording` chooses among several; `other` takes the wording outside of the training
/// distribution.
pub(crate) fn ask(chain: &[usize], start: &str, wording: usize, other: bool) -> String {
    let Some((&last, before)) = chain.split_last() else { return String::new() };
    let mut whose = start.to_string();
    for &relation in before {
        whose = format!("the {} of {whose}", RELATIONS[relation].noun);
    }
    let relation = &RELATIONS[last];
    let forms = if other { relation.other_questions } else { relation.questions };
    forms[wording % forms.len()].replace("{}", &whose)
}

/// The chain and the start of a question that [`ask`] made.
pub(crate) fn parse(question: &str) -> Option<(Vec<usize>, &str)> {
    RELATIONS.iter().enumerate().find_map(|(last, relation)| {
        let forms = relation.questions.iter().chain(relation.other_questions);
        let mut rest = forms.copied().find_map(|form| slot(form, "{}", question))?;
        let mut chain = vec![last];
        while let Some((noun, inner)) = rest.strip_prefix("the ").and_then(|r| r.split_once(" of "))
        {
            let Some(relation) = by_noun(noun) else { break };
            chain.push(relation);
            rest = inner;
        }
        chain.reverse();
        // "Name the X of …" is also a form of its own relation only.
        Some((chain, rest))
    })
}

/// What stands for `mark` in a text of this form.
pub(crate) fn slot<'a>(form: &str, mark: &str, text: &'a str) -> Option<&'a str> {
    let (before, after) = form.split_once(mark)?;
    text.strip_prefix(before)?.strip_suffix(after)
}

/// What a sentence says of `subject` by a relation.
pub(crate) fn read<'a>(relation: usize, subject: &str, sentence: &'a str) -> Option<&'a str> {
    RELATIONS[relation].statements.iter().find_map(|statement| {
        let form = statement.replace("{s}", subject);
        slot(&form, "{o}", sentence).filter(|o| !o.is_empty())
    })
}
