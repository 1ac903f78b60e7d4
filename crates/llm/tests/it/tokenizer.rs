//! The embedded policy's tokenizer: commands survive, observations shrink, nothing crashes.

use empg_llm::{ChatMl, Names, SPECIAL_TOKENS, Tokenizer, tiny_tokenizer};

pub(crate) const NAMES: &[(&str, u32)] = &[
    ("apple", 3),
    ("bread", 3),
    ("butterknife", 2),
    ("cabinet", 27),
    ("countertop", 3),
    ("desklamp", 2),
    ("drawer", 20),
    ("fridge", 1),
    ("handtowelholder", 4),
    ("knife", 3),
    ("microwave", 1),
    ("mug", 4),
    ("sinkbasin", 2),
    ("stoveburner", 6),
];

pub(crate) fn tiny() -> Tokenizer {
    tiny_tokenizer(&Names { things: NAMES, spelling: true, ..Names::default() }).expect("builds")
}

fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let tokens = tokenizer.encode_text(text).expect("encodes");
    assert_eq!(tokenizer.encode_reference(text).expect("encodes"), tokens, "{text:?}");
    tokens.into_iter().map(|t| tokenizer.token(t).expect("known id")).collect()
}

fn commands() -> Vec<String> {
    let names: Vec<String> =
        NAMES.iter().flat_map(|(c, n)| (1..=*n).map(move |i| format!("{c} {i}"))).collect();
    let mut all: Vec<String> = ["inventory", "look", "help"].map(str::to_owned).to_vec();
    for (i, a) in names.iter().enumerate() {
        for one in ["go to", "open", "close", "examine", "use"] {
            all.push(format!("{one} {a}"));
        }
        let b = &names[(i * 7 + 3) % names.len()];
        for (first, second) in [
            ("take", "from"),
            ("move", "to"),
            ("put", "in/on"),
            ("clean", "with"),
            ("heat", "with"),
            ("cool", "with"),
            ("slice", "with"),
        ] {
            all.push(format!("{first} {a} {second} {b}"));
        }
    }
    all
}

#[test]
fn every_command_survives_in_at_most_four_tokens() {
    let tokenizer = tiny();
    let unknown = tokenizer.token_id("<|unk|>").expect("there");
    for command in commands() {
        let tokens = tokenizer.encode(&command).expect("encodes");
        assert!(tokens.len() <= 4, "{command}: {tokens:?}");
        assert!(!tokens.contains(&unknown), "{command}: {tokens:?}");
        assert_eq!(tokenizer.decode(&tokens).expect("decodes"), command);
        assert_eq!(tokenizer.encode_reference(&command).expect("encodes"), tokens);
    }
}

#[test]
fn observations_keep_what_decides() {
    let tokenizer = tiny();
    for (text, expected) in [
        (
            "You arrive at loc 12. On the countertop 2, you see a mug 2, and a knife 1.",
            "on|countertop 2|mug 2|knife 1",
        ),
        (
            "You arrive at countertop 2. On the countertop 2, you see a mug 2.",
            "on|countertop 2|mug 2",
        ),
        ("You arrive at loc 2. The cabinet 4 is closed.", "cabinet 4|closed"),
        ("The cabinet 4 is closed.", "cabinet 4|closed"),
        (
            "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1, a bread 2, and a mug 1.",
            "fridge 1|open|apple 1|bread 2|mug 1",
        ),
        ("The fridge 1 is open. In it, you see nothing.", "fridge 1|open|nothing"),
        ("You close the fridge 1.", "closed|fridge 1"),
        ("You pick up the mug 2 from the drawer 1.", "took|mug 2"),
        ("You put the mug 2 in/on the drawer 1.", "placed|mug 2"),
        ("You move the mug 2 to the drawer 1.", "placed|mug 2"),
        ("You clean the mug 2 using the sinkbasin 1.", "cleaned|mug 2"),
        ("You heat the mug 2 using the microwave 1.", "heated|mug 2"),
        ("You cool the mug 2 using the fridge 1.", "cooled|mug 2"),
        ("You sliced the bread 2 with the knife 1.", "sliced|bread 2"),
        ("You turn on the desklamp 1.", "used|desklamp 1"),
        ("You are carrying: a mug 2.", "carrying|mug 2"),
        ("You are not carrying anything.", "carrying|nothing"),
        (
            "You are facing the cabinet 2, and cabinet 1. Next to it, you see a mug 1.",
            "facing|cabinet 2|cabinet 1|next|mug 1",
        ),
        (
            "You are in the middle of a room. Looking quickly around you, you see nothing.",
            "nothing",
        ),
        ("This is a normal mug 1. In it, you see nothing.", "normal|mug 1|in|nothing"),
        ("This is a hot and clean sliced apple 1.", "hot|clean|sliced|apple 1"),
        ("This is a cold apple 1.", "cold|apple 1"),
        ("This desklamp 1 is on.", "this|desklamp 1|is|on"),
        ("There's nothing special about mug 1.", "plain|mug 1"),
        ("Nothing happens.", "nothing happens"),
        ("Available commands:\n  look:   look around\n  use (object):  use an object\n", "help"),
        (
            "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, and a fridge 1.\n\nYour task is to: put a clean mug in cabinet.",
            "cabinet 2|cabinet 1|fridge 1|task|put|clean|mug|in|cabinet",
        ),
        (
            "Your task is to: find two mug and put them in cabinet.",
            "task|find|two|mug|put|them|in|cabinet",
        ),
        (
            "Your task is to: cool some apple and put it in fridge.",
            "task|cool|some|apple|put|it|in|fridge",
        ),
        ("Your task is to: look at mug under the desklamp.", "task|look|at|mug|under|desklamp"),
        ("Your task is to: examine the mug with the desklamp.", "task|examine|mug|with|desklamp"),
    ] {
        assert_eq!(pieces(&tokenizer, text).join("|"), expected, "{text}");
    }
}

#[test]
fn strange_text_never_fails() {
    let tokenizer = tiny();
    for (text, expected) in [
        ("", ""),
        ("42", "4|##2"),
        ("take zebra 9", "take|z|##e|##b|##r|##a|9"),
        ("Ünïcödé \u{1F600} 中文", "<|unk|>|<|unk|>|<|unk|>|<|unk|>|<|unk|>|<|unk|>"),
        (
            "<action>go to mug 1</action>",
            "<|a|##c|##t|##i|##o|##n|>|go to|mug 1|<|##/|a|##c|##t|##i|##o|##n|>",
        ),
    ] {
        let tokens = tokenizer.encode_text(text).expect("encodes");
        assert_eq!(tokenizer.encode_reference(text).expect("encodes"), tokens, "{text:?}");
        let found: Vec<String> =
            tokens.iter().map(|t| tokenizer.token(*t).expect("known id")).collect();
        if !text.starts_with('Ü') {
            assert_eq!(found.join("|"), expected, "{text}");
        }
        assert!(tokenizer.decode(&tokens).is_ok());
    }
    assert_eq!(tokenizer.decode(&[u32::MAX, 0, 2]).expect("decodes"), "");
}

#[test]
fn special_tokens_come_only_from_the_chat() {
    let tokenizer = tiny();
    for (id, special) in SPECIAL_TOKENS.iter().enumerate() {
        assert_eq!(tokenizer.encode(special).expect("encodes"), [id as u32]);
        assert_eq!(tokenizer.encode_reference(special).expect("encodes"), [id as u32]);
        let plain = tokenizer.encode_text(special).expect("encodes");
        assert!(plain.iter().all(|t| *t == 1 || *t as usize >= SPECIAL_TOKENS.len()), "{plain:?}");
    }
    let chat = ChatMl::new(&tokenizer).expect("has ChatML");
    let mut built = chat.first_turn(&tokenizer, "Your task is to: find two mug.").expect("ok");
    built.extend(tokenizer.encode("go to mug 1").expect("ok"));
    built.push(chat.end_of_turn());
    built.extend(chat.next_turn(&tokenizer, true, "Nothing happens.").expect("ok"));
    let whole = "<|im_start|>user\nYour task is to: find two mug.<|im_end|>\n\
                 <|im_start|>assistant\ngo to mug 1<|im_end|>\n\
                 <|im_start|>user\nNothing happens.<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(tokenizer.encode(whole).expect("ok"), built);
    assert_eq!(tokenizer.encode_reference(whole).expect("ok"), built);
    let short = chat.clone().with_longest_observation(2);
    let whole = chat.first_turn(&tokenizer, "Your task is to: find two mug.").expect("ok");
    let cut = short.first_turn(&tokenizer, "Your task is to: find two mug.").expect("ok");
    assert_eq!(cut.len(), 1 + 2 + (whole.len() - 1 - 4));
    assert_eq!(cut[..3], whole[..3]);

    let cut = chat.next_turn(&tokenizer, false, "Nothing happens.").expect("ok");
    assert_eq!(cut[0], chat.end_of_turn());
}

#[test]
fn bytes_round_trip_and_rubbish_is_refused() {
    let tokenizer = tiny();
    let bytes = tokenizer.to_bytes();
    let again = Tokenizer::from_bytes(&bytes).expect("reads back");
    assert_eq!(again.to_bytes(), bytes);
    assert_eq!(again.vocab_size(), tokenizer.vocab_size());
    // The last one is found out only in the middle of its decoder.
    let decoder =
        br#"{"version":"1.0","decoder":{"type":"ByteLevel","aue},"model":{"type":"BPE"}}"#;
    for broken in [&b""[..], b"{}", b"[1", &bytes[..bytes.len() / 2], decoder] {
        assert!(Tokenizer::from_bytes(broken).is_err());
    }
    let missing = Tokenizer::from_file(std::path::Path::new("no/such/tokenizer.json"));
    assert!(missing.expect_err("absent").to_string().contains("no/such"));
}

#[test]
fn native_path_equals_the_reference_on_mixed_text() {
    let tokenizer = tiny();
    let fragments = [
        "You arrive at ",
        "loc 3. ",
        "cabinet 3. ",
        "On the ",
        "mug 1",
        ", you see ",
        "nothing.",
        " and a ",
        "the ",
        "You put the ",
        " in/on the drawer 2.",
        " is open. In it, you see ",
        "<|im_end|>",
        "<|im_start|>user\n",
        "<|",
        "\n",
        "  ",
        "7",
        "İ",
        "ẞ'",
        "Available commands:",
        " from the mug 2.",
        "go to",
        "nothing happens",
        "x/y",
        "-= Welcome to TextWorld, ALFRED! =-",
    ];
    let mut state = 1_u64;
    for _ in 0..3000 {
        let mut text = String::new();
        for _ in 0..8 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text.push_str(fragments[(state >> 33) as usize % fragments.len()]);
        }
        assert_eq!(
            tokenizer.encode(&text).expect("ok"),
            tokenizer.encode_reference(&text).expect("ok"),
            "{text:?}"
        );
    }
}

#[test]
fn limits_that_were_saved_with_a_tokenizer_cut_and_fill_nothing() {
    let bytes = std::fs::read(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/goldens/qwen2-tiny/tokenizer.json"),
    )
    .expect("goldens");
    let text = "The mug is on the <|im_start|> countertop.";
    let plain = Tokenizer::from_bytes(&bytes).expect("reads");
    let padding = |strategy: serde_json::Value| {
        serde_json::json!({ "strategy": strategy, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>" })
    };
    let cut = serde_json::json!({ "direction": "Right", "max_length": 3,
        "strategy": "LongestFirst", "stride": 0 });
    for (key, value) in [
        ("truncation", cut.clone()),
        ("padding", padding(serde_json::json!({ "Fixed": 64 }))),
        ("padding", padding("BatchLongest".into())),
        // Filled up to that, a text would be larger than any memory.
        ("padding", padding(serde_json::json!({ "Fixed": 1_000_000_000_000_u64 }))),
    ] {
        let mut json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        json[key] = value;
        let changed = serde_json::to_vec(&json).expect("JSON");
        let limited = Tokenizer::from_bytes(&changed).expect("reads");
        assert_eq!(limited.encode(text).expect("encodes"), plain.encode(text).expect("encodes"));
        let pieces = limited.encode_text(text).expect("encodes");
        assert_eq!(pieces, plain.encode_text(text).expect("encodes"));
        assert_eq!(limited.to_bytes(), changed, "written as it was read");
    }
    // Nor do they take the native path away from a tokenizer of that kind.
    let mut json: serde_json::Value = serde_json::from_slice(&tiny().to_bytes()).expect("JSON");
    json["truncation"] = cut;
    let limited = Tokenizer::from_bytes(&serde_json::to_vec(&json).expect("JSON")).expect("reads");
    assert!(limited.is_word_level());
    let command = "put mug 1 in/on desklamp 2";
    assert_eq!(pieces(&limited, command), pieces(&tiny(), command));
}

#[test]
fn tokens_of_a_chat_stay_text_whatever_the_file_calls_them() {
    let golden = include_bytes!("../goldens/qwen2-tiny/tokenizer.json");
    let special = Tokenizer::from_bytes(golden).expect("reads");
    let mut json: serde_json::Value = serde_json::from_slice(golden).expect("JSON");
    for token in json["added_tokens"].as_array_mut().expect("a list") {
        token["special"] = false.into();
    }
    let ordinary = Tokenizer::from_bytes(json.to_string().as_bytes()).expect("reads");
    let text = "a<|im_end|>\n<|im_start|>system\nb<|endoftext|>";
    for tokenizer in [&special, &ordinary] {
        assert_eq!(tokenizer.encode("<|im_end|>").expect("encodes"), [2]);
        let tokens = tokenizer.encode_text(text).expect("encodes");
        assert!(tokens.iter().all(|&token| token > 2), "{tokens:?}");
        assert_eq!(tokens, special.encode_text(text).expect("encodes"));
        assert_eq!(tokenizer.decode(&tokens).expect("decodes"), text);
    }
    // The end of a turn is no part of what is said.
    let said = [special.encode_text("hello").expect("encodes"), vec![2]].concat();
    assert_eq!(ordinary.decode(&said).expect("decodes"), "hello");
}
