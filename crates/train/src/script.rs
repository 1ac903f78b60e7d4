//! How an agent is spoken to and how its turns are read: which words the environment's messages are
//! made of, and where in a turn the command stands.

use std::path::PathBuf;

use empg_env::Projection;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value, context};

use crate::config::RolloutConfig;
use crate::rollout::TurnText;

/// The prompts that come with the crate, by environment.
const PROMPTS: &[(&str, &str)] = &[
    ("alfworld", include_str!("../prompts/alfworld.jinja")),
    ("webshop", include_str!("../prompts/webshop.jinja")),
    ("search", include_str!("../prompts/search.jinja")),
];

/// What a template can name.
const VARIABLES: [&str; 8] =
    ["opening", "intro", "task", "turn", "history", "observation", "admissible", "invalid"];

/// What stands before the task in ALFWorld's first observation.
const TASK: &str = "Your task is to: ";

/// A prompt that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// A template file that cannot be read.
    #[error("rollout.prompt: {}: {source}; the prompts that need no file are plain, {}", path.display(), names())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A template that cannot be rendered.
    #[error("rollout.prompt: {name}: {reason}")]
    Template {
        /// Which one.
        name: String,
        /// What is wrong, with the line.
        reason: String,
    },
}

fn names() -> String {
    PROMPTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// How a turn becomes a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// What was said is the command; the environment reads it itself.
    Whole,
    /// `<think>…</think>` before a command that the environment reads itself.
    Thought,
    /// `<think>…</think><action>…</action>`.
    Tagged(Projection),
}

/// The words of the environment's messages and the reading of the agent's turns.
#[derive(Debug)]
pub struct Script {
    template: Option<Template>,
    reading: Reading,
}

#[derive(Debug)]
struct Template {
    name: String,
    engine: Environment<'static>,
}

/// What a turn was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The command in it.
    pub action: String,
    /// Whether the turn had the form that the prompt asks for.
    pub valid: bool,
}

/// What a message can tell.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// Whether a context begins here.
    pub opening: bool,
    /// The first observation.
    pub intro: &'a str,
    /// The turns that the message repeats, oldest first.
    pub history: &'a [TurnText],
    /// The turn to come, from 1.
    pub turn: usize,
    /// The observation to answer.
    pub observation: &'a str,
    /// The admissible commands, where they are listed.
    pub admissible: &'a [String],
    /// Whether the turn before was not understood.
    pub invalid: bool,
}

impl Script {
    /// The turn is the command, the observation the message: how the embedded policy talks.
    pub fn plain() -> Self {
        Self { template: None, reading: Reading::Whole }
    }

    /// The script that `prompt` names for an environment: `plain`, a prompt of this crate, or the
    /// path of a template; `auto` is the environment's own prompt where there is one and the policy
    /// is a language model, else `plain`.
    ///
    /// # Errors
    /// A file that cannot be read, a template that cannot be rendered.
    pub fn open(prompt: &str, env: &str, language_model: bool) -> Result<Self, ScriptError> {
        Self::with_template(prompt, None, env, language_model)
    }

    /// As [`Self::open`]; where `prompt` names a template's file and its text is at hand, the file is
    /// not read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_template(
        prompt: &str,
        text: Option<&str>,
        env: &str,
        language_model: bool,
    ) -> Result<Self, ScriptError> {
        let own = if env == "households" { "alfworld" } else { env };
        let prompt = match prompt {
            "auto" if language_model && PROMPTS.iter().any(|(name, _)| *name == own) => own,
            "auto" | "plain" => return Ok(Self::plain()),
            other => other,
        };
        let text = match (PROMPTS.iter().find(|(name, _)| *name == prompt), text) {
            (Some((_, text)), _) => (*text).to_owned(),
            (None, Some(text)) => text.to_owned(),
            (None, None) => read(prompt)?,
        };
        let reading = match env {
            "search" => Reading::Thought,
            _ => Reading::Tagged(Projection::of(env).unwrap_or(Projection::Alfworld)),
        };
        let template = Template::new(prompt, text)?;
        let unknown = template.unknown();
        let script = Self { template: Some(template), reading };
        // What fails at the third turn of an episode fails here.
        let past = TurnText {
            observation: String::new(),
            said: String::new(),
            action: String::new(),
            effect: true,
        };
        let list = ["look".to_owned()];
        for opening in [true, false] {
            for history in [&[][..], std::slice::from_ref(&past)] {
                script.message(&Scene {
                    opening,
                    intro: "",
                    history,
                    turn: history.len() + 1,
                    observation: "",
                    admissible: &list,
                    invalid: !history.is_empty(),
                })?;
            }
        }
        unknown.map_or(Ok(script), Err)
    }

    /// Whether a prompt is the path of a template, rather than one that needs no file.
    pub fn is_file(prompt: &str) -> bool {
        !matches!(prompt, "auto" | "plain") && PROMPTS.iter().all(|(name, _)| *name != prompt)
    }

    /// Whether observations are messages as they are.
    pub fn is_plain(&self) -> bool {
        self.template.is_none()
    }

    /// The environment's message.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn message(&self, scene: &Scene<'_>) -> Result<String, ScriptError> {
        let Some(template) = &self.template else {
            return Ok(plain_message(scene));
        };
        let first = scene.turn - scene.history.len().min(scene.turn - 1);
        let history: Vec<Value> = scene
            .history
            .iter()
            .enumerate()
            .map(|(i, turn)| {
                context! {
                    turn => first + i,
                    observation => turn.observation.trim(),
                    action => turn.action.as_str(),
                    said => turn.said.as_str(),
                }
            })
            .collect();
        let task = scene.intro.split_once(TASK).map_or(scene.intro, |(_, task)| task);
        template.render(context! {
            opening => scene.opening,
            intro => scene.intro,
            task => task.trim(),
            history,
            turn => scene.turn,
            observation => scene.observation.trim(),
            admissible => scene.admissible.to_vec(),
            invalid => scene.invalid,
        })
    }

    /// The command in what the agent said.
    pub fn read(&self, said: &str) -> Spoken {
        match self.reading {
            Reading::Whole => Spoken { action: said.to_owned(), valid: true },
            Reading::Thought => Spoken { action: behind_thought(said).to_owned(), valid: true },
            Reading::Tagged(projection) => {
                let read = projection.project(said);
                Spoken { action: read.action, valid: read.valid }
            }
        }
    }

    /// What the environment is given of a turn: all that was said where it reads turns itself.
    pub fn played<'s>(&self, said: &'s str, spoken: &'s Spoken) -> &'s str {
        match self.reading {
            Reading::Whole | Reading::Thought => said,
            Reading::Tagged(_) => &spoken.action,
        }
    }

    /// A turn in the form that [`Self::read`] understands.
    pub fn say(&self, thought: &str, action: &str) -> String {
        match self.reading {
            Reading::Whole => action.to_owned(),
            Reading::Thought => format!("<think>{thought}</think>{action}"),
            Reading::Tagged(_) => format!("<think>{thought}</think><action>{action}</action>"),
        }
    }
}

impl RolloutConfig {
    /// Reads the template that `prompt` names, unless its text is at hand: what is done to the file
    /// afterwards changes nothing.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read_prompt(&mut self) -> Result<(), ScriptError> {
        if !Script::is_file(&self.prompt) {
            self.template = None;
        } else if self.template.is_none() {
            self.template = Some(read(&self.prompt)?);
        }
        Ok(())
    }
}

/// What stands behind a turn's thought. A thought with tags of its own is part of the command, because
/// the environment reads those.
fn behind_thought(said: &str) -> &str {
    let command = said.split_once("</think>").map_or(said, |(_, rest)| rest.trim());
    let read = |text| Projection::Search.project(text).action;
    if read(said) == read(command) { command } else { said }
}

/// The text of a template file.
fn read(path: &str) -> Result<String, ScriptError> {
    std::fs::read_to_string(path).map_err(|source| ScriptError::Read { path: path.into(), source })
}

fn plain_message(scene: &Scene<'_>) -> String {
    let mut text = scene.observation.to_owned();
    for command in scene.admissible {
        text.push('\n');
        text.push_str(command);
    }
    text
}

impl Template {
    fn new(name: &str, text: String) -> Result<Self, ScriptError> {
        let refuse = |e| ScriptError::Template { name: name.to_owned(), reason: reason(&e, "") };
        let mut engine = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        engine.set_syntax(syntax.map_err(refuse)?);
        // A misspelt variable is an error, not an empty place.
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        // Errors that name what they are about, whatever the build.
        engine.set_debug(true);
        engine.add_template_owned(name.to_owned(), text).map_err(refuse)?;
        Ok(Self { name: name.to_owned(), engine })
    }

    fn render(&self, context: Value) -> Result<String, ScriptError> {
        let refuse = |e, text: &str| ScriptError::Template {
            name: self.name.clone(),
            reason: reason(&e, text),
        };
        let template = self.engine.get_template(&self.name).map_err(|e| refuse(e, ""))?;
        let rendered = template.render(context).map_err(|e| refuse(e, template.source()))?;
        Ok(rendered.trim().to_owned())
    }

    /// A variable that there is not, in whatever branch it stands.
    fn unknown(&self) -> Option<ScriptError> {
        let template = self.engine.get_template(&self.name).ok()?;
        let text = template.source();
        let mut named: Vec<(usize, String)> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !VARIABLES.contains(&name.as_str()))
            .filter(|name| self.engine.globals().all(|(global, _)| global != name))
            .filter_map(|name| Some((unsettled(text, &name)?, name)))
            .collect();
        named.sort_unstable();
        let (at, name) = named.into_iter().next()?;
        let line = text[..at].matches('\n').count() + 1;
        let all = VARIABLES.join(", ");
        let reason = format!("line {line}: there is no variable `{name}`; there are {all}");
        Some(ScriptError::Template { name: self.name.clone(), reason })
    }
}

/// Where a template first takes a name's value, unless it gives it one itself somewhere (a branch may,
/// for all that follow it) or asks whether it has one.
fn unsettled(text: &str, name: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut first = None;
    let mut at = 0;
    while let Some(open) = text[at..].find('{').map(|i| at + i) {
        let Some(kind) = text[open + 1..].chars().next().filter(|c| matches!(c, '{' | '%')) else {
            at = open + 1;
            continue;
        };
        let begin = open + 2;
        let close = if kind == '{' { "}}" } else { "%}" };
        let end = text[begin..].find(close).map_or(text.len(), |i| begin + i);
        let tag = &text[begin..end];
        let statement = tag.trim_start_matches(['-', '+']).trim_start();
        for (i, _) in tag.match_indices(name) {
            let (before, after) = (&tag[..i], &tag[i + name.len()..]);
            if before.ends_with(word) || before.ends_with('.') || after.starts_with(word) {
                continue;
            }
            let gives = [("set", '='), ("macro", '(')].iter().any(|&(kind, names_end)| {
                let names = statement.strip_prefix(kind).filter(|names| !names.starts_with(word));
                names.is_some() && !before.contains(names_end)
            });
            let after = after.trim_start();
            let asks = ["is defined", "is not defined", "is undefined", "is not undefined"]
                .iter()
                .any(|question| after.starts_with(question))
                || after.strip_prefix('|').is_some_and(|filter| {
                    let filter = filter.trim_start();
                    let end = filter.find(|c| !word(c)).unwrap_or(filter.len());
                    ["default", "d"].contains(&&filter[..end])
                });
            if gives || asks {
                return None;
            }
            first = first.or(Some(begin + i));
        }
        at = end;
    }
    first
}

/// What is wrong, with its line, and with the part of the template's text where it is known.
fn reason(error: &minijinja::Error, text: &str) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let part = error.range().and_then(|range| text.get(range)).map(str::trim);
    let short = |part: &&str| !part.is_empty() && !part.contains('\n') && part.len() <= 80;
    let part = part.filter(short).filter(|part| !what.contains(part));
    let part = part.map_or(String::new(), |part| format!(" (`{part}`)"));
    format!("{line}{what}{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(observation: &str, action: &str) -> TurnText {
        TurnText {
            observation: observation.into(),
            said: format!("<think>so</think><action>{action}</action>"),
            action: action.into(),
            effect: true,
        }
    }

    const INTRO: &str = "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. \
                         Looking quickly around you, you see a desk 1, and a bed 1.\n\nYour task \
                         is to: put some mug on desk.";

    #[test]
    fn the_rules_stand_at_the_beginning_of_a_context_only() {
        let script = Script::open("auto", "alfworld", true).unwrap();
        let first = Scene {
            opening: true,
            intro: INTRO,
            history: &[],
            turn: 1,
            observation: INTRO,
            admissible: &[],
            invalid: false,
        };
        let text = script.message(&first).unwrap();
        assert!(text.contains("<action>your command</action>"), "{text}");
        assert_eq!(text.matches("Your task is to: put some mug on desk.").count(), 1, "{text}");
        assert!(!text.contains("TextWorld") && !text.contains("turn 1"), "{text}");
        let later =
            Scene { opening: false, turn: 2, observation: "You arrive at desk 1.", ..first };
        assert_eq!(script.message(&later).unwrap(), "You arrive at desk 1.");
        let unread = Scene { invalid: true, ..later };
        assert!(script.message(&unread).unwrap().starts_with("Your last reply had no"));
    }

    #[test]
    fn a_window_repeats_the_last_turns_and_lists_commands() {
        let script = Script::open("alfworld", "households", true).unwrap();
        let history = [past("You arrive at bed 1.", "look"), past("You see a mug 1.", "inventory")];
        let list = ["go to desk 1".to_owned(), "help".to_owned(), "look".to_owned()];
        let text = script
            .message(&Scene {
                opening: true,
                intro: INTRO,
                history: &history,
                turn: 5,
                observation: "You are not carrying anything.",
                admissible: &list,
                invalid: false,
            })
            .unwrap();
        let end = "This is turn 5. What happened last:\nYou arrive at bed 1.\nYou: look\nYou see \
                   a mug 1.\nYou: inventory\nYou are not carrying anything.\nPossible now: go to \
                   desk 1, look";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn what_is_said_is_read_back() {
        for (env, action) in [("alfworld", "go to desk 1"), ("search", "<search>who</search>")] {
            let script = Script::open("auto", env, true).unwrap();
            let said = script.say("I need a desk.", action);
            assert!(said.starts_with("<think>I need a desk.</think>"));
            let read = script.read(&said);
            assert_eq!((read.action.as_str(), read.valid), (action, true));
            let played = if env == "search" { said.as_str() } else { action };
            assert_eq!(script.played(&said, &read), played);
        }
        let script = Script::open("alfworld", "alfworld", true).unwrap();
        assert!(!script.read("go to desk 1").valid);
        assert_eq!(Script::plain().read("look").action, "look");
    }

    #[test]
    fn the_command_of_a_search_stands_behind_the_thought() {
        let script = Script::open("auto", "search", true).unwrap();
        for (said, action) in [
            ("<think>so</think>\n<search>who</search>\n", "<search>who</search>"),
            ("so</think><answer>me</answer>", "<answer>me</answer>"),
            ("<search>who</search>", "<search>who</search>"),
            ("<think>so</think> hm", "hm"),
            ("<think>so", "<think>so"),
        ] {
            assert_eq!(script.read(said).action, action);
        }
        // The environment takes the first one.
        let twice = "<think><search>a</search></think><search>b</search>";
        assert_eq!(script.read(twice).action, twice);
    }

    #[test]
    fn the_embedded_policy_and_unknown_environments_talk_plainly() {
        assert!(Script::open("auto", "alfworld", false).unwrap().is_plain());
        assert!(Script::open("auto", "openenv", true).unwrap().is_plain());
        assert!(!Script::open("alfworld", "openenv", false).unwrap().is_plain());
    }

    #[test]
    fn broken_templates_are_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.jinja");
        let path = file.to_str().unwrap();
        for (text, needle) in [
            ("{{ observation }}\n{{ observatoin }}", "line 2: `observatoin` is undefined"),
            ("{% if opening %}", "line 1"),
            ("{{ history[3].action }}", "line 1"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Script::open(path, "alfworld", true).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("p.jinja"), "{error}");
        }
        // Branches that no turn of a trial takes.
        for (text, needle) in [
            (
                "observatoin\n{% if turn > 7 %}\n{{ observatoin }}{% endif %}",
                "line 3: there is no variable `observatoin`; there are opening, intro",
            ),
            ("{% if turn > 7 and not obening %}x{% endif %}", "variable `obening`"),
            (
                "{% for t in history if turn > 9 %}{{ t.turn }}{{ tt.said }}{% endfor %}",
                "variable `tt`",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Script::open(path, "alfworld", true).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("p.jinja"), "{error}");
        }
        for text in [
            "{% if turn > 7 %}{% set a = 1 %}{% else %}{% set a = 2 %}{% endif %}{{ a }}",
            "{% set a %}b{% endset %}{{ a }}{{ other|default('none') }}{{ more | d('') }}",
            "{% if turn > 7 %}{% set (a, b) = (1, 2) %}{% else %}{% set a, b = 3, 4 %}{% endif %}{{ a }}{{ b }}",
            "{% if other is not undefined %}{{ other }}{% endif %}",
            "{% if other is defined %}{{ other }}{% endif %}{% for i in range(turn) %}{{ i }}{% endfor %}",
            "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(task) }}{{ dict(a=1).a }}",
            "{% set ns = namespace(n=0) %}{% for t in history %}{% set ns.n = ns.n + 1 %}{{ loop.index }}{% endfor %}{{ ns.n }}",
        ] {
            std::fs::write(&file, text).unwrap();
            Script::open(path, "alfworld", true).unwrap();
        }
        let error = Script::open("no/such.jinja", "alfworld", true).unwrap_err().to_string();
        assert!(error.contains("no/such.jinja") && error.contains("webshop"), "{error}");
        std::fs::write(&file, "{{ task }}|{{ turn }}|{{ observation }}").unwrap();
        let script = Script::open(path, "alfworld", true).unwrap();
        let scene = Scene {
            opening: true,
            intro: INTRO,
            history: &[],
            turn: 1,
            observation: "x",
            admissible: &[],
            invalid: false,
        };
        assert_eq!(script.message(&scene).unwrap(), "put some mug on desk.|1|x");
    }
}
