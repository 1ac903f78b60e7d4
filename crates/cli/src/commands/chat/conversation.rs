//! A conversation with a model: what was said, and the context in which it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use empg::TokenId;
use empg_llm::{
    ChatTemplate, DecodeWeights, Decoder, LoadedModel, Message, Precision, SamplingParams, SeqId,
    Tokenizer,
};
use empg_train::seed;

/// How replies are sampled.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// Of a single token.
    pub(super) sampling: SamplingParams,
    /// Tokens of a reply at most.
    pub(super) max_tokens: usize,
    pub(super) seed: u64,
    pub(super) precision: Precision,
    pub(super) threads: usize,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a token that ends turns.
    Stopped,
    /// After the tokens that a reply may have.
    Cut,
    /// With the last position of the model.
    Full,
    /// Somebody asked for it.
    Interrupted,
}

/// What a model said.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) text: String,
    /// Sampled tokens, the one that ended the turn included.
    pub(super) tokens: usize,
    /// Sum of the tokens' entropies, in nats.
    pub(super) entropy: f64,
    /// From the message to the last token.
    pub(super) seconds: f64,
    pub(super) end: End,
}

/// Messages, and the keys and values of as many of them as were computed.
pub(super) struct Conversation<'m> {
    tokenizer: &'m Tokenizer,
    template: &'m ChatTemplate,
    /// In front of the text of ChatML, where that stands in for a template of the model's own.
    begin: Option<TokenId>,
    decoder: Decoder<'m>,
    manner: Manner,
    pub(super) messages: Vec<Message>,
    /// The context, token by token.
    held: Option<(SeqId, Vec<TokenId>)>,
    /// Tokens that were sampled in all, from which each one's seed derives.
    drawn: u64,
}

impl<'m> Conversation<'m> {
    /// One in which nothing but standing instructions was said.
    pub(super) fn new(
        loaded: &'m LoadedModel,
        (template, begin): (&'m ChatTemplate, Option<TokenId>),
        system: Option<&str>,
        manner: Manner,
    ) -> anyhow::Result<Self> {
        let model = &loaded.model;
        let weights = DecodeWeights::with_precision(model, manner.precision, manner.threads);
        let decoder =
            Decoder::with_weights(Arc::new(weights), model.config.max_position_embeddings)?;
        Ok(Self {
            tokenizer: &loaded.tokenizer,
            template,
            begin,
            decoder: decoder.with_threads(manner.threads),
            manner,
            messages: system.map(|text| Message::new("system", text)).into_iter().collect(),
            held: None,
            drawn: 0,
        })
    }

    /// Forgets what was said behind the standing instructions.
    pub(super) fn begin_anew(&mut self) {
        self.messages.retain(|message| message.role == "system");
    }

    /// The model's reply to a message, which `say` hears piece by piece. Both are part of the
    /// conversation then; after an error neither is.
    pub(super) fn reply(
        &mut self,
        message: &str,
        stop: &AtomicBool,
        say: &mut dyn FnMut(&str) -> std::io::Result<()>,
    ) -> anyhow::Result<Reply> {
        self.messages.push(Message::new("user", message));
        let reply = self.answer(stop, say);
        match &reply {
            Ok(reply) => self.messages.push(Message::new("assistant", reply.text.as_str())),
            Err(_) => {
                self.messages.pop();
            }
        }
        reply
    }

    fn answer(
        &mut self,
        stop: &AtomicBool,
        say: &mut dyn FnMut(&str) -> std::io::Result<()>,
    ) -> anyhow::Result<Reply> {
        let clock = Instant::now();
        let text = self.template.render(&self.messages, true)?;
        let mut tokens: Vec<TokenId> = self.begin.into_iter().collect();
        tokens.extend(self.tokenizer.encode(&text)?);
        let most = self.decoder.max_context();
        if tokens.len() >= most {
            bail!(
                "the conversation has {} tokens, and the model takes {most} with its reply: begin \
                 anew, or say less",
                tokens.len()
            );
        }
        let (seq, mut context) = self.context(tokens)?;
        let (mut sampled, mut shown) = (Vec::new(), Shown::default());
        let mut reply =
            Reply { text: String::new(), tokens: 0, entropy: 0.0, seconds: 0.0, end: End::Cut };
        while reply.tokens < self.manner.max_tokens {
            if stop.load(Ordering::SeqCst) {
                reply.end = End::Interrupted;
                break;
            }
            let seed = seed::derive(&[self.manner.seed, self.drawn]);
            let turns = self.decoder.generate(&[(seq, seed)], &self.manner.sampling)?;
            let turn = turns.into_iter().next().context("a turn for a request")?;
            let (Some(&token), Some(score)) = (turn.tokens.first(), turn.scores.first()) else {
                reply.end = End::Full;
                break;
            };
            self.drawn += 1;
            context.push(token);
            reply.tokens += 1;
            reply.entropy += f64::from(score.entropy);
            if turn.stopped {
                reply.end = End::Stopped;
                break;
            }
            sampled.push(token);
            say(shown.grown(&self.tokenizer.decode(&sampled)?))?;
        }
        self.held = Some((seq, context));
        reply.text = self.tokenizer.decode(&sampled)?;
        say(&shown.rest(&reply.text))?;
        reply.seconds = clock.elapsed().as_secs_f64();
        Ok(reply)
    }

    /// A sequence with these tokens: the one at hand goes on where it is their beginning.
    fn context(&mut self, tokens: Vec<TokenId>) -> anyhow::Result<(SeqId, Vec<TokenId>)> {
        // Taken: what an error leaves behind is not gone on with.
        if let Some((seq, held)) = self.held.take() {
            match tokens.strip_prefix(held.as_slice()) {
                Some(more) if !more.is_empty() => {
                    self.decoder.append(seq, more)?;
                    return Ok((seq, tokens));
                }
                _ => self.decoder.close(seq),
            }
        }
        Ok((self.decoder.open(&tokens)?, tokens))
    }
}

/// What of a growing text was shown.
#[derive(Debug, Default)]
struct Shown(String);

impl Shown {
    /// What is to be shown of the text so far: not the first bytes of a character, and nothing where
    /// the tokens behind changed what was there before.
    fn grown<'t>(&mut self, text: &'t str) -> &'t str {
        let whole = text.trim_end_matches('\u{fffd}');
        let more = whole.strip_prefix(self.0.as_str()).unwrap_or_default();
        self.0.push_str(more);
        more
    }

    /// What is left of the text at its end; all of it, on a line of its own, where it is another.
    fn rest(&self, text: &str) -> String {
        match text.strip_prefix(self.0.as_str()) {
            Some(more) => more.to_owned(),
            None => format!("\n{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use empg_llm::load_path;

    use super::*;

    fn manner(temperature: f32) -> Manner {
        Manner {
            sampling: SamplingParams { temperature, max_tokens: 1, ..SamplingParams::default() },
            max_tokens: 5,
            seed: 3,
            precision: Precision::F32,
            threads: 1,
        }
    }

    fn golden() -> LoadedModel {
        let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../llm/tests/goldens/qwen2-tiny");
        load_path(Path::new(goldens)).unwrap()
    }

    #[test]
    fn a_context_that_goes_on_says_what_a_new_one_would() {
        let loaded = golden();
        let template = loaded.chat_template.as_ref().unwrap();
        for temperature in [0.0, 1.0] {
            let open = || {
                let said = Some("Be brief.");
                Conversation::new(&loaded, (template, None), said, manner(temperature)).unwrap()
            };
            let (mut one, mut other) = (open(), open());
            for message in ["how are you", "why", "and then"] {
                let mut heard = String::new();
                let stop = AtomicBool::new(false);
                let mut say = |part: &str| {
                    heard.push_str(part);
                    Ok(())
                };
                let reply = one.reply(message, &stop, &mut say).unwrap();
                assert_eq!(heard, reply.text);
                assert!(reply.tokens <= 5 && reply.entropy > 0.0);
                other.held = None;
                let again = other.reply(message, &stop, &mut |_| Ok(())).unwrap();
                assert_eq!((again.text, again.tokens), (reply.text, reply.tokens));
                assert_eq!(again.entropy.to_bits(), reply.entropy.to_bits());
            }
            assert_eq!(one.messages.len(), 7);
            one.begin_anew();
            assert_eq!(one.messages, [Message::new("system", "Be brief.")]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_forgotten() {
        let loaded = golden();
        let template = loaded.chat_template.as_ref().unwrap();
        let mut talk = Conversation::new(&loaded, (template, None), None, manner(0.0)).unwrap();
        let stop = AtomicBool::new(false);
        let long = "a b c ".repeat(loaded.model.config.max_position_embeddings);
        let error = talk.reply(&long, &stop, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("begin anew"), "{error}");
        assert!(talk.messages.is_empty());
        // The last position ends a reply.
        talk.manner.max_tokens = usize::MAX;
        let reply = talk.reply("a", &stop, &mut |_| Ok(())).unwrap();
        assert!(matches!(reply.end, End::Full | End::Stopped), "{:?}", reply.end);
        stop.store(true, Ordering::SeqCst);
        talk.begin_anew();
        let reply = talk.reply("a", &stop, &mut |_| Ok(())).unwrap();
        assert_eq!((reply.end, reply.tokens, reply.text.as_str()), (End::Interrupted, 0, ""));
    }

    #[test]
    fn characters_are_shown_whole() {
        let mut shown = Shown::default();
        assert_eq!(shown.grown("a\u{fffd}"), "a");
        assert_eq!(shown.grown("aü"), "ü");
        assert_eq!(shown.grown("other"), "");
        assert_eq!(shown.rest("aüx"), "x");
        assert_eq!(shown.rest("other"), "\nother");
    }
}
