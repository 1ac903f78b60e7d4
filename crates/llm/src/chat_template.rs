//! Chat templates that come with models: Jinja2 as `transformers` runs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, syntax::SyntaxConfig};
use regex::Regex;
use serde::Serialize;

use crate::python_text::{self, JsonStyle};

/// What one conversation may take, in instructions and 64 bytes of text each: a template from elsewhere
/// can neither run forever nor fill the memory.
const FUEL: u64 = 5_000_000;
/// The name under which the environment keeps the template.
const NAME: &str = "chat_template";

/// Why a template cannot be read or refuses a conversation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatTemplateError {
    /// Not a template.
    #[error("the chat template cannot be read: {reason}")]
    Syntax {
        /// What the parser says, with the line.
        reason: String,
    },
    /// The template itself refuses the conversation, or cannot be run on it.
    #[error("the chat template refuses the conversation: {reason}")]
    Render {
        /// What it says.
        reason: String,
    },
    /// Variables that are not a JSON object.
    #[error("the conversation is not a JSON object: {reason}")]
    Conversation {
        /// What the parser says.
        reason: String,
    },
    /// A tokenizer_config.json that cannot be read.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A chat template with the special tokens that it may name.
#[derive(Clone)]
pub struct ChatTemplate {
    source: String,
    specials: BTreeMap<String, String>,
    /// What is wrong with the template is told where it is run.
    environment: Result<Environment<'static>, ChatTemplateError>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .field("specials", &self.specials)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads a template; `specials` are its variables `bos_token`, `eos_token` and the like.
    ///
    /// # Errors
    /// [`ChatTemplateError::Syntax`].
    pub fn new(
        source: &str,
        specials: BTreeMap<String, String>,
    ) -> Result<Self, ChatTemplateError> {
        let environment =
            read(source).map_err(|e| ChatTemplateError::Syntax { reason: describe(&e) }).map(Ok)?;
        Ok(Self { source: source.to_owned(), specials, environment })
    }

    /// The same for a template that nobody may ask for: what is wrong with it is an error of
    /// [`Self::render`], with the file that it came from.
    pub(crate) fn from_file(
        source: String,
        specials: BTreeMap<String, String>,
        file: &Path,
    ) -> Self {
        let environment = read(&source).map_err(|e| ChatTemplateError::Syntax {
            reason: format!("{}: {}", file.display(), describe(&e)),
        });
        Self { source, specials, environment }
    }

    /// Whether every conversation begins with a text; nothing where none can be rendered.
    pub(crate) fn begins_with(&self, text: &str) -> Option<bool> {
        if !(self.source.contains("bos_token") || self.source.contains(text)) {
            return Some(false);
        }
        let one = [Message::new("user", "a")];
        let two = [Message::new("system", "a"), Message::new("user", "a")];
        let rendered = self.render(&one, true).or_else(|_| self.render(&two, true));
        Some(rendered.ok()?.starts_with(text))
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special tokens by their variables' names.
    pub fn specials(&self) -> &BTreeMap<String, String> {
        &self.specials
    }

    /// The text of a conversation; with `add_generation_prompt` up to where the assistant
    /// continues.
    ///
    /// # Errors
    /// [`ChatTemplateError::Render`].
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatTemplateError> {
        self.run(BTreeMap::from([
            ("messages".to_owned(), Value::from(Serde(messages))),
            ("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)),
        ]))
    }

    /// The same for a JSON object that holds the template's variables: `messages` with any keys,
    /// `tools`, `add_generation_prompt`, and what the template knows besides. Keys keep their
    /// order.
    ///
    /// # Errors
    /// Text that is no JSON object, or what [`Self::render`] refuses.
    pub fn render_json(&self, variables: &str) -> Result<String, ChatTemplateError> {
        let variables: BTreeMap<String, Value> = serde_json::from_str(variables)
            .map_err(|e| ChatTemplateError::Conversation { reason: e.to_string() })?;
        self.run(variables)
    }

    fn run(&self, given: BTreeMap<String, Value>) -> Result<String, ChatTemplateError> {
        let refuse = |e: Error| ChatTemplateError::Render { reason: describe(&e) };
        let mut variables = BTreeMap::from([
            ("tools".to_owned(), Value::from(())),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), Value::from(false)),
        ]);
        variables.extend(self.specials.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))));
        variables.extend(given);
        let environment = self.environment.as_ref().map_err(Clone::clone)?;
        let template = environment.get_template(NAME).map_err(refuse)?;
        template.render(Value::from(variables)).map_err(refuse)
    }
}

fn read(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = environment()?;
    environment.add_template_owned(NAME, without_generation_tags(source))?;
    Ok(environment)
}

/// An environment with the settings, filters and functions that templates are written for.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(|state, value, method, args| {
        string_method(value, method, args).unwrap_or_else(|| {
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
        })
    });
    environment.set_formatter(|out, _, value| out.write_str(&printed(value)?).map_err(Error::from));
    environment.add_filter("string", printed);
    environment.add_filter("tojson", to_json);
    // Python cannot iterate over None.
    environment.add_test("iterable", |value: &Value| {
        use minijinja::value::ValueKind as Kind;
        let kinds = [Kind::Seq, Kind::Map, Kind::Iterable, Kind::String, Kind::Undefined];
        kinds.contains(&value.kind())
    });
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, printed(message)?))
    });
    environment.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        use std::fmt::Write as _;
        let mut text = String::new();
        write!(text, "{}", chrono::Local::now().format(format)).map_err(|_| {
            Error::new(ErrorKind::InvalidOperation, format!("{format:?} is no format of a time"))
        })?;
        Ok(text)
    });
    Ok(environment)
}

fn printed(value: &Value) -> Result<String, Error> {
    python_text::text(value).map_err(|e| Error::new(ErrorKind::InvalidOperation, e))
}

/// Python's methods of strings that the compatibility crate lacks.
fn string_method(value: &Value, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let text = value.as_str()?;
    let affix = || args.first().and_then(Value::as_str);
    let rest = match method {
        "removeprefix" => text.strip_prefix(affix()?),
        "removesuffix" => text.strip_suffix(affix()?),
        _ => return None,
    };
    Some(Ok(Value::from(rest.unwrap_or(text))))
}

#[expect(clippy::needless_pass_by_value, reason = "filters are given their options whole")]
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let separators: Option<Vec<String>> = options.get("separators")?;
    let style = JsonStyle {
        indent: options.get("indent")?,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        separators: match separators.as_deref() {
            None => None,
            Some([item, key]) => Some((item.clone(), key.clone())),
            Some(_) => {
                let what = "separators must be two strings";
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        },
    };
    options.assert_all_used()?;
    python_text::json(value, &style).map_err(|e| Error::new(ErrorKind::InvalidOperation, e))
}

/// `{% generation %}` marks what the assistant wrote and prints nothing itself; a condition that
/// holds does the same to the lines around it.
fn without_generation_tags(source: &str) -> String {
    static TAGS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").ok());
    let Some(tags) = TAGS.as_ref() else { return source.to_owned() };
    let replace = |found: &regex::Captures<'_>| {
        let tag = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {tag} {}%}}", &found[1], &found[3])
    };
    tags.replace_all(source, replace).into_owned()
}

fn describe(error: &Error) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
    match error.line() {
        Some(line) => format!("{text} (line {line})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CHAT_TEMPLATE;

    fn template(source: &str) -> ChatTemplate {
        let specials = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        ChatTemplate::new(source, specials).expect("a template")
    }

    #[test]
    fn the_projects_own_template() {
        let messages = [Message::new("user", "Hi <b>"), Message::new("assistant", "Yes?")];
        assert_eq!(
            template(CHAT_TEMPLATE).render(&messages, true).as_deref(),
            Ok("<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n\
                <|im_start|>assistant\n")
        );
    }

    #[test]
    fn refusals_are_told() {
        let broken = ChatTemplate::new("{% if %}", BTreeMap::new()).expect_err("refused");
        assert!(broken.to_string().contains("line 1"), "{broken}");
        let strict = template("{{ raise_exception('roles must alternate') }}");
        let error = strict.render(&[], false).expect_err("refused").to_string();
        assert!(error.contains("roles must alternate (line 1)"), "{error}");
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}\
                       {% endfor %}{% endfor %}";
        assert!(template(endless).render(&[], false).is_err());
        assert!(template("x").render_json("[1]").is_err());
        assert!(template("{{ strftime_now('%Q!') }}").render(&[], false).is_err());
        assert!(template("{{ x.y.z }}").render(&[], false).is_err());
    }

    #[test]
    fn texts_without_end_are_refused() {
        for source in [
            "{{ [1] * 90000000 }}",
            "{{ ([1] * 90000000) | tojson }}",
            "{{ [[1] * 90000000] * 90000000 }}",
            "{{ [1] | tojson(indent=9000000000000) }}{{ [1, [2]] | tojson(indent=900000000) }}",
            "{{ 'x' * 90000000 }}{{ 'x' * 90000000 }}{{ 'x' * 90000000 }}{{ 'x' * 90000000 }}",
            "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}",
        ] {
            let error = template(source).render(&[], false).unwrap_err().to_string();
            assert!(error.contains("bytes") || error.contains("fuel"), "{source}: {error}");
        }
    }

    #[test]
    fn values_within_values_without_end_are_refused() {
        for print in ["{{ n.x }}", "{{ n.x | string }}", "{{ n.x | tojson }}"] {
            let nested = |levels: usize| {
                let source = format!(
                    "{{% set n = namespace(x=[]) %}}{{% for i in range({levels}) %}}\
                     {{% set n.x = [n.x] %}}{{% endfor %}}{print}"
                );
                template(&source).render(&[], false)
            };
            assert_eq!(nested(100).expect("renders"), "[".repeat(101) + &"]".repeat(101));
            let error = nested(5000).expect_err("refused").to_string();
            assert!(error.contains("levels"), "{error}");
        }
    }

    #[test]
    fn variables_of_every_kind() {
        let source = "{{ bos_token }}{{ tools is none }}{{ tools is iterable }}{{ 'a' is iterable }}{{ n }}{{ flag }}{{ missing }}\
                      {{ 'abc'.removeprefix('ab') }}{{ now is defined }}";
        let text = template(source).render_json(r#"{"n": null, "flag": true}"#);
        assert_eq!(text.as_deref(), Ok("<s>TrueFalseTrueNoneTruecFalse"));
        let year = template("{{ strftime_now('%Y') }}").render(&[], false).expect("renders");
        assert_eq!(year.len(), 4);
        let marked = "a\n  {% generation %}\nb\n  {%- endgeneration %}\nc";
        assert_eq!(template(marked).render(&[], false).as_deref(), Ok("a\nbc"));
    }
}
