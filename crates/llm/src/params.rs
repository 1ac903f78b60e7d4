//! Parameters: one flat buffer, and the names and shapes of its parts.

use std::{f64::consts::TAU, ops::Range, sync::Arc};

use crate::{config::ModelConfig, error::EngineError, large_pages::zeros, lora::Adapters};

/// A named tensor inside the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in a Hugging Face checkpoint.
    pub name: String,
    /// Row-major shape; projections are `[out, in]`.
    pub shape: Vec<usize>,
    /// Where it lies in the flat buffer.
    pub range: Range<usize>,
}

/// Where the parts of one transformer block lie in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRanges {
    /// Which block it is, from 0.
    pub index: usize,
    /// `[hidden]`
    pub input_norm: Range<usize>,
    /// Query, key and value projections, one matrix `[qkv, hidden]`.
    pub qkv: Range<usize>,
    /// `[qkv]`, where the configuration has one.
    pub qkv_bias: Option<Range<usize>>,
    /// Norm weights of query heads and of key heads, `[2, head_dim]`, where the configuration has
    /// them.
    pub qk_norm: Option<Range<usize>>,
    /// `[hidden, heads · head_dim]`
    pub o_proj: Range<usize>,
    /// `[hidden]`
    pub post_norm: Range<usize>,
    /// Gate and up projections, one matrix `[2 · intermediate, hidden]`.
    pub gate_up: Range<usize>,
    /// `[hidden, intermediate]`
    pub down: Range<usize>,
}

/// Names, shapes and places of all tensors of a model.
///
/// Order: embedding; per block the input norm, q, k, v weights, their biases, the norms of
/// query and key heads, output projection, post-attention norm, gate, up, down; final norm; output head unless tied. Tensors that are
/// multiplied together lie side by side, so that a fused matrix is a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<TensorSpec>,
    embed: Range<usize>,
    layers: Vec<LayerRanges>,
    final_norm: Range<usize>,
    head: Range<usize>,
    len: usize,
}

struct Builder {
    entries: Vec<TensorSpec>,
    end: usize,
}

impl Builder {
    fn push(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let start = self.end;
        self.end += shape.iter().product::<usize>();
        self.entries.push(TensorSpec { name, shape: shape.to_vec(), range: start..self.end });
        start..self.end
    }

    fn span(&mut self, parts: &[(String, &[usize])]) -> Range<usize> {
        let start = self.end;
        for (name, shape) in parts {
            self.push(name.clone(), shape);
        }
        start..self.end
    }
}

impl Layout {
    /// The layout of a model of this shape.
    pub fn new(config: &ModelConfig) -> Self {
        let hidden = config.hidden_size;
        let (q, kv) = (config.attention_size(), config.num_kv_heads * config.head_dim);
        let inter = config.intermediate_size;
        let mut b = Builder { entries: Vec::new(), end: 0 };
        let embed = b.push("model.embed_tokens.weight".into(), &[config.vocab_size, hidden]);
        let layers = (0..config.num_layers)
            .map(|i| {
                let name = |part: &str| format!("model.layers.{i}.{part}");
                let input_norm = b.push(name("input_layernorm.weight"), &[hidden]);
                let qkv = b.span(&[
                    (name("self_attn.q_proj.weight"), &[q, hidden]),
                    (name("self_attn.k_proj.weight"), &[kv, hidden]),
                    (name("self_attn.v_proj.weight"), &[kv, hidden]),
                ]);
                let qkv_bias = config.qkv_bias.then(|| {
                    b.span(&[
                        (name("self_attn.q_proj.bias"), &[q]),
                        (name("self_attn.k_proj.bias"), &[kv]),
                        (name("self_attn.v_proj.bias"), &[kv]),
                    ])
                });
                let qk_norm = config.qk_norm.then(|| {
                    b.span(&[
                        (name("self_attn.q_norm.weight"), &[config.head_dim]),
                        (name("self_attn.k_norm.weight"), &[config.head_dim]),
                    ])
                });
                LayerRanges {
                    index: i,
                    input_norm,
                    qkv,
                    qkv_bias,
                    qk_norm,
                    o_proj: b.push(name("self_attn.o_proj.weight"), &[hidden, q]),
                    post_norm: b.push(name("post_attention_layernorm.weight"), &[hidden]),
                    gate_up: b.span(&[
                        (name("mlp.gate_proj.weight"), &[inter, hidden]),
                        (name("mlp.up_proj.weight"), &[inter, hidden]),
                    ]),
                    down: b.push(name("mlp.down_proj.weight"), &[hidden, inter]),
                }
            })
            .collect();
        let final_norm = b.push("model.norm.weight".into(), &[hidden]);
        let head = if config.tie_word_embeddings {
            embed.clone()
        } else {
            b.push("lm_head.weight".into(), &[config.vocab_size, hidden])
        };
        Self { entries: b.entries, embed, layers, final_norm, head, len: b.end }
    }

    /// A layout of tensors that are no model by themselves, in the order of their places.
    pub(crate) fn of_tensors(entries: Vec<TensorSpec>) -> Self {
        let len = entries.last().map_or(0, |spec| spec.range.end);
        let none = 0..0;
        let (embed, final_norm, head) = (none.clone(), none.clone(), none);
        Self { entries, embed, layers: Vec::new(), final_norm, head, len }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A model has parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All tensors, in buffer order.
    pub fn entries(&self) -> &[TensorSpec] {
        &self.entries
    }

    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<&TensorSpec> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// Name of the tensor that holds this element of the flat buffer, and the index within it.
    pub fn locate(&self, element: usize) -> Option<(&TensorSpec, usize)> {
        let spec = self.entries.iter().find(|e| e.range.contains(&element))?;
        Some((spec, element - spec.range.start))
    }

    /// Embedding table `[vocab, hidden]`.
    pub fn embed(&self) -> Range<usize> {
        self.embed.clone()
    }

    /// Blocks, first to last.
    pub fn layers(&self) -> &[LayerRanges] {
        &self.layers
    }

    /// `[hidden]`
    pub fn final_norm(&self) -> Range<usize> {
        self.final_norm.clone()
    }

    /// Output head `[vocab, hidden]`; the embedding table when tied.
    pub fn head(&self) -> Range<usize> {
        self.head.clone()
    }
}

/// A transformer: its shape and its weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// Shape.
    pub config: ModelConfig,
    /// Names and places of the tensors in `params`.
    pub layout: Arc<Layout>,
    /// All weights.
    pub params: Vec<f32>,
    /// Adapters beside frozen weights.
    pub adapters: Option<Adapters>,
}

impl Model {
    /// A model with random weights; the same seed gives the same bits.
    ///
    /// Embeddings are normal with standard deviation 0.02; projections 1/√in, those that write
    /// into the residual stream divided by √(2 · layers); norms 1; biases 0.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn init(config: ModelConfig, seed: u64) -> Result<Self, EngineError> {
        config.validate()?;
        let layout = Layout::new(&config);
        let mut params = zeros(layout.len());
        let residual = 1.0 / (2.0 * config.num_layers as f64).sqrt();
        for (index, spec) in layout.entries().iter().enumerate() {
            let out = &mut params[spec.range.clone()];
            if spec.name.ends_with("norm.weight") {
                out.fill(1.0);
            } else if spec.shape.len() == 2 {
                let fan_in = spec.shape[1] as f64;
                let std = if spec.name.ends_with("embed_tokens.weight") {
                    0.02
                } else if spec.name.ends_with("o_proj.weight")
                    || spec.name.ends_with("down_proj.weight")
                {
                    residual / fan_in.sqrt()
                } else {
                    1.0 / fan_in.sqrt()
                };
                fill_normal(out, std, splitmix(seed ^ splitmix(index as u64)));
            }
        }
        Ok(Self { config, layout: Arc::new(layout), params, adapters: None })
    }

    /// A model with given weights, in the order of [`Layout`].
    ///
    /// # Errors
    /// The configuration is refused, the buffer has another length, or a weight is not finite.
    pub fn from_params(config: ModelConfig, params: Vec<f32>) -> Result<Self, EngineError> {
        config.validate()?;
        let layout = Layout::new(&config);
        if params.len() != layout.len() {
            return Err(EngineError::BufferLength {
                what: "the parameter buffer",
                got: params.len(),
                expected: layout.len(),
            });
        }
        if let Some((spec, element)) =
            params.iter().position(|p| !p.is_finite()).and_then(|i| layout.locate(i))
        {
            return Err(EngineError::NonFiniteParameter { tensor: spec.name.clone(), element });
        }
        Ok(Self { config, layout: Arc::new(layout), params, adapters: None })
    }

    /// The weights of a range of the layout.
    pub(crate) fn part(&self, range: &Range<usize>) -> &[f32] {
        &self.params[range.clone()]
    }
}

/// One step of the splitmix64 generator: a bijection that scatters its input.
fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Normal numbers by the Box–Muller transform over a splitmix64 stream.
fn fill_normal(out: &mut [f32], std: f64, seed: u64) {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        // (0, 1]: the logarithm stays finite.
        ((splitmix(state) >> 11) + 1) as f64 / (1u64 << 53) as f64
    };
    for pair in out.chunks_mut(2) {
        let radius = (-2.0 * uniform().ln()).sqrt() * std;
        let (sin, cos) = (uniform() * TAU).sin_cos();
        pair[0] = (radius * cos) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * sin) as f32;
        }
    }
}
