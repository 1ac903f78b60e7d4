//! Reads an ALFWorld problem: typed objects, initial facts, goal.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::error::GameError;
use super::set::CAPACITY;

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Agent,
    Location,
    Receptacle,
    Object,
    ReceptacleType,
    ObjectType,
}

impl Sort {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "agent" => Self::Agent,
            "location" => Self::Location,
            "receptacle" => Self::Receptacle,
            "object" => Self::Object,
            "rtype" => Self::ReceptacleType,
            "otype" => Self::ObjectType,
            _ => return None,
        })
    }
}

/// The predicates that decide what can be done or seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predicate {
    AtLocation,
    ReceptacleAtLocation,
    ObjectAtLocation,
    Openable,
    Opened,
    InReceptacle,
    IsReceptacleObject,
    InReceptacleObject,
    ReceptacleType,
    CanContain,
    ObjectType,
    Holds,
    IsClean,
    Cleanable,
    IsHot,
    Heatable,
    IsCool,
    Coolable,
    Pickupable,
    Toggleable,
    IsToggled,
    Sliceable,
    IsSliced,
    /// Declared by the domain, but read by no action that exists and by no text.
    Unread,
}

impl Predicate {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "atlocation" => Self::AtLocation,
            "receptacleatlocation" => Self::ReceptacleAtLocation,
            "objectatlocation" => Self::ObjectAtLocation,
            "openable" => Self::Openable,
            "opened" => Self::Opened,
            "inreceptacle" => Self::InReceptacle,
            "isreceptacleobject" => Self::IsReceptacleObject,
            "inreceptacleobject" => Self::InReceptacleObject,
            "receptacletype" => Self::ReceptacleType,
            "cancontain" => Self::CanContain,
            "objecttype" => Self::ObjectType,
            "holds" => Self::Holds,
            "isclean" => Self::IsClean,
            "cleanable" => Self::Cleanable,
            "ishot" => Self::IsHot,
            "heatable" => Self::Heatable,
            "iscool" => Self::IsCool,
            "coolable" => Self::Coolable,
            "pickupable" => Self::Pickupable,
            "toggleable" => Self::Toggleable,
            "istoggled" => Self::IsToggled,
            "sliceable" => Self::Sliceable,
            "issliced" => Self::IsSliced,
            "isreceptacleobjectfull"
            | "wasinreceptacle"
            | "checked"
            | "examined"
            | "holdsany"
            | "holdsanyreceptacleobject"
            | "full"
            | "moveable"
            | "ison" => Self::Unread,
            _ => return None,
        })
    }

    fn sorts(self) -> Option<&'static [Sort]> {
        Some(match self {
            Self::AtLocation => &[Sort::Agent, Sort::Location],
            Self::ReceptacleAtLocation => &[Sort::Receptacle, Sort::Location],
            Self::ObjectAtLocation => &[Sort::Object, Sort::Location],
            Self::Openable | Self::Opened => &[Sort::Receptacle],
            Self::InReceptacle => &[Sort::Object, Sort::Receptacle],
            Self::InReceptacleObject => &[Sort::Object, Sort::Object],
            Self::ReceptacleType => &[Sort::Receptacle, Sort::ReceptacleType],
            Self::CanContain => &[Sort::ReceptacleType, Sort::ObjectType],
            Self::ObjectType => &[Sort::Object, Sort::ObjectType],
            Self::Holds => &[Sort::Agent, Sort::Object],
            Self::IsReceptacleObject
            | Self::IsClean
            | Self::Cleanable
            | Self::IsHot
            | Self::Heatable
            | Self::IsCool
            | Self::Coolable
            | Self::Pickupable
            | Self::Toggleable
            | Self::IsToggled
            | Self::Sliceable
            | Self::IsSliced => &[Sort::Object],
            Self::Unread => return None,
        })
    }
}

/// A declared name, lower-cased.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol<'a> {
    pub(crate) name: &'a str,
    pub(crate) sort: Sort,
    /// Whether an initial fact mentions it: only then does it exist in the game.
    pub(crate) used: bool,
}

/// An initial fact over symbol positions; `b` equals `a` where the predicate has one argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fact {
    pub(crate) predicate: Predicate,
    pub(crate) a: u32,
    pub(crate) b: u32,
}

/// The goal as a tree of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tree<'a> {
    Word(&'a str),
    List(Vec<Tree<'a>>),
}

/// A problem as written, lower-cased.
#[derive(Debug)]
pub(crate) struct Problem<'a> {
    pub(crate) symbols: Vec<Symbol<'a>>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) goal: Tree<'a>,
}

/// How deep a goal may nest; the known ones nest 7 deep.
const MAX_DEPTH: usize = 64;
/// How many symbols a problem may declare; the real ones declare about 270.
const MAX_SYMBOLS: usize = 64 * CAPACITY;

type Symbols<'a> = HashMap<&'a str, u32, BuildHasherDefault<WordHasher>>;

impl<'a> Problem<'a> {
    /// Reads a problem from **lower-cased** text.
    pub(crate) fn parse(text: &'a str) -> Result<Self, GameError> {
        let mut words = Lexer { text, position: 0 };
        let mut symbols = Vec::new();
        let mut table = Symbols::default();
        let mut facts = Vec::new();
        let mut goal = None;
        let mut domain = None;
        words.open()?;
        words.word("define")?;
        loop {
            match words.next() {
                Token::Close => break,
                Token::Open => {}
                other => return Err(words.unexpected(other, "a section")),
            }
            match words.next() {
                Token::Word("problem" | ":metric" | ":requirements") => words.skip_list()?,
                Token::Word(":domain") => {
                    let Token::Word(name) = words.next() else {
                        return Err(words.error("the domain's name is missing"));
                    };
                    domain = Some(name);
                    words.close()?;
                }
                Token::Word(":objects") => objects(&mut words, &mut symbols, &mut table)?,
                Token::Word(":init") => init(&mut words, &mut symbols, &table, &mut facts)?,
                Token::Word(":goal") => {
                    goal = Some(tree(&mut words)?);
                    words.close()?;
                }
                other => return Err(words.unexpected(other, "a known section")),
            }
        }
        match domain {
            Some("alfred") => {}
            Some(other) => return Err(GameError::UnknownDomain { name: other.to_owned() }),
            None => return Err(words.error("the :domain section is missing")),
        }
        let goal = goal.ok_or_else(|| words.error("the :goal section is missing"))?;
        Ok(Self { symbols, facts, goal })
    }
}

fn objects<'a>(
    words: &mut Lexer<'a>,
    symbols: &mut Vec<Symbol<'a>>,
    table: &mut Symbols<'a>,
) -> Result<(), GameError> {
    let mut untyped = symbols.len();
    loop {
        match words.next() {
            Token::Close => break,
            Token::Word("-") => {
                let sort = match words.next() {
                    Token::Word(word) => Sort::parse(word).ok_or_else(|| {
                        words.error(&format!("{word:?} is no type of the domain"))
                    })?,
                    other => return Err(words.unexpected(other, "a type")),
                };
                for position in untyped..symbols.len() {
                    let name = symbols[position].name;
                    symbols[position].sort = sort;
                    if let Some(earlier) = table.insert(name, position as u32)
                        && symbols[earlier as usize].sort != sort
                    {
                        return Err(words.error(&format!("{name:?} is declared with two types")));
                    }
                }
                untyped = symbols.len();
            }
            Token::Word(name) => {
                if symbols.len() >= MAX_SYMBOLS {
                    return Err(words.error("too many objects are declared"));
                }
                symbols.push(Symbol { name, sort: Sort::Object, used: false });
            }
            other => return Err(words.unexpected(other, "an object or `)`")),
        }
    }
    if untyped < symbols.len() {
        return Err(words.error(&format!("{:?} has no type", symbols[untyped].name)));
    }
    Ok(())
}

fn init<'a>(
    words: &mut Lexer<'a>,
    symbols: &mut [Symbol<'a>],
    table: &Symbols<'a>,
    facts: &mut Vec<Fact>,
) -> Result<(), GameError> {
    loop {
        match words.next() {
            Token::Close => return Ok(()),
            Token::Open => {}
            other => return Err(words.unexpected(other, "a fact or `)`")),
        }
        let name = match words.next() {
            // Distances and total cost: no text and no rule reads them.
            Token::Word("=") => {
                words.skip_list()?;
                continue;
            }
            Token::Word(name) => name,
            other => return Err(words.unexpected(other, "a predicate")),
        };
        let predicate = Predicate::parse(name)
            .ok_or_else(|| words.error(&format!("{name:?} is no predicate of the domain")))?;
        let mut arguments = [0_u32; 2];
        let mut count = 0;
        loop {
            let word = match words.next() {
                Token::Close => break,
                Token::Word(word) => word,
                other => return Err(words.unexpected(other, "an argument")),
            };
            let Some(&symbol) = table.get(word) else {
                return Err(words.error(&format!("{word:?} is not declared in :objects")));
            };
            let Some(slot) = arguments.get_mut(count) else {
                return Err(words.error(&format!("{name} has more than two arguments")));
            };
            *slot = symbol;
            if let Some(sorts) = predicate.sorts() {
                let found = symbols[symbol as usize].sort;
                if sorts.get(count) != Some(&found) {
                    return Err(words
                        .error(&format!("argument {} of {name} cannot be {word:?}", count + 1)));
                }
            }
            symbols[symbol as usize].used = true;
            count += 1;
        }
        if predicate.sorts().is_some_and(|sorts| sorts.len() != count) {
            return Err(words.error(&format!("{name} lacks an argument")));
        }
        if predicate != Predicate::Unread {
            let [a, second] = arguments;
            facts.push(Fact { predicate, a, b: if count == 2 { second } else { a } });
        }
    }
}

fn tree<'a>(words: &mut Lexer<'a>) -> Result<Tree<'a>, GameError> {
    let mut stack: Vec<Vec<Tree<'a>>> = Vec::new();
    loop {
        let done = match words.next() {
            Token::Open if stack.len() < MAX_DEPTH => {
                stack.push(Vec::new());
                continue;
            }
            Token::Open => return Err(words.error("the goal nests too deeply")),
            Token::Word(word) => Tree::Word(word),
            Token::Close => match stack.pop() {
                Some(list) => Tree::List(list),
                None => return Err(words.unexpected(Token::Close, "a goal")),
            },
            Token::End => return Err(words.unexpected(Token::End, "the rest of the goal")),
        };
        match stack.last_mut() {
            Some(list) => list.push(done),
            None => return Ok(done),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    Word(&'a str),
    End,
}

struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Token<'a> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.position) {
                None => return Token::End,
                Some(b';') => {
                    while bytes.get(self.position).is_some_and(|&b| b != b'\n') {
                        self.position += 1;
                    }
                }
                Some(byte) if byte.is_ascii_whitespace() => self.position += 1,
                Some(b'(') => {
                    self.position += 1;
                    return Token::Open;
                }
                Some(b')') => {
                    self.position += 1;
                    return Token::Close;
                }
                Some(_) => break,
            }
        }
        let start = self.position;
        while bytes
            .get(self.position)
            .is_some_and(|&b| !matches!(b, b'(' | b')' | b';') && !b.is_ascii_whitespace())
        {
            self.position += 1;
        }
        // Every delimiter is ASCII, so both ends are character boundaries.
        Token::Word(&self.text[start..self.position])
    }

    fn open(&mut self) -> Result<(), GameError> {
        match self.next() {
            Token::Open => Ok(()),
            other => Err(self.unexpected(other, "`(`")),
        }
    }

    fn close(&mut self) -> Result<(), GameError> {
        match self.next() {
            Token::Close => Ok(()),
            other => Err(self.unexpected(other, "`)`")),
        }
    }

    fn word(&mut self, expected: &str) -> Result<(), GameError> {
        match self.next() {
            Token::Word(word) if word == expected => Ok(()),
            other => Err(self.unexpected(other, &format!("{expected:?}"))),
        }
    }

    /// Skips to the end of the list whose `(` and head were read.
    fn skip_list(&mut self) -> Result<(), GameError> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next() {
                Token::Open => depth += 1,
                Token::Close => depth -= 1,
                Token::Word(_) => {}
                Token::End => return Err(self.unexpected(Token::End, "`)`")),
            }
        }
        Ok(())
    }

    fn unexpected(&self, found: Token<'_>, expected: &str) -> GameError {
        let found = match found {
            Token::Open => "`(`".to_owned(),
            Token::Close => "`)`".to_owned(),
            Token::Word(word) => format!("{word:?}"),
            Token::End => "the end of the text".to_owned(),
        };
        self.error(&format!("expected {expected}, found {found}"))
    }

    fn error(&self, what: &str) -> GameError {
        let line = 1 + self.text[..self.position].matches('\n').count();
        GameError::Syntax { line, what: what.to_owned() }
    }
}

/// A word-at-a-time multiplicative hash: the table holds a few hundred short words and is rebuilt
/// for every game.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        let mut word = [0; 8];
        word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.mix(u64::from_le_bytes(word) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }
}

impl WordHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}
