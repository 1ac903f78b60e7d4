//! `empg env score`: what a purchase, an answer or a comparison is worth.

use std::io::Write;

use anyhow::bail;
use clap::Args;
use empg_env::search::score::Scores;
use empg_env::webshop::{Purchase, token_set_ratio};
use serde::{Deserialize, Serialize};

use super::lines::{each_line, read, write_line};
use super::source::{DataArgs, fits};

/// Arguments of `empg env score`.
#[derive(Args, Debug)]
pub(super) struct ScoreArgs {
    /// webshop, search or token-set-ratio
    what: String,
    #[command(flatten)]
    data: DataArgs,
}

/// Scores lines.
pub(super) fn run(args: &ScoreArgs, out: &mut impl Write) -> anyhow::Result<()> {
    match args.what.as_str() {
        "webshop" if args.data.corpus.is_some() => {
            Ok(fits("webshop", "--corpus", true, &["search"])?)
        }
        "webshop" => purchases(&args.data, out),
        "search" => search(out),
        "token-set-ratio" => ratios(out),
        other => bail!("no score is called {other:?}: it is webshop, search or token-set-ratio"),
    }
}

#[derive(Serialize)]
struct Worth {
    reward: f64,
}

fn purchases(data: &DataArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let catalogue = data.catalogue()?;
    each_line(|line| {
        let purchase: Purchase = read(line)?;
        write_line(out, &Worth { reward: purchase.reward(&catalogue)?.total })
    })
}

#[derive(Serialize)]
struct Ratio {
    ratio: u32,
}

fn ratios(out: &mut impl Write) -> anyhow::Result<()> {
    each_line(|line| {
        let texts: Vec<String> = read(line)?;
        let [a, b] = texts.as_slice() else { bail!("expected two texts: [A, B]") };
        write_line(out, &Ratio { ratio: token_set_ratio(a, b) })
    })
}

#[derive(Deserialize)]
struct Answer {
    prediction: String,
    golden_answers: Answers,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answers {
    Many(Vec<String>),
    One(String),
}

#[derive(Serialize)]
struct AnswerScores {
    em: u8,
    subem: u8,
    f1: f64,
}

fn search(out: &mut impl Write) -> anyhow::Result<()> {
    each_line(|line| {
        let Answer { prediction, golden_answers } = read(line)?;
        let golden_answers = match golden_answers {
            Answers::Many(answers) => answers,
            Answers::One(answer) => vec![answer],
        };
        let Scores { em, subem, f1 } = Scores::of(&prediction, &golden_answers);
        write_line(out, &AnswerScores { em: em.into(), subem: subem.into(), f1 })
    })
}
