//! A model from a GGUF file: every tensor goes from the file straight to its place among the
//! parameters.

use std::path::Path;

use rayon::prelude::*;

use super::error::GgufError;
use super::file::{GgufFile, TensorInfo};

use super::names::{RowOrder, gguf_name};
use super::shape::read_shape;
use super::vocabulary::{GgufVocabulary, read_vocabulary};
use crate::config::ModelConfig;
use crate::large_pages::zeros;
use crate::mapped::MappedFile;
use crate::params::{Layout, Model};
use crate::rope_scaling::{RopeScaling, divisors};

/// Values that one worker turns into f32 before it lets go of their bytes.
const PIECE: usize = 1 << 20;
/// What each frequency of the rotary embedding is divided by.
pub(super) const FACTORS: &str = "rope_freqs.weight";

/// What a GGUF file holds.
#[derive(Debug)]
pub struct GgufModel {
    /// Weights, as f32.
    pub model: Model,
    /// Tokenizer, chat template and special tokens.
    pub vocabulary: GgufVocabulary,
}

/// Whether a path names a GGUF file rather than a directory.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// Reads a model and its tokenizer from a file, which is mapped into memory; beside the weights
/// only little of it is in memory at any time.
///
/// # Errors
/// The system's, and those of [`gguf_from_bytes`].
pub fn load_gguf(path: &Path) -> Result<GgufModel, GgufError> {
    let io = |source| GgufError::Io { path: path.to_owned(), source };
    let mapping = MappedFile::open(path).map_err(io)?;
    let file = GgufFile::parse(mapping.bytes())?;
    read(&file, &|part| mapping.release(part))
}

/// The same from the bytes of a file.
///
/// # Errors
/// A file that is damaged, or describes a model that this engine does not compute; each error names
/// the key or tensor, and the offset where there is one.
pub fn gguf_from_bytes(bytes: &[u8]) -> Result<GgufModel, GgufError> {
    read(&GgufFile::parse(bytes)?, &|_| ())
}

fn read(file: &GgufFile<'_>, release: &(dyn Fn(&[u8]) + Sync)) -> Result<GgufModel, GgufError> {
    let (architecture, mut config) = read_shape(file)?;
    if let Some(info) = file.tensor(FACTORS) {
        config.rope_scaling = read_factors(file, info, &config)?;
    }
    let layout = check_tensors(file, &config)?;
    let vocabulary = read_vocabulary(file)?;
    let (tokens, size) = (vocabulary.tokenizer.vocab_size(), config.vocab_size);
    if tokens > size {
        let reason = format!("{tokens} tokens, the embedding has only {size}");
        return Err(GgufError::Vocabulary { reason });
    }
    let params = read_params(file, &layout, architecture, config.head_dim, release)?;
    Ok(GgufModel { model: Model::from_params(config, params)?, vocabulary })
}

/// Compares names and shapes, so that whatever is allocated afterwards is justified by the file.
fn check_tensors(file: &GgufFile<'_>, config: &ModelConfig) -> Result<Layout, GgufError> {
    for layer in 0..config.num_layers {
        let first = format!("blk.{layer}.attn_norm.weight");
        if file.tensor(&first).is_none() {
            return Err(GgufError::Missing { tensor: first });
        }
    }
    let layout = Layout::new(config);
    let mut names = std::collections::BTreeSet::new();
    for spec in layout.entries() {
        let name = gguf_name(&spec.name);
        let Some(info) = file.tensor(&name) else {
            return Err(GgufError::Missing { tensor: name.into_owned() });
        };
        if info.shape != spec.shape {
            return Err(GgufError::Shape {
                tensor: name.into_owned(),
                offset: info.range.start,
                found: info.shape.clone(),
                expected: spec.shape.clone(),
            });
        }
        names.insert(name);
    }
    for (name, info) in file.tensors() {
        if name != FACTORS && !names.contains(name) {
            let (tensor, offset) = (name.to_owned(), info.range.start);
            return Err(GgufError::UnknownTensor { tensor, offset });
        }
    }
    Ok(layout)
}

/// The scaling that gives these divisors: none, or that of Llama 3.1 and 3.2.
fn read_factors(
    file: &GgufFile<'_>,
    info: &TensorInfo,
    config: &ModelConfig,
) -> Result<Option<RopeScaling>, GgufError> {
    let expected = vec![config.head_dim / 2];
    if info.shape != expected {
        return Err(GgufError::Shape {
            tensor: FACTORS.to_owned(),
            offset: info.range.start,
            found: info.shape.clone(),
            expected,
        });
    }
    let mut factors = vec![0.0; config.head_dim / 2];
    info.kind.dequantize(file.data(info), &mut factors);
    let Some(index) = factors.iter().position(|&f| f != 1.0) else {
        return Ok(config.rope_scaling);
    };
    let most = factors.iter().fold(1.0, |most: f32, f| most.max(*f));
    let published = RopeScaling::published(most);
    let computed = divisors(config.rope_theta, config.head_dim, published);
    let equal = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs();
    if config.rope_scaling.is_none() && factors.iter().zip(&computed).all(equal) {
        return Ok(Some(published));
    }
    Err(GgufError::Unsupported {
        what: format!("rotary scaling ({FACTORS}, element {index} is {})", factors[index]),
    })
}

/// Some rows of a tensor and where they go.
struct Piece<'a, 'p> {
    name: String,
    info: &'a TensorInfo,
    order: RowOrder,
    /// First row, in the checkpoint's order.
    first: usize,
    width: usize,
    out: &'p mut [f32],
}

fn read_params(
    file: &GgufFile<'_>,
    layout: &Layout,
    architecture: &str,
    head_dim: usize,
    release: &(dyn Fn(&[u8]) + Sync),
) -> Result<Vec<f32>, GgufError> {
    let mut params = zeros(layout.len());
    let mut rest = params.as_mut_slice();
    let mut pieces = Vec::new();
    for spec in layout.entries() {
        let (out, after) = std::mem::take(&mut rest).split_at_mut(spec.range.len());
        rest = after;
        let name = gguf_name(&spec.name).into_owned();
        let Some(info) = file.tensor(&name) else {
            return Err(GgufError::Missing { tensor: name });
        };
        // The file's own width: a vector is one row of blocks, a bias whose rows are reordered has
        // one value a row.
        let order = RowOrder::of(&spec.name, architecture, head_dim);
        let width = match spec.shape.as_slice() {
            [_, width] => *width,
            _ if order == RowOrder::Same => out.len(),
            _ => 1,
        };
        let granule = match order {
            RowOrder::Same => 1,
            RowOrder::Interleaved { head_dim } => head_dim,
        };
        let rows = (PIECE / width.max(1)).next_multiple_of(granule).max(granule);
        for (index, out) in out.chunks_mut(rows * width.max(1)).enumerate() {
            pieces.push(Piece { name: name.clone(), info, order, first: index * rows, width, out });
        }
    }
    pieces.into_par_iter().try_for_each(|piece| read_piece(file, piece, release))?;
    Ok(params)
}

fn read_piece(
    file: &GgufFile<'_>,
    piece: Piece<'_, '_>,
    release: &(dyn Fn(&[u8]) + Sync),
) -> Result<(), GgufError> {
    let Piece { name, info, order, first, width, out } = piece;
    let kind = info.kind;
    if !width.is_multiple_of(kind.block_values()) {
        return Err(GgufError::Unsupported {
            what: format!("tensor {name:?} in {kind:?} blocks across rows"),
        });
    }
    let row_bytes = width / kind.block_values() * kind.block_bytes();
    let data = file.data(info);
    let rows = out.len() / width;
    let (start, end) = (first * row_bytes, (first + rows) * row_bytes);
    let bytes = data.get(start..end).unwrap_or_default();
    match order {
        RowOrder::Same => kind.dequantize(bytes, out),
        // A piece is whole heads, and rows move only within their head.
        RowOrder::Interleaved { .. } => {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let stored = order.stored(row) * row_bytes;
                kind.dequantize(bytes.get(stored..stored + row_bytes).unwrap_or_default(), out);
            }
        }
    }
    if let Some(element) = out.iter().position(|v| !v.is_finite()) {
        let stored = order.stored(element / width) * width + element % width;
        let block = (start + stored / kind.block_values() * kind.block_bytes()) as u64;
        return Err(GgufError::NotFinite {
            tensor: name,
            element: first * width + stored,
            offset: info.range.start + block as usize,
        });
    }
    release(bytes);
    Ok(())
}
