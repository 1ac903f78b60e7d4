//! `empg env generate`: the files of a generated shop or world, in the formats of the real ones.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use empg_env::search::generated::{GeneratedQuestion, knowledge_base};
use empg_env::webshop::generated::{PRODUCTS, write_catalogue};
use serde_json::json;

use super::source::fits;

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
    /// webshop: products [default: 1000]
    #[arg(long, value_name = "N")]
    products: Option<usize>,
}

/// Runs the command; prints the files that it wrote.
pub(crate) fn generate(args: &GenerateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let GenerateArgs { env, out: folder, seed, products } = args;
    fits(env, "--products", products.is_some(), &["webshop"])?;
    let products = &products.unwrap_or(PRODUCTS);
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
    let paths: Vec<PathBuf> = files.iter().map(|name| folder.join(name)).collect();
    // Nothing that lies there is written over.
    if let Some(there) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        bail!("cannot make {}: it is there already", there.display());
    }
    let mut made = Made::default();
    made.folder(folder)?;
    let mut writers = Vec::with_capacity(paths.len());
    for path in &paths {
        writers.push(made.file(path)?);
    }
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
    }
    made.keep();
    for path in &paths {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// What this call made: taken away again unless it is kept, since half of a shop is no shop, and the
/// next call would not write over it.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    /// The innermost first.
    folders: Vec<PathBuf>,
}

impl Made {
    fn folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        let new = folder.ancestors().take_while(|path| path.symlink_metadata().is_err());
        self.folders = new.map(Path::to_owned).collect();
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
    }

    fn file(&mut self, path: &Path) -> anyhow::Result<BufWriter<File>> {
        let file = File::create_new(path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        self.files.push(path.to_owned());
        Ok(BufWriter::new(file))
    }

    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        // A folder that somebody else uses by now is not empty and stays.
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, mine) = (dir.path().join("a/b"), dir.path().join("mine"));
        fs::write(&mine, "mine").unwrap();
        for keep in [false, true] {
            let mut made = Made::default();
            made.folder(&folder).unwrap();
            made.file(&folder.join("x")).unwrap().write_all(b"x").unwrap();
            assert!(made.file(&mine).is_err());
            if keep {
                made.keep();
            } else {
                drop(made);
            }
            assert_eq!(dir.path().join("a").exists(), keep);
        }
        assert!(folder.join("x").exists() && mine.exists());
    }
}
