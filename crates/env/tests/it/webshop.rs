//! WebShop without data: a small store with every quirk, damaged files, wild actions.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use empg_env::webshop::{
    Action, Available, Catalogue, Mode, Page, Purchase, WebshopEnv, WebshopOptions, WebshopSet,
    generated, token_set_ratio,
};
use empg_env::{Env, EnvEnd, EnvError, Split, TaskSet};
use proptest::prelude::*;

const ITEMS: &str = r#"[
{"asin": "B000000001", "name": "Soft Cotton Shirt", "full_description": "A <b>shirt</b> & more",
 "small_description": ["machine wash", "", " \n"], "category": "fashion", "query": " Men's Shirts ",
 "product_category": "Clothing › Men › Shirts", "pricing": "$19.99", "images": ["x"],
 "customization_options": {"Color": [{"value": " Red/Blue "}, {"value": "green", "image": null}],
  "Size": [{"value": "Large"}, {"value": "5\""}, {"value": "green"}], "Fit": null}},
{"asin": "B000000002", "name": "Soft Cotton Shirt", "full_description": "",
 "small_description": "one feature", "category": "fashion", "query": "men's shirts",
 "product_category": "Clothing › Men › Shirts", "pricing": "$10 - $30.50",
 "customization_options": {"kind": [{"value": "description"}, {"value": "attributes"},
  {"value": "next >"}, {"value": "back to search"}, {"value": "size"}]}},
{"asin": "B000000003", "name": "Walnut Table", "full_description": null,
 "small_description": [], "category": "garden", "query": "tables",
 "product_category": "Home › Tables", "pricing": "cheap", "customization_options": ""},
{"asin": "B000000001", "name": "Again", "full_description": "", "small_description": "",
 "category": "", "query": "", "product_category": "", "customization_options": ""},
{"asin": "too long an asin", "name": "x"}
]"#;

const INSTRUCTIONS: &str = r#"{
"B000000001": {"attributes": ["machine wash", "soft"], "instruction": "Find me soft shirts",
 "instruction_attributes": ["soft"]},
"B000000002": {"attributes": ["long sleeve"], "instruction": "Find me shirts",
 "instruction_attributes": ["long sleeve"]},
"B000000003": {"attributes": []}
}"#;

const HUMAN: &str = r#"{"B000000003": [
{"instruction": "i want a table.", "instruction_attributes": ["easy clean"], "instruction_options": []},
{"instruction": "nothing", "instruction_attributes": [], "instruction_options": ["x"]}]}"#;

fn parse(items: &str, instructions: &str) -> Result<Arc<Catalogue>, EnvError> {
    let human = Some(HUMAN.as_bytes());
    Catalogue::from_json(items.as_bytes(), instructions.as_bytes(), human, None)
}

fn store() -> Arc<Catalogue> {
    static STORE: OnceLock<Arc<Catalogue>> = OnceLock::new();
    Arc::clone(STORE.get_or_init(|| parse(ITEMS, INSTRUCTIONS).unwrap()))
}

fn set(mode: Mode, max_steps: Option<u32>) -> WebshopSet {
    let options = WebshopOptions { mode, ..WebshopOptions::default() };
    WebshopSet::new(store(), options, max_steps).unwrap()
}

/// An environment at a goal of the first product, and what it prints for each action.
fn play(mode: Mode, actions: &[&str]) -> (WebshopEnv, Vec<String>) {
    let set = set(mode, None);
    let session = (0..set.goals().len()).find(|&i| set.goals().product(i) == Some(0)).unwrap();
    let mut env = set.environment();
    let mut texts = vec![env.reset(&format!("webshop/0/{session}"), 0).unwrap().text];
    for action in actions {
        texts.push(env.step(action).unwrap().observation.text);
    }
    (env, texts)
}

fn options(env: &WebshopEnv) -> Vec<(&str, &str)> {
    let options = env.episode().unwrap().options();
    options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn products_are_processed() {
    let store = store();
    assert_eq!(store.len(), 3);
    let shirt = store.product(0);
    let read: Vec<(&str, Vec<&str>)> = shirt.options().map(|(n, v)| (n, v.collect())).collect();
    assert_eq!(
        read,
        [("color", vec!["red | blue", "green"]), ("size", vec!["large", "5\"", "green"])]
    );
    assert_eq!(shirt.query(), "men's shirts");
    assert_eq!(store.product(1).price_tag(), "$10.0 to $30.5");
    assert_eq!(store.product(2).price_tag(), "$100.0");
    assert_eq!(store.find("B000000003"), Some(2));
    assert_eq!(store.find("B00000000"), None);
    let notes = store.notes().join("\n");
    for part in ["1 product(s) repeat an ASIN", "B000000001", "too long", "1 price(s)"] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn goals_are_combinations() {
    let set = set(Mode::Text, None);
    assert_eq!(set.goals().len(), 2 * 3 + 5);
    let texts: Vec<String> =
        (0..11).map(|i| set.goals().goal(set.catalogue(), i).unwrap().instruction_text).collect();
    let start = "Find me soft shirts with color: red | blue, and size: 5\", and price lower than ";
    assert!(texts.iter().any(|text| text.starts_with(start)), "{texts:?}");
    let human = store().goals(0, true).unwrap();
    assert_eq!(human.len(), 1);
    let goal = human.goal(&store(), 0).unwrap();
    assert!(goal.instruction_text.starts_with("i want a table, and price lower than "));
}

#[test]
fn an_item_page() {
    let (env, texts) = play(Mode::Text, &["search[soft cotton]", "click[b000000001]"]);
    assert!(texts[1].contains("Page 1 (Total results: 2) [SEP] Next > [SEP] B00000000"));
    assert!(texts[2].ends_with(
        "Back to Search [SEP] < Prev [SEP] color [SEP] red | blue [SEP] green [SEP] size [SEP] \
         large [SEP] 5\" [SEP] green [SEP] Soft Cotton Shirt [SEP] Price: $19.99 [SEP] Rating: \
         N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    ));
    let Available { has_search_bar, clickables } = env.available();
    assert!(!has_search_bar);
    assert_eq!(clickables[6..], ["red | blue", "green", "large", "5\""]);
    assert!(env.admissible().is_sorted());
    assert_eq!(env.episode().unwrap().page(), Page::Item);
}

/// Two options share a value: the last one gets it.
#[test]
fn a_shared_value_goes_to_the_last_option() {
    let (env, _) = play(Mode::Text, &["search[soft cotton]", "click[b000000001]", "click[GREEN]"]);
    assert_eq!(options(&env), [("size", "green")]);
}

/// Values that are also the names of buttons act as the buttons.
#[test]
fn values_named_like_buttons() {
    let start = ["search[soft cotton]", "click[b000000002]"];
    let last = |action: &str| {
        let (env, texts) = play(Mode::Text, &[&start[..], &[action]].concat());
        (env, texts.last().unwrap().clone())
    };
    let (env, text) = last("click[attributes]");
    assert!(text.ends_with(
        "< Prev [SEP] long sleeve [SEP] fashion [SEP] men's shirts [SEP] Clothing › Men › Shirts"
    ));
    assert!(options(&env).is_empty());
    let (env, _) = last("click[next >]");
    assert_eq!(options(&env), [("kind", "next >")]);
    let (env, _) = last("click[back to search]");
    assert!(env.available().has_search_bar);
}

/// The address holds the query: words in it are taken for the kind of the page.
#[test]
fn a_query_that_names_a_page_kind() {
    let shown = ["search[soft search_results]", "click[b000000001]", "click[< prev]"];
    let (_, texts) = play(Mode::Text, &shown);
    assert!(texts[3].ends_with("Back to Search [SEP] Page 0 (Total results: 2) [SEP] Next >"));
    let shown = ["search[soft]", "click[b000000001]", "click[large]", "click[< prev]"];
    let (env, texts) = play(Mode::Text, &shown);
    assert_eq!(texts[4], texts[1]);
    assert!(options(&env).is_empty());
}

#[test]
fn sub_pages_keep_the_options() {
    let shown =
        ["search[soft]", "click[b000000001]", "click[large]", "click[features]", "click[< prev]"];
    let (env, texts) = play(Mode::Text, &shown);
    assert!(texts[4].ends_with("< Prev [SEP] machine wash [SEP] "));
    assert_eq!(options(&env), [("size", "large")]);
}

#[test]
fn rich_pages_mark_what_was_chosen() {
    // The address holds values as JSON: a value with a quote is never found there, and a query in
    // quotes is.
    let shown = ["search[soft \"large\"]", "click[b000000001]", "click[5\"]", "click[< prev]"];
    let (_, texts) = play(Mode::TextRich, &shown);
    assert!(texts[3].starts_with("You have clicked large.\nInstruction:\n"));
    assert!(texts[3].contains("  [clicked button] large [clicked button_]\n"));
    assert!(texts[3].contains("  [button] 5\" [button_]\n"));
    assert!(texts[4].contains("\n\n[clicked button] B000000001 [clicked button_]\nSoft"));
    let (_, texts) =
        play(Mode::TextRich, &["search[soft]", "click[b000000001]", "click[features]"]);
    assert!(texts[3].ends_with("[button] < Prev [button_]\n machine wash\n \n"));
}

#[test]
fn a_purchase_ends_the_episode() {
    let set = set(Mode::Text, None);
    let mut env = set.environment();
    for session in 0..set.goals().len() {
        let goal = set.goals().goal(set.catalogue(), session).unwrap();
        if goal.product != 0 {
            continue;
        }
        env.reset(&format!("webshop/0/{session}"), 0).unwrap();
        for action in ["search[soft cotton shirt]", "click[b000000001]"] {
            env.step(action).unwrap();
        }
        let value = serde_json::to_value(&goal.goal_options).unwrap();
        for (name, value) in value.as_object().unwrap() {
            // A value of both options goes to the last.
            if (name.as_str(), value.as_str()) != ("color", Some("green")) {
                env.step(&format!("click[{}]", value.as_str().unwrap())).unwrap();
            }
        }
        let done = env.step("click[buy now]").unwrap();
        assert_eq!(done.end, Some(EnvEnd::Terminated));
        assert_eq!(done.reward, env.score());
        assert!(done.reward > 0.5, "{goal:?}: {done:?}");
        assert_eq!(env.available(), Available::default());
        assert!(matches!(env.step("search[x]"), Err(EnvError::NotRunning)));
    }
}

#[test]
fn environments_refuse_what_they_do_not_know() {
    let set = set(Mode::Text, Some(2));
    let mut env = set.make();
    assert!(matches!(env.step("search[x]"), Err(EnvError::NotRunning)));
    for task in
        ["", "webshop/0/11", "webshop/x/1", "alfworld/1/1", "webshop/0/99999999999999999999"]
    {
        assert!(matches!(env.reset(task, 0), Err(EnvError::UnknownTask { .. })), "{task}");
    }
    for split in [Split::Train, Split::Seen, Split::Unseen] {
        let len = set.len(split).unwrap();
        assert!(len > 0);
        let task = set.task(split, len - 1).unwrap();
        assert_eq!(task.kind, "fashion");
        env.reset(&task.id, 0).unwrap();
        assert!(matches!(set.task(split, len), Err(EnvError::UnknownTask { .. })));
    }
    let odd = env.step("dance").unwrap();
    assert!(!odd.effect && odd.end.is_none());
    assert!(matches!(env.step("dance").unwrap().end, Some(EnvEnd::Truncated(_))));
    assert!(matches!(env.step("dance"), Err(EnvError::NotRunning)));
    // Goals of another seed, and people's.
    env.reset("webshop/7/3", 0).unwrap();
    env.reset("webshop-human/7/0", 0).unwrap();
}

#[test]
fn keywords_list_products() {
    let total = |query: &str| {
        let (_, texts) = play(Mode::Text, &[&format!("search[{query}]")]);
        let rest = texts[1].split("Total results: ").nth(1).unwrap();
        rest.split(')').next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(total("<r>"), 3);
    assert_eq!(total("<r> x"), 3);
    assert_eq!(total("<c> fashion"), 2);
    assert_eq!(total("<q> men's shirts"), 2);
    assert_eq!(total("<a> machine wash"), 1);
    assert_eq!(total("<a> unheard of"), 0);
    assert_eq!(total("<c>"), 0);
    assert_eq!(total("shirt <c>"), 2);
    assert_eq!(total(" "), 0);
}

#[test]
fn a_query_of_a_megabyte() {
    let query = format!("search[{}]", "soft \u{0} ".repeat(150_000));
    let (_, texts) = play(Mode::TextRich, &[&query, "click[b000000001]", "click[large]"]);
    assert!(texts[1].contains("Total results: 2"));
}

fn refused(error: Result<Arc<Catalogue>, EnvError>, parts: &[&str]) {
    let error = error.unwrap_err().to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn broken_files_are_named() {
    refused(parse("[]", "{}"), &["products", "no product"]);
    refused(parse("{}", "{}"), &["products:1", "an array of products"]);
    refused(parse("[\n\n{\"asin\": 1}]", "{}"), &["products:3", "integer", "a string"]);
    refused(parse("[\n{\"asin\": \"B1\"}]", "{}"), &["products:2", "name"]);
    refused(parse(&ITEMS[..ITEMS.len() / 2], "{}"), &["products:", "EOF"]);
    refused(parse(&format!("{ITEMS}x"), "{}"), &["products:18", "trailing"]);
    refused(parse(ITEMS, "[]"), &["instructions:1", "an object of instructions"]);
    refused(parse(ITEMS, "{\n\"B1\": {\"attributes\": 3}}"), &["instructions:2"]);
    refused(
        parse(ITEMS, "{\"B1\": {\"instruction\": \"x\", \"instruction_attributes\": []}}"),
        &["B1", "empty attribute list"],
    );
    let bytes = |items: &[u8], nouns: Option<&[u8]>| {
        Catalogue::from_json(items, INSTRUCTIONS.as_bytes(), None, nouns)
    };
    refused(bytes(b"[{\"asin\": \"\xff\xfe\"}]", None), &["products:1", "unicode"]);
    refused(bytes(ITEMS.as_bytes(), Some(b"{\"model\": \"x\"}")), &["nouns"]);
    refused(bytes(ITEMS.as_bytes(), Some(b"{\"nouns\": [1]}")), &["title nouns:1"]);
    let goals = bytes(ITEMS.as_bytes(), None).unwrap().goals(0, true).map(|goals| goals.len());
    assert!(goals.unwrap_err().to_string().contains("people's"));
}

#[test]
fn folders_of_several_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
    let size = |path: &Path| Catalogue::load(path).map(|catalogue| catalogue.len());
    let one = r#"[{"asin": "A", "name": "a"}]"#;

    refused(Catalogue::load(path), &["items_shuffle"]);
    refused(Catalogue::load(path.join("nowhere")), &["nowhere"]);
    write("items_shuffle_1000.json", one);
    refused(Catalogue::load(path), &["items_shuffle_1000.json", "items_ins_v2"]);
    write("items_ins_v2.json", INSTRUCTIONS);
    assert_eq!(size(path).unwrap(), 1);
    // A pair of one size is preferred to a smaller catalogue without its own instructions.
    write("items_shuffle.json", ITEMS);
    assert_eq!(size(path).unwrap(), 3);
    write("items_ins_v2_1000.json", INSTRUCTIONS);
    assert_eq!(size(path).unwrap(), 1);
    assert_eq!(size(&path.join("items_shuffle.json")).unwrap(), 3);
    // A gzipped twin does not count; alone it must be whole.
    write("items_shuffle_1000.json.gz", "not gzipped");
    assert_eq!(size(path).unwrap(), 1);
    fs::remove_file(path.join("items_shuffle_1000.json")).unwrap();
    refused(Catalogue::load(path), &["items_shuffle_1000.json.gz"]);
    // The folder above serves too.
    let above = tempfile::tempdir().unwrap();
    let below = above.path().join("webshop");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("items_shuffle.json"), ITEMS).unwrap();
    fs::write(below.join("items_ins_v2.json"), INSTRUCTIONS).unwrap();
    assert_eq!(size(above.path()).unwrap(), 3);
}

/// Of the embedded catalogue every goal can be won by its own product.
#[test]
fn generated_goals_can_be_won() {
    let files = generated::catalogue_files(1, 60).unwrap();
    let catalogue =
        Catalogue::from_json(&files.items, &files.instructions, None, Some(&files.nouns)).unwrap();
    let set = WebshopSet::new(Arc::clone(&catalogue), WebshopOptions::default(), None).unwrap();
    let goals = set.goals();
    for session in (0..goals.len()).step_by(7) {
        let goal = goals.goal(&catalogue, session).unwrap();
        let row = serde_json::json!({
            "purchased_asin": goal.asin, "price": goals.price(goal.product),
            "options": goal.goal_options, "goal": goal,
        });
        let reward = serde_json::from_value::<Purchase>(row).unwrap().reward(&catalogue).unwrap();
        assert_eq!(reward.total, 1.0, "{goal:?}: {reward:?}");
    }
}

#[test]
fn purchases_of_unknown_products_are_refused() {
    let row = serde_json::json!({
        "purchased_asin": "B9", "price": 1.0,
        "goal": {"name": "x", "attributes": ["a"], "price_upper": 10.0, "goal_options": ["b"]},
    });
    let purchase: Purchase = serde_json::from_value(row).unwrap();
    assert!(purchase.reward(&store()).unwrap_err().to_string().contains("\"B9\""));
}

fn action() -> impl Strategy<Value = String> {
    let click = prop::sample::select(vec![
        "b000000001",
        "B000000002",
        "b000000003",
        "next >",
        "< prev",
        "back to search",
        "features",
        "description",
        "reviews",
        "attributes",
        "green",
        "5\"",
        "large",
        "search",
        "size",
    ]);
    prop_oneof![
        6 => click.prop_map(|text| format!("click[{text}]")),
        2 => "[a-z<> ]{0,6}(soft|shirt|table|<r>|<c>|item_page|search_results)[\\[\\] a-zé]{0,8}"
            .prop_map(|text| format!("search[{text}]")),
        1 => any::<String>(),
        1 => "(click|search)\\[.{0,20}\\]?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_actions_can_be_played(
        actions in prop::collection::vec(action(), 1..30), rich: bool, session in 0_usize..11,
    ) {
        let mode = if rich { Mode::TextRich } else { Mode::Text };
        let mut env = set(mode, Some(40)).environment();
        let mut text = env.reset(&format!("webshop/0/{session}"), 0).unwrap().text;
        for action in &actions {
            let offered = env.available();
            let transition = env.step(action).unwrap();
            match Action::parse(action) {
                Action::Search(_) => prop_assert!(transition.effect),
                Action::Click(name) => {
                    prop_assert!(!transition.effect || offered.clickables.contains(&name));
                }
                Action::Other => prop_assert!(!transition.effect),
            }
            prop_assert!(transition.effect || transition.observation.text == text);
            prop_assert!((0.0..=1.0).contains(&transition.reward));
            text = transition.observation.text;
            if transition.end.is_some() {
                break;
            }
        }
    }

    #[test]
    fn damaged_files_are_read_or_refused(
        which in 0..3, cuts in prop::collection::vec((any::<usize>(), 0_usize..20, ".{0,3}"), 1..4),
    ) {
        let damage = |text: &str| {
            let mut chars: Vec<char> = text.chars().collect();
            for (at, n, new) in &cuts {
                let at = at % chars.len().max(1);
                chars.splice(at..(at + n).min(chars.len()), new.chars());
            }
            chars.into_iter().collect::<String>()
        };
        let (mut items, mut instructions, mut human) =
            (ITEMS.to_owned(), INSTRUCTIONS.to_owned(), HUMAN.to_owned());
        match which {
            0 => items = damage(&items),
            1 => instructions = damage(&instructions),
            _ => human = damage(&human),
        }
        let read = Catalogue::from_json(
            items.as_bytes(), instructions.as_bytes(), Some(human.as_bytes()), None,
        );
        let Ok(catalogue) = read else { return Ok(()) };
        let Ok(set) = WebshopSet::new(catalogue, WebshopOptions::default(), None) else {
            return Ok(());
        };
        let mut env = set.environment();
        env.reset("webshop/0/0", 0).unwrap();
        for action in ["search[soft shirt]", "click[b000000001]", "click[large]", "click[buy now]"] {
            env.step(action).unwrap();
        }
    }

    #[test]
    fn ratios_are_percentages(a in ".{0,40}", b in "[a-c é]{0,300}") {
        prop_assert!(token_set_ratio(&a, &b) <= 100);
        let own = token_set_ratio(&b, &b);
        prop_assert!(own == 100 || b.chars().all(|c| c == ' ' || c == 'é'));
    }
}
