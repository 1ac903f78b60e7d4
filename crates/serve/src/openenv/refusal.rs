//! Why a session cannot do what it is asked.

use empg_env::EnvError;

/// A refusal in OpenEnv's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A field that is missing, too much, or of the wrong type.
    Invalid(Detail),
    /// The environment says no.
    Failed(String),
}

/// What is wrong with a field, as FastAPI's users know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Detail {
    /// `missing`, `extra_forbidden`, `string_type`, …
    pub(crate) kind: &'static str,
    /// The way to the field.
    pub(crate) place: Vec<&'static str>,
    /// The field, where the client named it.
    pub(crate) field: Option<String>,
    /// In words.
    pub(crate) message: String,
}

impl Detail {
    pub(crate) fn new(
        kind: &'static str,
        place: &[&'static str],
        message: impl Into<String>,
    ) -> Self {
        Self { kind, place: place.to_vec(), field: None, message: message.into() }
    }

    pub(crate) fn of(mut self, field: &str) -> Self {
        self.field = Some(field.chars().take(100).collect());
        self
    }
}

impl From<EnvError> for Refusal {
    fn from(error: EnvError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Detail> for Refusal {
    fn from(detail: Detail) -> Self {
        Self::Invalid(detail)
    }
}
