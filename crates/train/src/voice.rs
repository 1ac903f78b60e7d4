//! Conversations as tokens: what a context begins with, what is appended to it, what a turn means.
//! Episodes that are played and episodes that are demonstrated become tokens here and nowhere else.

use std::borrow::Cow;

use empg::TokenId;
use empg_llm::{ChatMl, Role, Tokenizer};

use crate::TrainError;
use crate::config::{Context, RolloutConfig};
use crate::rollout::TurnText;
use crate::script::{Scene, Script};

/// A tokenizer, its chat pieces, and how the environment talks.
pub(crate) struct Voice<'a> {
    tokenizer: &'a Tokenizer,
    chat: ChatMl,
    script: &'a Script,
    config: &'a RolloutConfig,
}

/// An episode up to the turn that is to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story<'s> {
    /// The first observation.
    pub(crate) intro: &'s str,
    /// The turns so far.
    pub(crate) turns: &'s [TurnText],
    /// What the agent sees now.
    pub(crate) observation: &'s str,
    /// The admissible commands, where the configuration lists them.
    pub(crate) admissible: &'s [String],
    /// Whether the last turn was not understood.
    pub(crate) invalid: bool,
}

impl<'a> Voice<'a> {
    pub(crate) fn new(
        tokenizer: &'a Tokenizer,
        script: &'a Script,
        config: &'a RolloutConfig,
    ) -> Result<Self, TrainError> {
        let mut chat = ChatMl::new(tokenizer)?;
        // A template's own words are never cut off; see `clip`.
        if config.max_observation_tokens > 0 && script.is_plain() {
            chat = chat.with_longest_observation(config.max_observation_tokens);
        }
        Ok(Self { tokenizer, chat, script, config })
    }

    /// The token that ends a turn.
    pub(crate) fn end_of_turn(&self) -> TokenId {
        self.chat.end_of_turn()
    }

    /// The context in which a segment's first turn is sampled.
    pub(crate) fn opening(&self, story: &Story<'_>) -> Result<Vec<TokenId>, TrainError> {
        let say = |role, text: &str| self.chat.turn(self.tokenizer, role, text);
        let mut tokens: Vec<TokenId> = self.tokenizer.begin().into_iter().collect();
        if !self.config.system.is_empty() {
            tokens.extend(say(Role::System, &self.config.system)?);
        }
        let window = match self.config.context {
            Context::Full => 0,
            Context::Window(turns) => turns,
        };
        let from = story.turns.len().saturating_sub(window);
        let mut history = &story.turns[from..];
        if self.script.is_plain() {
            if from > 0 {
                tokens.extend(say(Role::User, story.intro)?);
            }
            for turn in history {
                tokens.extend(say(Role::User, &turn.observation)?);
                tokens.extend(say(Role::Assistant, &turn.said)?);
            }
            history = &[];
        }
        let text = self.message(story, history, true)?;
        tokens.extend(self.chat.first_turn(self.tokenizer, &text)?);
        Ok(tokens)
    }

    /// What a growing context continues with after a turn; `stopped` says whether the turn's end
    /// token is part of it.
    pub(crate) fn next(
        &self,
        story: &Story<'_>,
        stopped: bool,
    ) -> Result<Vec<TokenId>, TrainError> {
        let text = self.message(story, &[], false)?;
        Ok(self.chat.next_turn(self.tokenizer, stopped, &text)?)
    }

    /// A turn of the agent, its end token included.
    pub(crate) fn turn(&self, thought: &str, action: &str) -> Result<Vec<TokenId>, TrainError> {
        let mut tokens = self.tokenizer.encode_text(&self.script.say(thought, action))?;
        tokens.push(self.end_of_turn());
        Ok(tokens)
    }

    fn message(
        &self,
        story: &Story<'_>,
        history: &[TurnText],
        opening: bool,
    ) -> Result<String, TrainError> {
        let history: Cow<'_, [TurnText]> = if self.config.max_observation_tokens > 0 {
            let clipped = |turn: &TurnText| {
                let observation = self.clip(&turn.observation)?.into_owned();
                Ok(TurnText { observation, ..turn.clone() })
            };
            Cow::Owned(history.iter().map(clipped).collect::<Result<_, TrainError>>()?)
        } else {
            Cow::Borrowed(history)
        };
        let scene = Scene {
            opening,
            intro: story.intro,
            history: &history,
            turn: story.turns.len() + 1,
            observation: &self.clip(story.observation)?,
            admissible: story.admissible,
            invalid: story.invalid,
        };
        Ok(self.script.message(&scene)?)
    }

    /// An observation inside a template, cut off after `rollout.max_observation_tokens`.
    fn clip<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, TrainError> {
        let most = self.config.max_observation_tokens;
        // No token is longer than its text in bytes.
        if most == 0 || self.script.is_plain() || text.len() <= most {
            return Ok(Cow::Borrowed(text));
        }
        let tokens = self.tokenizer.encode_text(text)?;
        match tokens.get(..most) {
            Some(kept) if tokens.len() > most => Ok(Cow::Owned(self.tokenizer.decode(kept)?)),
            _ => Ok(Cow::Borrowed(text)),
        }
    }
}
