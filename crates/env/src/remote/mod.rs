//! Environments that live elsewhere: behind an [OpenEnv](https://github.com/meta-pytorch/OpenEnv)
//! server, or in a child process that speaks one JSON object a line.
//!
//! Both pick the task at reset, from a seed that equal tasks share. Whatever goes wrong on the other
//! side ends the episode as failed, with a sentence that says what.

mod agreement;
mod openenv;
mod outcome;
mod place;
mod stdio;

use std::fmt;
use std::sync::Arc;

pub use openenv::{OpenEnvOptions, OpenEnvSet};
pub use stdio::{StdioOptions, StdioSet};

/// The remote environments by name.
pub const REMOTE: [&str; 2] = ["openenv", "stdio"];

/// Longest answer that is read, in bytes.
pub const LONGEST_ANSWER: usize = 16 << 20;

/// Who is told what is worth knowing and no error. Nobody by default.
#[derive(Clone, Default)]
pub struct Notice(Option<Arc<Listener>>);

type Listener = dyn Fn(&str) + Send + Sync;

impl Notice {
    /// Told by this function.
    pub fn to(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    fn tell(&self, what: &str) {
        if let Some(tell) = &self.0 {
            tell(what);
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Notice(…)" } else { "Notice" })
    }
}

/// The beginning of a text from elsewhere, for an error's sentence.
fn start_of(text: &str) -> String {
    let start: String = text.chars().take(200).collect();
    if start.len() < text.len() { start + "…" } else { start }
}
