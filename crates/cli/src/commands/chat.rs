//! `empg chat`: a person talks with a model.

mod conversation;

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;
use empg::TokenId;
use empg_llm::{CHAT_TEMPLATE, ChatTemplate, LoadedModel, Precision, SamplingParams, TURN_START};
use serde_json::json;

use crate::models::{self, Which};
use crate::settings::{self, Dtype, SettingsError};
use crate::{output, say, say_part};
use conversation::{Conversation, End, Manner, Reply};

/// Temperature where neither the flag nor the model says one.
const TEMPERATURE: f32 = 0.7;

/// Arguments of `empg chat`.
#[derive(Args, Debug)]
#[command(after_help = "\
Messages come from the terminal or from stdin, one a line. In a terminal /new
begins anew, /exit or Ctrl-D leaves, and Ctrl-C ends a reply. Replies go to
stdout; behind each stand its tokens, their mean entropy and tokens a second.

Examples:
  empg chat --model SmolLM2-135M-Instruct.Q4_1.gguf
  empg chat --model Qwen/Qwen2.5-0.5B-Instruct --dtype bf16 --system 'Be brief.'
  empg chat --model runs/NAME 'You are in a kitchen. What do you do?'
  printf 'My name is Ada.\\nWhat is my name?\\n' | empg chat --model DIR --json | tail -n 1")]
pub(crate) struct ChatArgs {
    /// A single message; without it those of stdin
    #[arg(value_name = "MESSAGE")]
    message: Option<String>,
    /// Model: a folder, a GGUF file, an id on the Hugging Face Hub, a run or tiny (embedded; it knows
    /// the words of its environments only)
    #[arg(long, value_name = "DIR|GGUF|HF-id|RUN|tiny")]
    model: String,
    /// Which checkpoint of a run: last, best or a step
    #[arg(long, value_name = "WHICH", default_value = "last")]
    checkpoint: Which,
    /// Standing instructions in front of the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A chat template instead of the model's
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Sampling temperature, 0 for the likeliest token [default: the model's own, else 0.7]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Sample among so many likeliest tokens [default: the model's own, else all]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Sample among the likeliest tokens of this total probability [default: the model's own, else 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Tokens of a reply at most
    #[arg(long, value_name = "N", default_value = "512", value_parser = super::at_least_one)]
    max_tokens: NonZeroUsize,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Numbers of the products; bf16 is up to twice as fast
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    dtype: Dtype,
    /// Threads; 0 = all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

/// All replies together.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    replies: usize,
    tokens: usize,
    entropy: f64,
    seconds: f64,
}

/// Talks until there is nothing more to say.
///
/// # Errors
/// A model or template that cannot be used, bad sampling parameters, a conversation that does not fit.
pub(crate) fn run(args: &ChatArgs, json: bool) -> anyhow::Result<()> {
    let threads = settings::threads(args.threads)?;
    let (loaded, _) = models::load_any(&args.model, args.checkpoint)?;
    let (template, begin) = template(&loaded, args.template.as_deref())?;
    let own = &loaded.generation;
    let usual = if own.sample == Some(false) { Some(0.0) } else { own.temperature };
    let sampling = SamplingParams {
        temperature: args.temperature.or(usual).unwrap_or(TEMPERATURE),
        top_k: args.top_k.or(own.top_k.filter(|&k| k > 0)),
        top_p: args.top_p.or(own.top_p),
        max_tokens: 1,
        stop: loaded.end_tokens(),
    };
    let fits = sampling.validate(loaded.model.config.vocab_size);
    fits.map_err(|error| SettingsError::Conflict(error.to_string()))?;
    let precision = if args.dtype == Dtype::Bf16 { Precision::Bf16 } else { Precision::F32 };
    let (max_tokens, seed) = (args.max_tokens.get(), args.seed);
    let manner = Manner { sampling, max_tokens, seed, precision, threads };
    let mut talk = Conversation::new(&loaded, (&template, begin), args.system.as_deref(), manner)?;

    let person = args.message.is_none() && io::stdin().is_terminal();
    let (stop, busy) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    watch(person, &stop, &busy);
    let mut sums = Sums::default();
    let mut tell = |talk: &mut Conversation<'_>, message: &str| -> anyhow::Result<()> {
        stop.store(false, Ordering::SeqCst);
        busy.store(true, Ordering::SeqCst);
        let mut out = io::stdout().lock();
        let reply = talk.reply(message, &stop, &mut |part| {
            out.write_all(part.as_bytes())?;
            out.flush()
        });
        busy.store(false, Ordering::SeqCst);
        let reply = reply?;
        writeln!(out)?;
        out.flush()?;
        describe(&reply, max_tokens);
        sums.replies += 1;
        sums.tokens += reply.tokens;
        sums.entropy += reply.entropy;
        sums.seconds += reply.seconds;
        Ok(())
    };
    if let Some(message) = &args.message {
        tell(&mut talk, message)?;
    } else {
        let mut lines = io::stdin().lock().lines();
        loop {
            if person {
                say_part!("> ");
            }
            let Some(line) = lines.next() else { break };
            let line = line.context("reading a message from stdin")?;
            match line.trim() {
                "" => {}
                "/exit" | "/quit" | "/bye" if person => break,
                "/new" if person => talk.begin_anew(),
                command if person && command.starts_with('/') => {
                    say!("/new begins anew, /exit leaves, Ctrl-C ends a reply");
                }
                message => match tell(&mut talk, message) {
                    // Somebody may say something else.
                    Err(error) if person => say!("{error:#}"),
                    told => told?,
                },
            }
        }
        if person {
            say!("");
        }
    }
    if json {
        let messages = talk.messages.iter().map(|m| json!({"role": m.role, "content": m.content}));
        let line = json!({
            "messages": messages.collect::<Vec<_>>(),
            "replies": sums.replies,
            "tokens": sums.tokens,
            "entropy": sums.entropy / sums.tokens.max(1) as f64,
            "seconds": sums.seconds,
            "tokens_per_s": sums.tokens as f64 / sums.seconds.max(1e-9),
        });
        output::line(&line.to_string())?;
    }
    Ok(())
}

/// The template of a file, the model's, or ChatML for a model that knows its markers; and the token in
/// front of ChatML, which other templates write themselves.
fn template(
    loaded: &LoadedModel,
    file: Option<&Path>,
) -> anyhow::Result<(ChatTemplate, Option<TokenId>)> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("reading the template {}", file.display()))?;
        let specials = loaded.chat_template.as_ref().map(|t| t.specials().clone());
        let template = ChatTemplate::new(&text, specials.unwrap_or_default())
            .with_context(|| format!("{}", file.display()))?;
        return Ok((template, None));
    }
    if let Some(template) = &loaded.chat_template {
        return Ok((template.clone(), None));
    }
    if loaded.tokenizer.token_id(TURN_START).is_none() {
        bail!(
            "the model has no chat template and no {TURN_START}: it is one that goes on with texts. \
             Name a template with --template FILE, or take its instruct version"
        );
    }
    Ok((ChatTemplate::new(CHAT_TEMPLATE, BTreeMap::new())?, loaded.tokenizer.begin()))
}

/// Ctrl-C ends a reply to a person, and the program otherwise.
fn watch(person: bool, stop: &Arc<AtomicBool>, busy: &Arc<AtomicBool>) {
    let (stop, busy) = (Arc::clone(stop), Arc::clone(busy));
    let handler = move || {
        if !person || !busy.load(Ordering::SeqCst) || stop.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    };
    // Only a second handler in one process is refused, and there is none.
    if let Err(error) = ctrlc::set_handler(handler) {
        say!("warning: Ctrl-C will end the program at once: {error}");
    }
}

/// A reply's figures.
fn describe(reply: &Reply, max_tokens: usize) {
    let how = match reply.end {
        End::Stopped => String::new(),
        End::Cut => format!("; cut off after {max_tokens} tokens (--max-tokens)"),
        End::Full => "; the model's context is full".to_owned(),
        End::Interrupted => "; ended by Ctrl-C".to_owned(),
    };
    let tokens = reply.tokens.max(1) as f64;
    say!(
        "({} tokens, mean entropy {:.2} nats, {:.0} tokens/s{how})",
        reply.tokens,
        reply.entropy / tokens,
        reply.tokens as f64 / reply.seconds.max(1e-9),
    );
}
