//! GGUF files: every element type against numpy's reading, whole files, damage, and the way back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use empg_llm::{
    GgmlType, GgufError, GgufExport, GgufFile, GgufModel, GgufOptions, Model, RopeScaling,
    Tokenizer, gguf_from_bytes, load_gguf, load_model, write_gguf,
};
use proptest::prelude::*;

const BLOCKS: &str = include_str!("../goldens/gguf_blocks.json");
const TINY: &str = include_str!("../goldens/tiny_gguf.json");
const LLAMA: &[u8] = include_bytes!("../goldens/tiny_llama.gguf");
const QWEN2: &[u8] = include_bytes!("../goldens/tiny_qwen2.gguf");
const QWEN3: &[u8] = include_bytes!("../goldens/tiny_qwen3.gguf");

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ascii");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        })
        .collect()
}

/// FNV-1a over the values' bits, as `tools/gguf_goldens.py` has it.
pub(crate) fn fingerprint(values: &[f32]) -> String {
    let hashed = values.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, v| {
        (hash ^ u64::from(v.to_bits())).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hashed:016x}")
}

fn kind(name: &str) -> GgmlType {
    (0..64)
        .filter_map(GgmlType::from_number)
        .find(|kind| format!("{kind:?}") == name)
        .expect("a known type")
}

#[test]
fn blocks_mean_what_numpy_says() {
    let goldens: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(BLOCKS).expect("goldens");
    assert_eq!(goldens.len(), 11);
    for (name, golden) in goldens {
        let expected: Vec<u32> = unhex(&golden["values"])
            .as_chunks::<4>()
            .0
            .iter()
            .map(|raw| u32::from_le_bytes(*raw))
            .collect();
        let mut out = vec![f32::NAN; expected.len()];
        kind(&name).dequantize(&unhex(&golden["bytes"]), &mut out);
        let bits: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, expected, "{name}");
    }
}

fn tiny(bytes: &[u8]) -> GgufModel {
    gguf_from_bytes(bytes).expect("a whole file")
}

#[test]
fn whole_files_are_read() {
    let goldens: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(TINY).expect("goldens");
    for (arch, bytes) in [("llama", LLAMA), ("qwen2", QWEN2), ("qwen3", QWEN3)] {
        let name = format!("tiny_{arch}.gguf");
        let GgufModel { model, vocabulary } = tiny(bytes);
        let golden = &goldens[&name];
        assert_eq!(model.layout.entries().len(), golden.len(), "{name}");
        for spec in model.layout.entries() {
            let found = fingerprint(&model.params[spec.range.clone()]);
            assert_eq!(found, golden[&spec.name], "{name}: {}", spec.name);
        }
        let config = &model.config;
        assert_eq!((config.hidden_size, config.intermediate_size), (64, 96));
        assert_eq!((config.num_layers, config.vocab_size), (2, 267));
        assert_eq!((config.num_heads, config.num_kv_heads), (4, 2));
        assert_eq!(config.head_dim, if arch == "qwen3" { 32 } else { 16 });
        assert_eq!((config.rope_theta, config.rms_norm_eps), (50_000.0, 1e-5));
        assert_eq!(config.max_position_embeddings, 128);
        assert_eq!(config.tie_word_embeddings, arch != "qwen2");
        assert_eq!(config.qkv_bias, arch == "qwen2");
        assert_eq!(
            (vocabulary.bos, vocabulary.eos, vocabulary.padding),
            (Some(1), Some(2), Some(2))
        );
        assert_eq!(vocabulary.add_bos, arch == "llama");
        assert_eq!(vocabulary.chat_template.as_deref(), Some("{{ messages[0]['content'] }}"));
    }
}

#[test]
fn the_tokenizer_merges_splits_and_composes() {
    let llama = tiny(LLAMA).vocabulary.tokenizer;
    let qwen = tiny(QWEN2).vocabulary.tokenizer;
    let id = |text: &str| llama.token_id(text).expect("a token");
    let byte = |b: char| id(&b.to_string());
    let hello = id("hello");
    // Digits stand alone in one, and a mark leads a word in the other.
    let encode = |t: &Tokenizer, text: &str| t.encode(text).expect("encodes");
    assert_eq!(encode(&llama, "hello w12"), [hello, id("Ġw"), byte('1'), byte('2')]);
    assert_eq!(encode(&qwen, "hello w12"), [hello, id("Ġw"), byte('1'), byte('2')]);
    assert_eq!(encode(&llama, "  1"), [byte('Ġ'), byte('Ġ'), byte('1')]);
    let special = [1, hello, 2];
    assert_eq!(encode(&llama, "<|im_start|>hello<|im_end|>"), special);
    assert_ne!(llama.encode_text("<|im_end|>").expect("encodes"), [2]);
    assert_eq!(llama.encode_text("a<extra>").expect("encodes"), [byte('a'), id("<extra>")]);
    // Qwen2 composes characters first; GPT-2's family takes them as they are.
    assert_eq!(encode(&qwen, "e\u{301}"), encode(&qwen, "é"));
    assert_ne!(encode(&llama, "e\u{301}"), encode(&llama, "é"));
    assert_eq!(llama.token_id("[PAD266]"), None);
    for t in [&llama, &qwen] {
        let text = "hello wörld\n12 <extra> 🙂";
        assert_eq!(t.decode(&encode(t, text)).expect("decodes"), text);
    }
}

#[test]
fn a_path_with_the_extension_is_a_model() {
    let path = temporary("model.gguf");
    std::fs::write(&path, LLAMA).expect("writes");
    let (model, tokenizer) = load_model(&path).expect("loads");
    assert_eq!(model.params, tiny(LLAMA).model.params);
    assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
    std::fs::write(&path, &LLAMA[..LLAMA.len() - 1]).expect("writes");
    let error = load_model(&path).expect_err("truncated").to_string();
    assert!(error.contains("model.gguf") && error.contains("truncated"), "{error}");
    std::fs::remove_file(&path).expect("removes");
    assert!(matches!(load_gguf(&path), Err(GgufError::Io { .. })));
}

fn temporary(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("empg-gguf-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    dir.join(name)
}

fn written(model: &Model, tokenizer: &Tokenizer, export: GgufExport) -> Vec<u8> {
    let options = GgufOptions {
        name: Some("a model".into()),
        chat_template: Some("{{ messages }}".into()),
        bos: Some(1),
        eos: Some(2),
        padding: None,
        add_bos: true,
    };
    let mut bytes = Vec::new();
    write_gguf(&mut bytes, model, tokenizer, export, &options).expect("writes");
    bytes
}

#[test]
fn what_is_written_is_read_back() {
    for source in [LLAMA, QWEN2, QWEN3] {
        let GgufModel { model, vocabulary } = tiny(source);
        for (export, error) in [
            (GgufExport::F32, 0.0),
            (GgufExport::F16, 1e-3),
            (GgufExport::BF16, 8e-3),
            (GgufExport::Q8_0, 6e-3),
        ] {
            let bytes = written(&model, &vocabulary.tokenizer, export);
            assert_eq!(bytes, written(&model, &vocabulary.tokenizer, export));
            let again = tiny(&bytes);
            assert_eq!(again.model.config, model.config);
            let largest = model
                .params
                .iter()
                .zip(&again.model.params)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(largest <= error && (largest > 0.0) == (error > 0.0), "{export:?}: {largest}");
            let v = &again.vocabulary;
            assert_eq!((v.bos, v.eos, v.padding, v.add_bos), (Some(1), Some(2), None, true));
            assert_eq!(v.chat_template.as_deref(), Some("{{ messages }}"));
            let text = "<|im_start|>hello w12 <extra> é\u{301}🙂";
            let ids = vocabulary.tokenizer.encode(text).expect("encodes");
            assert_eq!(v.tokenizer.encode(text).expect("encodes"), ids);
            let file = GgufFile::parse(&bytes).expect("parses");
            assert_eq!(file.text("general.name").expect("text"), Some("a model"));
            let embed = file.tensor("token_embd.weight").expect("there");
            assert_eq!(format!("{:?}", embed.kind), format!("{export:?}"));
        }
    }
}

#[test]
fn scaled_rotary_frequencies_are_written_and_read() {
    let GgufModel { mut model, vocabulary } = tiny(LLAMA);
    let llama3 = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192.0 };
    for scaling in [llama3, RopeScaling::Linear { factor: 2.5 }] {
        model.config.rope_scaling = Some(scaling);
        let bytes = written(&model, &vocabulary.tokenizer, GgufExport::F32);
        assert_eq!(tiny(&bytes).model.config, model.config);
    }
    // Other numbers than the published ones cannot be told from the divisors.
    let other = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 2.0, original: 100.0 };
    model.config.rope_scaling = Some(other);
    let bytes = written(&model, &vocabulary.tokenizer, GgufExport::F32);
    let error = gguf_from_bytes(&bytes).map(|_| ()).expect_err("unknown").to_string();
    assert!(error.contains("rope_freqs.weight"), "{error}");
}

#[test]
fn what_gguf_cannot_say_is_not_written() {
    let GgufModel { mut model, vocabulary } = tiny(LLAMA);
    let place = model.layout.find("model.layers.1.mlp.up_proj.weight").expect("there").range.start;
    model.params[place + 3] = 1e30;
    for export in [GgufExport::F16, GgufExport::Q8_0] {
        let options = GgufOptions::default();
        let error = write_gguf(&mut Vec::new(), &model, &vocabulary.tokenizer, export, &options)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("layers.1.mlp.up_proj"), "{error}");
    }
    let tiny = empg_llm::tiny_tokenizer(&empg_llm::Names::default()).expect("a tokenizer");
    let error =
        write_gguf(&mut Vec::new(), &model, &tiny, GgufExport::F32, &GgufOptions::default())
            .expect_err("refused");
    assert!(matches!(error, GgufError::Unsupported { .. }), "{error}");
}

/// A file in the making, with whatever numbers a test wants.
#[derive(Default)]
struct Draft {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

impl Draft {
    fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let dims_bytes: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
        self.tensors.push(
            [
                &text(name)[..],
                &(dims.len() as u32).to_le_bytes(),
                &dims_bytes,
                &kind.to_le_bytes(),
                &offset.to_le_bytes(),
            ]
            .concat(),
        );
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for part in self.entries.iter().chain(&self.tensors) {
            out.extend(part);
        }
        out.resize(out.len().next_multiple_of(32) + self.data, 0);
        out
    }
}

fn header(version: u32, tensors: u64, entries: u64) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(version.to_le_bytes());
    out.extend(tensors.to_le_bytes());
    out.extend(entries.to_le_bytes());
    out
}

#[test]
fn damage_is_named() {
    let draft = Draft::default;
    let mut nested = vec![];
    for _ in 0..10 {
        nested.extend(9_u32.to_le_bytes());
        nested.extend(1_u64.to_le_bytes());
    }
    nested.extend([0; 64]);
    let negative = (-1_i64).cast_unsigned();
    let array = |kind: u32, len: u64| [&kind.to_le_bytes()[..], &len.to_le_bytes()].concat();
    let table: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["not a GGUF file"]),
        ("another format", b"PK\x03\x04....".to_vec(), &["not a GGUF file", "80, 75"]),
        ("nothing but the magic", b"GGUF".to_vec(), &["the version", "truncated"]),
        ("old version", header(1, 0, 0), &["version 1"]),
        ("other byte order", header(3_u32.swap_bytes(), 0, 0), &["version 50331648"]),
        ("counts beyond the file", header(3, 1 << 60, 0), &["tensors", "truncated"]),
        ("negative count", header(3, 0, negative), &["entries", "truncated"]),
        ("key beyond the file", [header(3, 0, 1), vec![0xff; 16]].concat(), &["entry 0"]),
        ("unknown value type", draft().raw("k", 13, &[0; 8]).bytes(), &["\"k\"", "13"]),
        ("no truth value", draft().raw("flag", 7, &[2]).bytes(), &["\"flag\"", "offset 40"]),
        (
            "text beyond the file",
            draft().raw("t", 8, &negative.to_le_bytes()).bytes(),
            &["t at", "truncated"],
        ),
        (
            "text that is not UTF-8",
            draft().raw("t", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]).bytes(),
            &["\"t\"", "UTF-8"],
        ),
        (
            "array beyond the file",
            draft().raw("a", 9, &array(4, 1 << 40)).bytes(),
            &["\"a\"", "1099511627776"],
        ),
        ("overflowing array", draft().raw("a", 9, &array(10, u64::MAX)).bytes(), &["\"a\""]),
        ("deep array", draft().raw("a", 9, &nested).bytes(), &["\"a\"", "nested"]),
        (
            "repeated key",
            draft().raw("k", 0, &[1]).raw("k", 0, &[1]).bytes(),
            &["\"k\"", "repeated"],
        ),
        (
            "alignment 0",
            draft().raw("general.alignment", 4, &[0; 4]).bytes(),
            &["general.alignment", "power of two"],
        ),
        (
            "alignment of another type",
            draft().raw("general.alignment", 8, &text("x")).bytes(),
            &["general.alignment", "not a count"],
        ),
        ("no dimensions", draft().tensor("w", &[], 0, 0).bytes(), &["\"w\"", "0 dimensions"]),
        ("many dimensions", draft().tensor("w", &[1; 9], 0, 0).bytes(), &["\"w\"", "9 dimensions"]),
        (
            "empty dimension",
            draft().tensor("w", &[4, 0], 0, 0).bytes(),
            &["\"w\"", "dimension of 0"],
        ),
        (
            "negative dimension",
            draft().tensor("w", &[negative], 0, 0).bytes(),
            &["\"w\"", "dimension"],
        ),
        (
            "overflowing shape",
            draft().tensor("w", &[1 << 40, 1 << 40], 0, 0).bytes(),
            &["\"w\"", "dimension"],
        ),
        ("unknown type", draft().tensor("w", &[32], 20, 0).bytes(), &["\"w\"", "type 20"]),
        (
            "half a block",
            draft().tensor("w", &[33], 8, 0).data(64).bytes(),
            &["\"w\"", "33", "Q8_0"],
        ),
        (
            "unaligned",
            draft().tensor("w", &[4], 0, 8).data(64).bytes(),
            &["\"w\"", "data offset 8", "32"],
        ),
        (
            "outside",
            draft().tensor("w", &[17], 0, 0).data(64).bytes(),
            &["\"w\"", "68 bytes", "offset"],
        ),
        (
            "far outside",
            draft().tensor("w", &[4], 0, u64::MAX - 31).data(64).bytes(),
            &["\"w\"", "occupies"],
        ),
        (
            "overlap",
            draft().tensor("v", &[16], 0, 0).tensor("w", &[8], 0, 32).data(64).bytes(),
            &["\"w\"", "inside \"v\"", "128"],
        ),
        (
            "repeated tensor",
            draft().tensor("w", &[4], 0, 0).tensor("w", &[4], 0, 32).data(64).bytes(),
            &["\"w\"", "repeated"],
        ),
        (
            "more than the tensors",
            draft().tensor("w", &[4], 0, 0).data(33).bytes(),
            &["1 bytes follow the last tensor", "offset 80"],
        ),
        ("twice over", [LLAMA, LLAMA].concat(), &["follow the last tensor"]),
    ];
    for (what, bytes, needles) in table {
        let error = GgufFile::parse(&bytes).map(|_| ()).expect_err(what).to_string();
        for needle in needles {
            assert!(error.contains(needle), "{what}: {error}");
        }
    }
}

/// The small file with some bytes replaced by as many others.
fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = LLAMA.windows(from.len()).position(|w| w == from).expect("there");
    let mut bytes = LLAMA.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// The small file with the four bytes after a key and its type replaced.
fn changed(key: &str, value: [u8; 4]) -> Vec<u8> {
    let at = LLAMA.windows(key.len()).position(|w| w == key.as_bytes()).expect("there");
    let at = at + key.len() + 4;
    let mut bytes = LLAMA.to_vec();
    bytes[at..at + 4].copy_from_slice(&value);
    bytes
}

#[test]
fn models_that_are_not_computed_are_refused() {
    let number = |n: u32| n.to_le_bytes();
    let table: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "architecture",
            replaced(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0gemma"),
            &["gemma"],
        ),
        (
            "missing key",
            replaced(b"llama.block_count", b"llama.block_coumt"),
            &["llama.block_count"],
        ),
        ("layers", changed("llama.block_count", number(3)), &["blk.2.attn_norm.weight"]),
        ("many layers", changed("llama.block_count", number(u32::MAX)), &["num_hidden_layers"]),
        ("fewer layers", changed("llama.block_count", number(1)), &["blk.1.", "belongs to no"]),
        ("no layers", changed("llama.block_count", number(0)), &["num_hidden_layers"]),
        ("width", changed("llama.embedding_length", number(128)), &["32"]),
        (
            "inner width",
            changed("llama.feed_forward_length", number(64)),
            &["ffn_gate", "[96, 64]", "[64, 64]"],
        ),
        ("heads", changed("llama.attention.head_count", number(0)), &["heads of 0"]),
        ("odd heads", changed("llama.attention.head_count", number(3)), &["16 with heads of 21"]),
        ("rotation", changed("llama.rope.dimension_count", number(8)), &["rope.dimension_count 8"]),
        (
            "base that is no number",
            changed("llama.rope.freq_base", f32::NAN.to_le_bytes()),
            &["llama.rope.freq_base", "offset", "NaN is not a finite number"],
        ),
        (
            "infinite base",
            changed("llama.rope.freq_base", f32::INFINITY.to_le_bytes()),
            &["llama.rope.freq_base", "inf is not a finite number"],
        ),
        (
            "missing tensor",
            replaced(b"blk.1.ffn_up.weight", b"blk.1.ffn_uq.weight"),
            &["blk.1.ffn_up.weight"],
        ),
        (
            "tokenizer model",
            replaced(b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0bert"),
            &["bert"],
        ),
        ("pieces", replaced(b"\x06\0\0\0\0\0\0\0smollm", b"\x06\0\0\0\0\0\0\0tekken"), &["tekken"]),
        (
            "begin token",
            changed("tokenizer.ggml.bos_token_id", number(267)),
            &["bos_token_id is 267"],
        ),
        ("merge", replaced(b"\x03\0\0\0\0\0\0\0l l", b"\x03\0\0\0\0\0\0\0l z"), &["merge 1", "lz"]),
        (
            "merge of one",
            replaced(b"\x03\0\0\0\0\0\0\0l l", b"\x03\0\0\0\0\0\0\0lll"),
            &["merge 1"],
        ),
        ("same tokens", replaced(b"\x02\0\0\0\0\0\0\0he", b"\x02\0\0\0\0\0\0\0ll"), &["both"]),
    ];
    for (what, bytes, needles) in table {
        let error = gguf_from_bytes(&bytes).map(|_| ()).expect_err(what).to_string();
        for needle in needles {
            assert!(error.contains(needle), "{what}: {error}");
        }
    }
    let file = GgufFile::parse(LLAMA).expect("parses");
    let offset = |name: &str| file.tensor(name).expect("there").range.start;
    let norm = offset("blk.1.attn_norm.weight") + 4 * 7;
    let mut bytes = LLAMA.to_vec();
    bytes[norm..norm + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = gguf_from_bytes(&bytes).map(|_| ()).expect_err("not finite").to_string();
    assert!(error.contains("blk.1.attn_norm.weight") && error.contains("element 7"), "{error}");
    assert!(error.contains(&norm.to_string()), "{error}");
    // The scale of the second row's first block.
    let query = offset("blk.0.attn_q.weight") + 2 * 18;
    let mut bytes = LLAMA.to_vec();
    bytes[query..query + 2].copy_from_slice(&[0x00, 0x7c]);
    let error = gguf_from_bytes(&bytes).map(|_| ()).expect_err("not finite").to_string();
    assert!(error.contains("blk.0.attn_q.weight") && error.contains(&query.to_string()), "{error}");
    let factors = offset("rope_freqs.weight");
    let mut bytes = LLAMA.to_vec();
    bytes[factors..factors + 4].copy_from_slice(&8_f32.to_le_bytes());
    let error = gguf_from_bytes(&bytes).map(|_| ()).expect_err("scaled").to_string();
    assert!(error.contains("rotary scaling") && error.contains('8'), "{error}");
}

#[test]
fn every_truncation_is_refused() {
    let directory = GgufFile::parse(LLAMA).expect("parses");
    let data = directory.tensors().map(|(_, t)| t.range.start).min().expect("tensors");
    for end in (0..data).step_by(7).chain((data..LLAMA.len()).step_by(501)) {
        assert!(GgufFile::parse(&LLAMA[..end]).is_err(), "{end} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_read_or_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        tensors in 0..4_u64,
        entries in 0..4_u64,
    ) {
        let whole = gguf_from_bytes(&bytes);
        prop_assert!(whole.is_err());
        let head = header(3, tensors, entries);
        bytes.splice(0..bytes.len().min(head.len()), head);
        prop_assert!(gguf_from_bytes(&bytes).is_err());
    }

    // All of the directory, which is the first 5,888 bytes.
    #[test]
    fn any_damage_is_read_or_refused(
        places in proptest::collection::vec((0..5888_usize, any::<u8>()), 1..6),
        end in 0..LLAMA.len(),
        cut in any::<bool>(),
    ) {
        let mut bytes = LLAMA.to_vec();
        for (place, value) in places {
            bytes[place] = value;
        }
        if cut {
            bytes.truncate(end);
        }
        if let Ok(read) = gguf_from_bytes(&bytes) {
            prop_assert!(read.model.params.iter().all(|v| v.is_finite()));
        }
    }
}
