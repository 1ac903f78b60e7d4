//! LoRA (Hu et al., 2021): low-rank adapters y += s·B·A·x, s = α/r, beside frozen weights.
//!
//! Every adapted projection has its own A and B under PEFT's names; where the engine multiplies with a
//! fused matrix, an adapter writes the columns of its slice. The model without them is the
//! frozen one, so a reference needs no second copy.

mod adapters;
mod config;
mod dropout;
mod hooks;
mod model;
mod pass;
mod peft;

pub use adapters::Adapters;
pub(crate) use adapters::Fused;
pub use config::{LoraConfig, LoraError, Module};
pub(crate) use hooks::Grads;
pub(crate) use pass::LoraPass;
pub use peft::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterBase, adapter_base, adapter_files,
    adapters_from_bytes, load_adapters,
};
