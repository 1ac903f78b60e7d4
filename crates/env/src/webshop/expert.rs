//! A shopper who reads: searches for what the instruction names, opens the first product whose title
//! and price fit, chooses the options, buys; goes back where an option is missing.

use super::episode::PAGE;
use super::strings::{INSTRUCTION, SEPARATOR};
use crate::dice::{Dice, mix};
use crate::expert::{Expert, Manner};

/// What an instruction asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wish {
    /// Words that the title must have, the product's type last.
    words: Vec<String>,
    /// Option values.
    values: Vec<String>,
    /// Prices must lie below.
    limit: Option<f64>,
}

/// A line of a results page.
#[derive(Clone, Debug, PartialEq)]
struct Offer {
    asin: String,
    title: String,
    price: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Page {
    #[default]
    Search,
    Results {
        page: usize,
        /// Whether another page follows.
        more: bool,
        offers: Vec<Offer>,
    },
    Item {
        offer: Offer,
        values: Vec<String>,
    },
    /// Description, features, reviews.
    Detail,
    Other,
}

/// What a page of results makes the shopper do.
enum Choice<'a> {
    /// Look at what may fit.
    Open(&'a Offer),
    /// Open what is then bought.
    Settle(&'a Offer),
    /// Read on.
    Next,
    Nothing,
}

/// Mistakes of one episode.
#[derive(Clone, Copy, Debug, Default)]
struct Flaws {
    /// Buys without choosing an option.
    skips_options: bool,
    /// Opens the first result whatever it is.
    takes_first: bool,
    /// Searches for the type alone.
    vague: bool,
    /// Buys even where an option is missing.
    ignores_missing: bool,
}

/// A shopper in one episode of WebShop, printed in either mode.
#[derive(Debug)]
pub struct WebshopExpert {
    flaws: Flaws,
    wander: f64,
    seed: u64,
    /// Turns taken in, anybody's.
    turn: u64,
    wish: Wish,
    page: Page,
    /// Products that were opened and did not fit.
    rejected: Vec<String>,
    /// Options chosen on the open page.
    chosen: Vec<String>,
    /// The open product.
    opened: Option<String>,
    /// Takes the best there is: since the last search it opened a product that it would not leave.
    settled: bool,
}

const SALT: u64 = 0x0073_686f_7070_6572;

/// Pages of results that are read before settling for less.
const PATIENCE: usize = 2;
/// Products that are opened before settling for less.
const TRIALS: usize = 4;

impl WebshopExpert {
    /// An expert whose mistakes are drawn from a seed.
    pub fn new(manner: Manner, seed: u64) -> Self {
        let mut dice = Dice::new(mix(SALT, seed));
        let mut flaw = |p: f64| dice.chance(p) && manner == Manner::Careless;
        let flaws = Flaws {
            skips_options: flaw(0.45),
            takes_first: flaw(0.35),
            vague: flaw(0.15),
            ignores_missing: flaw(0.3),
        };
        let wander = if manner == Manner::Careless { 0.05 } else { 0.0 };
        Self {
            flaws,
            wander,
            seed,
            turn: 0,
            wish: Wish::default(),
            page: Page::Search,
            rejected: Vec::new(),
            chosen: Vec::new(),
            opened: None,
            settled: false,
        }
    }

    fn fits(&self, offer: &Offer) -> bool {
        let title = offer.title.to_lowercase();
        let words: Vec<&str> = title.split_whitespace().collect();
        self.wish.words.iter().all(|w| words.contains(&w.as_str()))
            && self.wish.limit.is_none_or(|limit| offer.price <= limit)
    }

    /// How much of the wish an offer fulfils.
    fn merit(&self, offer: &Offer) -> usize {
        let title = offer.title.to_lowercase();
        let words: Vec<&str> = title.split_whitespace().collect();
        let named = self.wish.words.iter().filter(|w| words.contains(&w.as_str())).count();
        let kind = self.wish.words.last().is_some_and(|w| words.contains(&w.as_str()));
        let cheap = self.wish.limit.is_none_or(|limit| offer.price <= limit);
        named + 2 * usize::from(kind) + 2 * usize::from(cheap)
    }

    fn search(&self) -> String {
        let words: &[String] = match self.wish.words.split_last() {
            Some((kind, _)) if self.flaws.vague => std::slice::from_ref(kind),
            _ => &self.wish.words,
        };
        let mut query = words.join(" ");
        if !self.flaws.vague {
            for value in &self.wish.values {
                query.push(' ');
                query.push_str(value);
            }
        }
        if query.is_empty() {
            query.push_str("gift");
        }
        format!("search[{query}]")
    }

    /// What to open on a page of results, and whether it is taken as it is.
    fn choice<'a>(&self, page: usize, more: bool, offers: &'a [Offer]) -> Choice<'a> {
        let new: Vec<&Offer> = offers.iter().filter(|o| !self.rejected.contains(&o.asin)).collect();
        if self.flaws.takes_first
            && let Some(first) = new.first()
        {
            return Choice::Settle(first);
        }
        if let Some(offer) = new.iter().find(|o| self.fits(o)) {
            return Choice::Open(offer);
        }
        if page < PATIENCE && more && self.rejected.len() < TRIALS {
            return Choice::Next;
        }
        // The first of the best.
        let best = new.into_iter().rev().max_by_key(|o| self.merit(o));
        best.or(offers.first()).map_or(Choice::Nothing, Choice::Settle)
    }

    fn on_results(&self, page: usize, more: bool, offers: &[Offer]) -> String {
        match self.choice(page, more, offers) {
            Choice::Open(offer) | Choice::Settle(offer) => {
                format!("click[{}]", offer.asin.to_lowercase())
            }
            Choice::Next => "click[next >]".to_string(),
            Choice::Nothing => "click[back to search]".to_string(),
        }
    }

    fn on_item(&self, offer: &Offer, values: &[String]) -> String {
        let missing = self.wish.values.iter().any(|v| !values.contains(v));
        let tired = self.settled || self.rejected.len() >= TRIALS;
        let wrong = !self.fits(offer) || (missing && !self.flaws.ignores_missing);
        if wrong && !tired {
            return "click[< prev]".to_string();
        }
        let mut wanted = self.wish.values.iter().filter(|v| values.contains(*v));
        let open = wanted.find(|v| !self.chosen.contains(*v));
        match open {
            Some(value) if !self.flaws.skips_options => format!("click[{value}]"),
            // One that skips an option chooses the first and forgets the others.
            Some(value) if self.chosen.is_empty() && self.wish.values.len() > 1 => {
                format!("click[{value}]")
            }
            _ => "click[buy now]".to_string(),
        }
    }

    fn stray(&self) -> Option<String> {
        // Drawn from the turn, so that asking changes nothing.
        let mut dice = Dice::new(mix(mix(SALT, self.seed), self.turn));
        if self.wander == 0.0 || !dice.chance(self.wander) {
            return None;
        }
        let choice = match &self.page {
            Page::Item { .. } => ["description", "features", "reviews"][dice.below(3)],
            Page::Results { .. } => ["next >", "back to search"][dice.below(2)],
            _ => return None,
        };
        Some(format!("click[{choice}]"))
    }
}

impl Expert for WebshopExpert {
    fn observe(&mut self, action: Option<&str>, observation: &str) {
        if action.is_none() {
            self.turn = 0;
            self.rejected.clear();
            self.chosen.clear();
            self.opened = None;
            self.settled = false;
        } else {
            self.turn += 1;
        }
        self.settled &= !action.is_some_and(|a| a.starts_with("search["));
        let before = std::mem::replace(&mut self.page, read(observation));
        if let Some(instruction) = instruction(observation) {
            self.wish = wish(instruction);
        }
        let clicked =
            action.and_then(|a| a.strip_prefix("click[")?.strip_suffix(']')).unwrap_or_default();
        let settles = match &before {
            Page::Results { page, more, offers } => match self.choice(*page, *more, offers) {
                Choice::Settle(offer) => offer.asin.eq_ignore_ascii_case(clicked),
                _ => false,
            },
            _ => false,
        };
        match (&before, &mut self.page) {
            (Page::Results { .. }, Page::Item { offer, .. }) => {
                offer.asin = clicked.to_uppercase();
                self.opened = Some(offer.asin.clone());
                self.chosen.clear();
                self.settled |= settles;
            }
            (_, Page::Item { offer, values }) => {
                offer.asin = self.opened.clone().unwrap_or_default();
                if values.iter().any(|v| v == clicked) {
                    self.chosen.push(clicked.to_string());
                }
            }
            (Page::Item { offer, .. }, Page::Results { .. }) => {
                self.rejected.push(offer.asin.clone());
                self.opened = None;
                self.chosen.clear();
            }
            (_, Page::Search) => self.chosen.clear(),
            _ => {}
        }
    }

    fn next_action(&mut self) -> String {
        if let Some(action) = self.stray() {
            return action;
        }
        match self.page.clone() {
            Page::Results { page, more, offers } => self.on_results(page, more, &offers),
            Page::Item { offer, values } => self.on_item(&offer, &values),
            Page::Detail => "click[< prev]".to_string(),
            Page::Search | Page::Other => self.search(),
        }
    }
}

/// The nodes of a page; in the rich mode a node is a line, and a button is marked.
fn nodes(observation: &str) -> Vec<&str> {
    if observation.contains(SEPARATOR) {
        return observation.split(SEPARATOR).collect();
    }
    let lines = observation.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| button(line).unwrap_or(line)).collect()
}

/// The name of a button in the rich mode.
fn button(line: &str) -> Option<&str> {
    let marks = [("[button] ", " [button_]"), ("[clicked button] ", " [clicked button_]")];
    marks.iter().find_map(|(open, close)| line.strip_prefix(open)?.strip_suffix(close))
}

fn instruction(observation: &str) -> Option<&str> {
    let mut nodes = nodes(observation).into_iter();
    nodes.find(|n| *n == INSTRUCTION)?;
    nodes.next()
}

/// Reads "Find me A, B thing with color: red, and size: small, and price lower than 30.00 dollars".
fn wish(instruction: &str) -> Wish {
    let text = instruction.trim().to_lowercase();
    let (text, limit) = match text.rsplit_once(", and price lower than ") {
        Some((before, price)) => (before, price.trim_end_matches(" dollars").parse().ok()),
        None => (text.as_str(), None),
    };
    let (what, options) = match text.find(": ").map(|colon| &text[..colon]) {
        Some(before) => match before.rfind(" with ") {
            Some(at) => (&text[..at], &text[at + " with ".len()..]),
            None => (text, ""),
        },
        None => (text, ""),
    };
    let words = what
        .strip_prefix("find me ")
        .unwrap_or(what)
        .split([' ', ','])
        .filter(|w| !w.is_empty())
        .map(str::to_string)
        .collect();
    let values = options
        .split(", and ")
        .filter_map(|option| option.split_once(": "))
        .map(|(_, value)| value.trim().to_string())
        .collect();
    Wish { words, values, limit }
}

fn price(text: &str) -> f64 {
    // Of a range, the lower end: what a shopper hopes for.
    let digits = text.trim_start_matches('$');
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(f64::INFINITY)
}

fn read(observation: &str) -> Page {
    let nodes = nodes(observation);
    if nodes.first() == Some(&"WebShop") {
        return Page::Search;
    }
    let Some(start) = nodes.iter().position(|n| *n == "Back to Search") else {
        return Page::Other;
    };
    let rest = &nodes[start + 1..];
    if let Some(first) = rest.first().filter(|n| n.starts_with("Page ")) {
        let page = first.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(1);
        let total = first.rsplit_once("results: ").and_then(|(_, n)| n.strip_suffix(')'));
        let total: usize = total.and_then(|n| n.parse().ok()).unwrap_or(0);
        let items = rest.iter().position(|n| *n == "Next >").map_or(&[][..], |i| &rest[i + 1..]);
        let offers = items
            .chunks_exact(3)
            .map(|chunk| Offer {
                asin: chunk[0].to_string(),
                title: chunk[1].to_string(),
                price: price(chunk[2]),
            })
            .collect();
        return Page::Results { page, more: total > page * PAGE, offers };
    }
    let Some(at) = rest.iter().position(|n| n.starts_with("Price: ")) else { return Page::Detail };
    let offer = Offer {
        asin: String::new(),
        title: at.checked_sub(1).map_or_else(String::new, |i| rest[i].to_string()),
        price: price(rest[at].trim_start_matches("Price: ")),
    };
    let values =
        rest.get(1..at.saturating_sub(1)).unwrap_or_default().iter().map(|v| v.to_lowercase());
    Page::Item { offer, values: values.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Instruction: [SEP] Find me soft, red shoes with color: red, and size: \
                        x-large, and price lower than 30.00 dollars";

    #[test]
    fn reads_the_instruction() {
        let wish = wish(instruction(&format!("WebShop [SEP] {HEAD} [SEP] Search")).unwrap());
        assert_eq!(wish.words, ["soft", "red", "shoes"]);
        assert_eq!(wish.values, ["red", "x-large"]);
        assert_eq!(wish.limit, Some(30.0));
    }

    #[test]
    fn reads_both_modes() {
        let rich = "You have clicked red.\nInstruction:\nbuy\n[button] Back to Search [button_]\n\
                    [button] < Prev [button_]\ncolor\n  [clicked button] red [clicked button_]\n  \
                    [button] blue [button_]\nShoes\nPrice: $20.0\nRating: N.A.\n[button] Buy Now \
                    [button_]\n";
        let text = "Instruction: [SEP] buy [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] red \
                    [SEP] blue [SEP] Shoes [SEP] Price: $20.0 [SEP] Rating: N.A. [SEP] Buy Now";
        assert_eq!(read(rich), read(text));
        assert_eq!(instruction(rich), Some("buy"));
        let rich = "Instruction:\nbuy\n[button] Back to Search [button_]\nPage 2 (Total results: \
                    12)\n[button] < Prev [button_]\n[button] Next > [button_]\n\n[button] B0A \
                    [button_]\nShoes\n$20.0\n\n[clicked button] B0B [clicked button_]\nHats\n$3.0\n";
        let text = "Instruction: [SEP] buy [SEP] Back to Search [SEP] Page 2 (Total results: 12) \
                    [SEP] < Prev [SEP] Next > [SEP] B0A [SEP] Shoes [SEP] $20.0 [SEP] B0B [SEP] \
                    Hats [SEP] $3.0";
        assert_eq!(read(rich), read(text));
        let start = "WebShop\nInstruction: \nbuy\n[button] Search [button_]\n";
        assert_eq!((read(start), instruction(start)), (Page::Search, Some("buy")));
    }

    #[test]
    fn a_last_page_is_not_left_for_another() {
        let page = |total: usize| {
            let mut expert = WebshopExpert::new(Manner::Clean, 0);
            expert.observe(None, &format!("WebShop [SEP] {HEAD} [SEP] Search"));
            let offers: Vec<String> =
                (0..10).map(|i| format!("B0{i} [SEP] Green Hat [SEP] $4{i}.0")).collect();
            let offers = offers.join(" [SEP] ");
            let results = format!(
                "{HEAD} [SEP] Back to Search [SEP] Page 1 (Total results: {total}) [SEP] Next > \
                 [SEP] {offers}"
            );
            expert.observe(Some("search[soft red shoes red x-large]"), &results);
            expert.next_action()
        };
        assert_eq!(page(11), "click[next >]");
        // Ten results fill the only page.
        assert_eq!(page(10), "click[b00]");
    }

    #[test]
    fn opens_chooses_and_buys() {
        let mut expert = WebshopExpert::new(Manner::Clean, 0);
        expert.observe(None, &format!("WebShop [SEP] {HEAD} [SEP] Search"));
        assert_eq!(expert.next_action(), "search[soft red shoes red x-large]");
        let results = format!(
            "{HEAD} [SEP] Back to Search [SEP] Page 1 (Total results: 2) [SEP] Next > [SEP] B0A \
             [SEP] Soft Red Shoes [SEP] $40.0 [SEP] B0B [SEP] Soft Red Shoes [SEP] $20.0"
        );
        expert.observe(Some("search[soft red shoes red x-large]"), &results);
        assert_eq!(expert.next_action(), "click[b0b]");
        let item = format!(
            "{HEAD} [SEP] Back to Search [SEP] < Prev [SEP] size [SEP] x-large [SEP] color [SEP] \
             red [SEP] Soft Red Shoes [SEP] Price: $20.0 [SEP] Rating: N.A. [SEP] Buy Now"
        );
        expert.observe(Some("click[b0b]"), &item);
        assert_eq!(expert.next_action(), "click[red]");
        expert.observe(Some("click[red]"), &item);
        assert_eq!(expert.next_action(), "click[x-large]");
        expert.observe(Some("click[x-large]"), &item);
        assert_eq!(expert.next_action(), "click[buy now]");
    }

    #[test]
    fn goes_back_where_an_option_is_missing() {
        let mut expert = WebshopExpert::new(Manner::Clean, 0);
        expert.observe(None, &format!("WebShop [SEP] {HEAD} [SEP] Search"));
        let results = format!(
            "{HEAD} [SEP] Back to Search [SEP] Page 1 (Total results: 1) [SEP] Next > [SEP] B0A \
             [SEP] Soft Red Shoes [SEP] $10.0"
        );
        let item = format!(
            "{HEAD} [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] blue [SEP] Soft Red Shoes \
             [SEP] Price: $10.0 [SEP] Buy Now"
        );
        expert.observe(Some("search[x]"), &results);
        expert.observe(Some("click[b0a]"), &item);
        assert_eq!(expert.next_action(), "click[< prev]");
        expert.observe(Some("click[< prev]"), &results);
        // Nothing else there: it settles.
        assert_eq!(expert.next_action(), "click[b0a]");
        expert.observe(Some("click[b0a]"), &item);
        assert_eq!(expert.next_action(), "click[buy now]");
        // A new search is a new chance.
        expert.observe(Some("search[y]"), &results.replace("B0A", "B0C"));
        expert.observe(Some("click[b0c]"), &item);
        assert_eq!(expert.next_action(), "click[< prev]");
    }
}
