//! The files of a catalogue: where they are, and reading them as a stream.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::Deserializer;
use serde_json::de::IoRead;

use crate::EnvError;

const BUFFER: usize = 1 << 20;

/// An error about a file.
pub(super) fn data(path: &str, line: Option<usize>, what: &dyn Display) -> EnvError {
    EnvError::Data { path: path.to_owned(), line, what: what.to_string() }
}

/// The files that make a catalogue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) products: PathBuf,
    pub(super) instructions: PathBuf,
    pub(super) human: Vec<PathBuf>,
    pub(super) nouns: Vec<PathBuf>,
}

/// A file by the size in its name: `items_shuffle_1000.json` has 1000, `items_shuffle.json` none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sized {
    size: u64,
    path: PathBuf,
}

/// The size of a file without one in its name.
const FULL: u64 = u64::MAX;

impl Files {
    /// Finds the files in a folder, in its `webshop`, or beside a products file that is named.
    pub(super) fn find(path: &Path) -> Result<Self, EnvError> {
        if path.is_file() {
            let folder = path.parent().unwrap_or(Path::new("."));
            let products =
                Sized { size: size_of("items_shuffle", path).unwrap_or(FULL), path: path.into() };
            return Self::beside(folder, &[products]);
        }
        let mut folder = path.to_owned();
        let mut products = list(&folder, "items_shuffle")?;
        if products.is_empty() && path.join("webshop").is_dir() {
            folder = path.join("webshop");
            products = list(&folder, "items_shuffle")?;
        }
        Self::beside(&folder, &products)
    }

    fn beside(folder: &Path, products: &[Sized]) -> Result<Self, EnvError> {
        let shown = folder.display().to_string();
        let instructions = list(folder, "items_ins_v2")?;
        let own = |size: u64| instructions.iter().find(|file| file.size == size);
        let pair = products.iter().find_map(|p| Some((p, own(p.size)?)));
        let pair = pair.or_else(|| Some((products.first()?, own(FULL)?)));
        let Some((products, instructions)) = pair else {
            let what = if products.is_empty() {
                "no WebShop products here: expected items_shuffle_1000.json or items_shuffle.json \
                 (or .json.gz), as WebShop's setup.sh downloads them"
                    .to_owned()
            } else {
                format!(
                    "{} has no instruction file: expected items_ins_v2_1000.json or \
                     items_ins_v2.json (or .json.gz) of its size beside it",
                    products[0].path.display()
                )
            };
            return Err(data(&shown, None, &what));
        };
        let paths = |prefix| -> Result<Vec<PathBuf>, EnvError> {
            Ok(list(folder, prefix)?.into_iter().map(|file| file.path).collect())
        };
        Ok(Self {
            products: products.path.clone(),
            instructions: instructions.path.clone(),
            human: paths("items_human_ins")?,
            nouns: paths("title_nouns")?,
        })
    }
}

/// The size in a file's name; `None` where the name does not begin with `prefix` or is no JSON.
fn size_of(prefix: &str, path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_prefix(prefix)?;
    let rest = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".json")?;
    let digits = rest.trim_start_matches('_').split(|c: char| !c.is_ascii_digit()).next()?;
    Some(digits.parse().unwrap_or(FULL))
}

/// The files of a folder whose names begin with `prefix`, smallest first, each once: uncompressed
/// before gzipped.
fn list(folder: &Path, prefix: &str) -> Result<Vec<Sized>, EnvError> {
    let shown = folder.display().to_string();
    let entries = folder.read_dir().map_err(|e| data(&shown, None, &e))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| data(&shown, None, &e))?.path();
        if let Some(size) = size_of(prefix, &path)
            && path.is_file()
        {
            files.push(Sized { size, path });
        }
    }
    files.sort();
    let plain: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    files.retain(|file| {
        file.path.extension().is_none_or(|e| e != "gz")
            || !plain.contains(&file.path.with_extension(""))
    });
    Ok(files)
}

/// Something to read, with a name for errors.
pub(super) struct Input<R> {
    pub(super) name: String,
    reader: R,
}

impl Input<Box<dyn Read>> {
    /// A file, unpacked where its name ends with `.gz`.
    pub(super) fn open(path: impl AsRef<Path>) -> Result<Self, EnvError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| data(&name, None, &e))?;
        let reader: Box<dyn Read> = if path.extension().is_some_and(|e| e == "gz") {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file)))
        } else {
            Box::new(file)
        };
        Ok(Self { name, reader })
    }
}

impl<'a> Input<&'a [u8]> {
    /// Bytes in memory.
    pub(super) fn bytes(name: &str, reader: &'a [u8]) -> Self {
        Self { name: name.to_owned(), reader }
    }
}

impl<R: Read> Input<R> {
    /// Reads one JSON value and nothing behind it.
    pub(super) fn json<T>(
        self,
        read: impl FnOnce(&mut Deserializer<IoRead<BufReader<R>>>) -> Result<T, serde_json::Error>,
    ) -> Result<T, EnvError> {
        // Read byte by byte: the buffer must be the outermost reader.
        let mut json = Deserializer::from_reader(BufReader::with_capacity(BUFFER, self.reader));
        let value = read(&mut json).and_then(|value| json.end().map(|()| value));
        value.map_err(|e| {
            let line = (e.line() > 0).then(|| e.line());
            data(&self.name, line, &e)
        })
    }
}
