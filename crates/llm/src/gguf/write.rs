//! Writing a model as GGUF version 3, for llama.cpp and what is built on it.

use std::io::Write;
use std::path::Path;

use half::{bf16, f16};

use super::block::GgmlType;
use super::error::GgufError;
use super::file::ALIGNMENT;
use super::load::FACTORS;
use super::names::{RowOrder, gguf_name};
use super::options::GgufOptions;
use super::written_vocabulary::WrittenVocabulary;
use crate::config::ModelConfig;
use crate::params::{Model, TensorSpec};
use crate::rope_scaling::{RopeScaling, divisors};
use crate::tokenizer::Tokenizer;

/// How matrices are stored; vectors are always f32, as llama.cpp wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GgufExport {
    /// As they are.
    F32,
    /// IEEE half.
    #[default]
    F16,
    /// The upper half of an f32.
    BF16,
    /// Blocks of 32 with 8 bits a value; matrices whose rows do not divide are f16.
    Q8_0,
}

impl GgufExport {
    fn of(self, spec: &TensorSpec) -> GgmlType {
        match (self, spec.shape.as_slice()) {
            (Self::F32, _) | (_, [_]) => GgmlType::F32,
            (Self::BF16, _) => GgmlType::BF16,
            (Self::Q8_0, [_, width]) if width.is_multiple_of(32) => GgmlType::Q8_0,
            (Self::F16 | Self::Q8_0, _) => GgmlType::F16,
        }
    }

    /// The number of `general.file_type`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::BF16 => 32,
        }
    }
}

impl std::str::FromStr for GgufExport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            "q8_0" => Ok(Self::Q8_0),
            _ => Err("write f32, f16, bf16 or q8_0".into()),
        }
    }
}

/// Writes a model to a file: under another name first, synchronised, then renamed.
///
/// # Errors
/// The system's, and those of [`write_gguf`].
pub fn export_gguf(
    path: &Path,
    model: &Model,
    tokenizer: &Tokenizer,
    export: GgufExport,
    options: &GgufOptions,
) -> Result<(), GgufError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let io = |source| GgufError::Io { path: part.to_owned(), source };
    let file = std::fs::File::create(part).map_err(io)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let written = write_gguf(&mut out, model, tokenizer, export, options).and_then(|()| {
        out.flush().map_err(io)?;
        out.get_ref().sync_all().map_err(io)?;
        std::fs::rename(part, path)
            .map_err(|source| GgufError::Io { path: path.to_owned(), source })
    });
    if written.is_err() {
        // The error above is the one to report.
        let _ = std::fs::remove_file(part);
    }
    written
}

/// Writes a model as GGUF; the same model gives the same bytes.
///
/// # Errors
/// The writer's; a tokenizer that is not byte-level BPE of a kind that has a name in GGUF; a weight
/// that the element type cannot hold.
pub fn write_gguf(
    out: &mut dyn Write,
    model: &Model,
    tokenizer: &Tokenizer,
    export: GgufExport,
    options: &GgufOptions,
) -> Result<(), GgufError> {
    if model.adapters.is_some() {
        let what = "adapters that are not merged into the weights (for export as GGUF)".to_owned();
        return Err(GgufError::Unsupported { what });
    }
    let config = serde_json::to_value(&model.config)
        .map_err(|e| GgufError::Unsupported { what: e.to_string() })?;
    let arch = config["model_type"].as_str().unwrap_or_default();
    let metadata = metadata(arch, model, tokenizer, export, options)?;
    let specs = model.layout.entries();
    let factors = rope_factors(&model.config);
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(3_u32.to_le_bytes());
    head.extend((specs.len() as u64 + u64::from(factors.is_some())).to_le_bytes());
    head.extend(metadata.count.to_le_bytes());
    head.extend(&metadata.bytes);
    let mut offset = 0_usize;
    for spec in specs {
        let kind = export.of(spec);
        push_tensor(&mut head, &gguf_name(&spec.name), &spec.shape, kind, offset);
        offset += stored_bytes(kind, spec).next_multiple_of(ALIGNMENT);
    }
    if let Some(factors) = &factors {
        push_tensor(&mut head, FACTORS, &[factors.len()], GgmlType::F32, offset);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    let io = |source| GgufError::Io { path: "the output".into(), source };
    out.write_all(&head).map_err(io)?;
    for spec in specs {
        let mut bytes =
            stored(spec, &model.params[spec.range.clone()], export, arch, &model.config)?;
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&bytes).map_err(io)?;
    }
    if let Some(factors) = factors {
        let mut bytes: Vec<u8> = factors.iter().flat_map(|f| f.to_le_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&bytes).map_err(io)?;
    }
    Ok(())
}

/// What llama.cpp divides the frequencies by, where it has no name for the scaling.
fn rope_factors(config: &ModelConfig) -> Option<Vec<f32>> {
    let scaling = config.rope_scaling.filter(|s| matches!(s, RopeScaling::Llama3 { .. }))?;
    Some(divisors(config.rope_theta, config.head_dim, scaling))
}

fn push_tensor(head: &mut Vec<u8>, name: &str, shape: &[usize], kind: GgmlType, offset: usize) {
    push_text(head, name);
    head.extend((shape.len() as u32).to_le_bytes());
    for &size in shape.iter().rev() {
        head.extend((size as u64).to_le_bytes());
    }
    head.extend(kind.number().to_le_bytes());
    head.extend((offset as u64).to_le_bytes());
}

fn stored_bytes(kind: GgmlType, spec: &TensorSpec) -> usize {
    spec.range.len() / kind.block_values() * kind.block_bytes()
}

/// The bytes of one tensor in the file's order of rows.
fn stored(
    spec: &TensorSpec,
    values: &[f32],
    export: GgufExport,
    arch: &str,
    config: &ModelConfig,
) -> Result<Vec<u8>, GgufError> {
    let kind = export.of(spec);
    let order = RowOrder::of(&spec.name, arch, config.head_dim);
    let width = match spec.shape.as_slice() {
        [_, width] => *width,
        _ => 1,
    };
    let rows = values.len() / width.max(1);
    let mut bytes = Vec::with_capacity(stored_bytes(kind, spec).next_multiple_of(ALIGNMENT));
    for row in 0..rows {
        let source = order.loaded(row);
        quantize(kind, &values[source * width..(source + 1) * width], &mut bytes).map_err(
            |element| GgufError::Unsupported {
                what: format!(
                    "{kind:?} for tensor {:?}, element {}, {}",
                    spec.name,
                    source * width + element,
                    values[source * width + element]
                ),
            },
        )?;
    }
    Ok(bytes)
}

/// Appends values in a type; an index is that of a value which the type cannot hold.
fn quantize(kind: GgmlType, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), usize> {
    match kind {
        GgmlType::BF16 => {
            for (index, &value) in values.iter().enumerate() {
                let rounded = bf16::from_f32(value);
                if !rounded.is_finite() {
                    return Err(index);
                }
                bytes.extend(rounded.to_le_bytes());
            }
        }
        GgmlType::F16 => {
            for (index, &value) in values.iter().enumerate() {
                let rounded = f16::from_f32(value);
                if !rounded.is_finite() {
                    return Err(index);
                }
                bytes.extend(rounded.to_le_bytes());
            }
        }
        GgmlType::Q8_0 => {
            for (index, block) in values.as_chunks::<32>().0.iter().enumerate() {
                let largest = block.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
                let scale = largest / 127.0;
                let stored = f16::from_f32(scale);
                if !stored.is_finite() || block.iter().any(|v| !v.is_finite()) {
                    return Err(index * 32);
                }
                bytes.extend(stored.to_le_bytes());
                let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                bytes.extend(block.iter().map(|v| ((v * inverse).round() as i8).cast_unsigned()));
            }
        }
        _ => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
    }
    Ok(())
}

fn metadata(
    arch: &str,
    model: &Model,
    tokenizer: &Tokenizer,
    export: GgufExport,
    options: &GgufOptions,
) -> Result<Entries, GgufError> {
    let vocabulary = WrittenVocabulary::new(tokenizer, model.config.vocab_size)?;
    let config = &model.config;
    let mut m = Entries::default();
    m.text("general.architecture", arch);
    m.text("general.type", "model");
    if let Some(name) = &options.name {
        m.text("general.name", name);
    }
    m.u32("general.file_type", export.file_type());
    m.u32("general.quantization_version", 2);
    let of = |name: &str| format!("{arch}.{name}");
    for (name, size) in [
        ("vocab_size", config.vocab_size),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_heads),
        ("attention.head_count_kv", config.num_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ] {
        // Sizes of a valid configuration are far below 2³².
        m.u32(&of(name), u32::try_from(size).unwrap_or(u32::MAX));
    }
    m.f32(&of("rope.freq_base"), config.rope_theta);
    if let Some(RopeScaling::Linear { factor }) = config.rope_scaling {
        m.text(&of("rope.scaling.type"), "linear");
        m.f32(&of("rope.scaling.factor"), factor);
    }
    m.f32(&of("attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    m.text("tokenizer.ggml.model", "gpt2");
    m.text("tokenizer.ggml.pre", vocabulary.pre);
    m.texts("tokenizer.ggml.tokens", &vocabulary.tokens);
    m.integers("tokenizer.ggml.token_type", &vocabulary.types);
    m.texts("tokenizer.ggml.merges", &vocabulary.merges);
    for (key, id) in [
        ("tokenizer.ggml.bos_token_id", options.bos),
        ("tokenizer.ggml.eos_token_id", options.eos),
        ("tokenizer.ggml.padding_token_id", options.padding),
    ] {
        if let Some(id) = id {
            if id as usize >= config.vocab_size {
                let reason = format!("{key} is {id}, of {} tokens", config.vocab_size);
                return Err(GgufError::Vocabulary { reason });
            }
            m.u32(key, id);
        }
    }
    m.flag("tokenizer.ggml.add_bos_token", options.add_bos && options.bos.is_some());
    m.flag("tokenizer.ggml.add_space_prefix", false);
    if let Some(template) = &options.chat_template {
        m.text("tokenizer.chat_template", template);
    }
    Ok(m)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Metadata in the making.
#[derive(Debug, Default)]
struct Entries {
    bytes: Vec<u8>,
    count: u64,
}

impl Entries {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        push_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(u8::from(value));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        push_text(&mut self.bytes, value);
    }

    fn list(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.list(key, 8, values.len());
        for value in values {
            push_text(&mut self.bytes, value);
        }
    }

    fn integers(&mut self, key: &str, values: &[i32]) {
        self.list(key, 5, values.len());
        for value in values {
            self.bytes.extend(value.to_le_bytes());
        }
    }
}
