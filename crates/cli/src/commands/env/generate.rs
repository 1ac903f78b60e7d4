//! `empg env generate`: the files of a generated shop or world, in the formats of the real ones.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use empg_env::search::generated::{GeneratedQuestion, knowledge_base};
use empg_env::webshop::generated::{PRODUCTS, write_catalogue};
use serde_json::json;

/// Arguments of `empg env generate`.
#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// webshop or search
    env: String,
    /// Folder for the files; made where it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which shop or world; 0 is the one that is played without --data
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// webshop: products
    #[arg(long, value_name = "N", default_value_t = PRODUCTS)]
    products: usize,
}

/// Runs the command; prints the files that it wrote.
pub(crate) fn generate(args: &GenerateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let GenerateArgs { env, out: folder, seed, products } = args;
    let files = match env.as_str() {
        "webshop" => [
            format!("items_shuffle_{products}.json"),
            format!("items_ins_v2_{products}.json"),
            format!("title_nouns_{products}.json"),
        ]
        .to_vec(),
        "search" => vec!["corpus.jsonl".to_owned(), "questions.jsonl".to_owned()],
        _ => bail!("{env:?} has no files to generate: there are webshop and search"),
    };
    if *products == 0 {
        bail!("--products must be at least 1");
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let paths: Vec<PathBuf> = files.iter().map(|name| folder.join(name)).collect();
    // Nothing that lies there is written over.
    let mut writers = paths.iter().map(|p| create(p)).collect::<anyhow::Result<Vec<_>>>()?;
    match (env.as_str(), &mut writers[..]) {
        ("webshop", [items, instructions, nouns]) => {
            write_catalogue(*seed, *products, items, instructions, nouns)?;
        }
        (_, [corpus, questions]) => {
            let base = knowledge_base(*seed);
            for (id, contents) in &base.passages {
                writeln!(corpus, "{}", json!({ "id": id, "contents": contents }))?;
            }
            let splits = [
                ("train", &base.questions.train),
                ("seen", &base.questions.seen),
                ("unseen", &base.questions.unseen),
            ];
            for (split, all) in splits {
                for (index, question) in all.iter().enumerate() {
                    let GeneratedQuestion { question, golden_answers, hops, .. } = question;
                    let row = json!({
                        "id": format!("{split}-{index}"), "data_source": format!("{hops} hops"),
                        "question": question, "golden_answers": golden_answers,
                        "metadata": { "split": split },
                    });
                    writeln!(questions, "{row}")?;
                }
            }
        }
        _ => {}
    }
    for (writer, path) in writers.iter_mut().zip(&paths) {
        writer.flush().with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::create_new(path)
        .with_context(|| format!("cannot make {} (is it there already?)", path.display()))?;
    Ok(BufWriter::new(file))
}
