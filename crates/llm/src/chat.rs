//! ChatML, turn by turn: a conversation is one growing context, so every function gives the tokens
//! to append and none renders the past again.

use empg::TokenId;

use crate::tiny_tokenizer::{TURN_END, TURN_START};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// The same conversation for software that renders it whole from a list of messages.
pub const CHAT_TEMPLATE: &str = concat!(
    "{% for message in messages %}",
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
);

/// [`CHAT_TEMPLATE`] for a tokenizer whose conversations begin with a token.
pub(crate) fn template_of(tokenizer: &Tokenizer) -> String {
    let begin = if tokenizer.begin().is_some() { "{{ bos_token }}" } else { "" };
    format!("{begin}{CHAT_TEMPLATE}")
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Standing instructions.
    System,
    /// The environment.
    User,
    /// The policy.
    Assistant,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// How a role's header is spelt.
#[derive(Clone, Debug)]
enum Header {
    /// The header is a token of its own.
    One(TokenId),
    /// The start token, and the role's name as text together with what follows it.
    Spelt(TokenId),
}

/// The pieces of ChatML in one tokenizer's tokens.
#[derive(Clone, Debug)]
pub struct ChatMl {
    system: Header,
    user: Header,
    assistant: Header,
    end: TokenId,
    /// What stands between two turns.
    between: Vec<TokenId>,
    /// Tokens of an environment's turn.
    longest_observation: usize,
}

impl ChatMl {
    /// Finds ChatML's tokens.
    ///
    /// # Errors
    /// A tokenizer without `<|im_start|>` or `<|im_end|>`.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        let start = tokenizer.require(TURN_START)?;
        let header = |role: Role| {
            let whole = format!("{TURN_START}{}\n", role.name());
            tokenizer.token_id(&whole).map_or(Header::Spelt(start), Header::One)
        };
        Ok(Self {
            system: header(Role::System),
            user: header(Role::User),
            assistant: header(Role::Assistant),
            end: tokenizer.require(TURN_END)?,
            between: tokenizer.encode_text("\n")?,
            longest_observation: usize::MAX,
        })
    }

    /// The same with observations cut off after so many tokens.
    #[must_use]
    pub fn with_longest_observation(self, tokens: usize) -> Self {
        Self { longest_observation: tokens, ..self }
    }

    /// The token that ends a turn: the stop token of sampling, and part of the step.
    pub fn end_of_turn(&self) -> TokenId {
        self.end
    }

    /// A whole turn of `role`: header, text, end token and what separates it from the next turn.
    /// Special tokens spelt out in `text` stay text.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn turn(
        &self,
        tokenizer: &Tokenizer,
        role: Role,
        text: &str,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let mut tokens = self.open_turn(tokenizer, role, text)?;
        tokens.push(self.end);
        tokens.extend(&self.between);
        Ok(tokens)
    }

    /// A turn of the environment; [`Self::turn`] with [`Role::User`].
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn user_turn(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        self.turn(tokenizer, Role::User, text)
    }

    /// What the policy continues: the header of its turn.
    ///
    /// # Errors
    /// Not expected of a tokenizer that [`Self::new`] accepted.
    pub fn assistant_header(&self, tokenizer: &Tokenizer) -> Result<Vec<TokenId>, TokenizerError> {
        self.open_turn(tokenizer, Role::Assistant, "")
    }

    /// What stands before the first command: the first observation and the policy's header.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn first_turn(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let mut tokens = self.user_turn(tokenizer, text)?;
        tokens.extend(self.assistant_header(tokenizer)?);
        Ok(tokens)
    }

    /// What to append after the policy's turn: its end token if the policy did not sample it
    /// (`stopped` is false), the separator, the observation and the policy's next header.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn next_turn(
        &self,
        tokenizer: &Tokenizer,
        stopped: bool,
        text: &str,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let mut tokens = Vec::new();
        if !stopped {
            tokens.push(self.end);
        }
        tokens.extend(&self.between);
        tokens.extend(self.first_turn(tokenizer, text)?);
        Ok(tokens)
    }

    fn open_turn(
        &self,
        tokenizer: &Tokenizer,
        role: Role,
        text: &str,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let header = match role {
            Role::System => &self.system,
            Role::User => &self.user,
            Role::Assistant => &self.assistant,
        };
        let (first, rest) = match header {
            Header::One(id) => (*id, tokenizer.encode_text(text)?),
            Header::Spelt(id) => (*id, tokenizer.encode_text(&format!("{}\n{text}", role.name()))?),
        };
        let mut tokens = Vec::with_capacity(rest.len() + 4);
        tokens.push(first);
        tokens.extend(rest);
        if matches!(role, Role::User) {
            tokens.truncate(self.longest_observation.saturating_add(1));
        }
        Ok(tokens)
    }
}
