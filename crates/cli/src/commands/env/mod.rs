//! `empg env`: replay, list and time the environments; search, score, list goals, generate shops and
//! worlds, and read actions out of model texts.

mod bench;
mod generate;
mod goals;
mod lines;
mod list;
mod project;
mod replay;
mod replay_search;
mod replay_webshop;
mod score;
mod search;
mod source;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use empg_env::Split;

pub(crate) use source::{RuleArgs, Which};

/// Arguments of `empg env`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  empg env list households --split unseen --limit 5
  empg env bench households
  empg env replay webshop --data FOLDER < episodes.jsonl
  empg env generate search --out world")]
pub(crate) struct EnvArgs {
    #[command(subcommand)]
    command: EnvCommand,
}

#[derive(Debug, Subcommand)]
enum EnvCommand {
    /// Play recorded actions: JSONL in, JSONL out
    #[command(after_help = "\
Examples:
  echo '{\"task\": \"households/seen/0\", \"actions\": [\"look\"]}' | empg env replay households
  empg env replay webshop --data FOLDER < episodes.jsonl
  empg env replay search --corpus passages.jsonl.gz < episodes.jsonl

ENV alfworld, households:
  In:  {\"task\": ID, \"actions\": [TEXT…], \"data_version\"?: \"2.1.1\" | \"2.1.2+\", \"max_steps\"?: N}
       (2.1.2+ and 50 where left out; a null max_steps is no limit)
  Out: {\"task\": ID, \"steps\": [{\"action\", \"observation\", \"admissible\", \"reward\", \"done\", \"won\"}…]}
ENV webshop:
  In:  {\"env_seed\", \"session\", \"actions\": [TEXT…], \"mode\"?: \"text\" | \"text_rich\",
        \"human_goals\"?: false, \"max_steps\"?: N (none where left out)}; or \"task\" instead of
       \"env_seed\" and \"session\"
  Out: the same fields and \"steps\": [{\"action\", \"observation\", \"reward\", \"done\", \"won\",
        \"admissible\": {\"has_search_bar\", \"clickables\"}, null at the end}…]
ENV search (passages from --corpus, or from the folder of --data):
  In:  {\"question\", \"golden_answers\", \"actions\": [MODEL OUTPUT…], \"max_turns\"?: 4, \"topk\"?: 3,
        \"protocol\"?: \"verl-agent\" | \"search-r1\"}
  Out: the same fields and \"steps\": [{\"action\", \"observation\", \"reward\", \"done\", \"won\"}…]
The first step is the reset, its action null. Actions after the end of the episode are not
played; \"unplayed\" counts them.")]
    Replay(Which),
    /// List the tasks as JSONL
    #[command(after_help = "\
Examples:
  empg env list alfworld --data ~/.cache/alfworld --split valid_seen
  empg env list households --split unseen --limit 100
  empg env list webshop --data FOLDER --env-seed 1 --split unseen")]
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        rules: RuleArgs,
        /// train, seen (valid_seen) or unseen (valid_unseen); all three where left out
        #[arg(long, value_parser = split)]
        split: Option<Split>,
        /// At most so many tasks of a split (10 where the environment generates without end)
        #[arg(long)]
        limit: Option<u64>,
    },
    /// Time an environment on one core: steps with observation and admissible list built; in webshop
    /// and search, plausible searches, clicks, purchases and answers
    #[command(after_help = "\
Examples:
  empg env bench households --json      prints {\"steps_per_s\", …}
  empg env bench openenv --url http://127.0.0.1:8000 --at-once 64")]
    Bench {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        rules: RuleArgs,
        /// How long to play
        #[arg(long, default_value_t = 2.0, value_parser = seconds)]
        seconds: f64,
        /// So many environments side by side, each on a thread of its own
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
        at_once: u16,
    },
    /// Read the action out of model texts: {"raw"} in, {"action", "valid"} out
    #[command(after_help = "\
Example:
  echo '{\"raw\": \"<think>hm</think><action>look</action>\"}' | empg env project alfworld

ENV is alfworld, households, webshop or search.")]
    Project {
        /// Whose convention
        env: String,
        /// Taken as by every command here; a convention needs no data
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Search the passages or the shop: queries in, {"query", "hits": [[ID, SCORE]…]} out
    #[command(after_help = "\
Example:
  echo '{\"query\": \"capital of France\"}' | empg env search search --corpus passages.jsonl --top 3

In: {\"query\": TEXT} or a JSON text a line. Scores are those that Anserini reports.")]
    Search(search::SearchArgs),
    /// Score answers and purchases: JSONL in, JSONL out
    #[command(after_help = "\
Example:
  echo '{\"prediction\": \"Paris!\", \"golden_answers\": [\"paris\"]}' | empg env score search

webshop:         {\"purchased_asin\", \"price\", \"options\", \"goal\": {\"asin\", \"query\", \"name\",
                  \"product_category\", \"attributes\", \"price_upper\", \"goal_options\": an object
                  in synthetic goals, a list in people's}} → {\"reward\"}
token-set-ratio: [A, B] → {\"ratio\"}
search:          {\"prediction\", \"golden_answers\"} → {\"em\", \"subem\", \"f1\"}")]
    Score(score::ScoreArgs),
    /// List the goals of a shop in the order of a seed, as JSONL
    #[command(after_help = "\
Example:
  empg env goals webshop --data FOLDER --env-seed 1")]
    Goals(goals::GoalsArgs),
    /// Write the files of a generated shop or world, in the formats of the real ones
    #[command(after_help = "\
Examples:
  empg env generate webshop --out shop --products 100000 --seed 1
  empg env generate search --out world
  empg serve retrieval --corpus world/corpus.jsonl")]
    Generate(generate::GenerateArgs),
}

/// Reads the name of a split.
///
/// # Errors
/// Another name.
pub(crate) fn split(name: &str) -> Result<Split, String> {
    match name {
        "train" => Ok(Split::Train),
        "seen" | "valid_seen" => Ok(Split::Seen),
        "unseen" | "valid_unseen" => Ok(Split::Unseen),
        _ => Err("it is train, seen (valid_seen) or unseen (valid_unseen)".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("it is a number of seconds above 0, at most 3600".to_owned()),
    }
}

/// Runs `empg env`.
///
/// # Errors
/// Data that cannot be read, input that is not as described, an unknown task.
pub(crate) fn run(args: EnvArgs, json: bool) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match args.command {
        EnvCommand::Replay(which) => match which.env.as_str() {
            "webshop" => replay_webshop::run(&which, &mut out),
            "search" => replay_search::run(&which, &mut out),
            _ => replay::run(&which.open()?, &mut out),
        },
        EnvCommand::List { which, rules, split, limit } => {
            let options = rules.options(&which)?;
            list::run(&which.open()?, options, split, limit, &mut out)
        }
        EnvCommand::Bench { which, rules, seconds, at_once } => {
            let options = rules.options(&which)?;
            bench::run(&which, options, seconds, at_once, json, &mut out)
        }
        EnvCommand::Project { env, data: _ } => project::run(&env, &mut out),
        EnvCommand::Search(args) => search::run(&args, &mut out),
        EnvCommand::Score(args) => score::run(&args, &mut out),
        EnvCommand::Goals(args) => goals::run(&args, &mut out),
        EnvCommand::Generate(args) => generate::generate(&args, &mut out),
    };
    // What came before an error is still of use.
    out.flush()?;
    done
}
