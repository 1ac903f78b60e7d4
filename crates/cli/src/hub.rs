//! Models by their id on the Hugging Face Hub, kept in the cache that Python's tools use too.
//!
//! `HF_HOME` and `HF_HUB_CACHE` say where the cache is, `HF_TOKEN` who asks, `HF_ENDPOINT` whom,
//! and `HF_HUB_OFFLINE` that nobody is to be asked.

use std::env;
use std::io::IsTerminal as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use empg_llm::{CONFIG_FILE, INDEX_FILE, MODEL_FILE, TOKENIZER_FILE, index_files};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::api::{Progress, RepoInfo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Read where a repository has them.
const OPTIONAL: [&str; 4] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];
/// Times that a broken download goes on from where it was.
const RETRIES: u32 = 4;
/// Before the first of them; the next waits twice as long.
const PAUSE: Duration = Duration::from_millis(400);

/// `owner/name`, `owner/name@revision`, or one GGUF file of such a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubId {
    name: String,
    revision: String,
    /// `owner/name/file.gguf` names a file.
    file: Option<String>,
}

impl HubId {
    /// Reads an id; nothing if the text cannot be one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let word = |part: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && part.chars().all(legal) && !part.starts_with('.')
        };
        let mut parts = path.split('/');
        let (owner, name) = (parts.next()?, parts.next()?);
        let file = parts.next().map(str::to_owned);
        let rest = [owner, name].into_iter().chain(file.as_deref()).all(word);
        let whole = rest && parts.next().is_none() && word(revision);
        let gguf = file.as_deref().is_none_or(|f| Path::new(f).extension().is_some_and(is_gguf));
        (whole && gguf).then(|| Self {
            name: format!("{owner}/{name}"),
            revision: revision.to_owned(),
            file,
        })
    }
}

fn is_gguf(extension: &std::ffi::OsStr) -> bool {
    extension.eq_ignore_ascii_case("gguf")
}

/// The folder of a repository's files, or the path of the one file that the id names. Downloads
/// what is not there yet, with a progress bar on a terminal.
pub(crate) fn fetch(id: &HubId) -> anyhow::Result<PathBuf> {
    let cache = Cache::new(cache_dir()?);
    let repo = Repo::with_revision(id.name.clone(), RepoType::Model, id.revision.clone());
    let found = cached(&cache, &repo, id);
    if offline() {
        return found.ok_or_else(|| {
            anyhow!(
                "{} is not in {}, and HF_HUB_OFFLINE forbids to download it",
                id.name,
                cache.path().display()
            )
        });
    }
    match download(&cache, &repo, id) {
        Ok(path) => Ok(path),
        // Without a network yesterday's files are better than none.
        Err(error) if found.is_some() && unreachable(&error) => {
            let found = found.unwrap_or_default();
            crate::say!("warning: {error:#}; taking {}", found.display());
            Ok(found)
        }
        Err(error) => Err(error).with_context(|| format!("downloading {}", id.name)),
    }
}

/// What the cache holds of the revision, if it is all there.
fn cached(cache: &Cache, repo: &Repo, id: &HubId) -> Option<PathBuf> {
    let kept = cache.path().join(repo.folder_name());
    // A commit has no name there when Python's tools have brought it.
    let commit = std::fs::read_to_string(kept.join("refs").join(&id.revision));
    let commit = commit.map_or_else(|_| id.revision.clone(), |text| text.trim().to_owned());
    if !is_plain(&commit) {
        return None;
    }
    let dir = kept.join("snapshots").join(commit);
    let get = |file: &str| Some(dir.join(file)).filter(|path| path.exists());
    if let Some(file) = &id.file {
        return get(file);
    }
    get(CONFIG_FILE)?;
    get(TOKENIZER_FILE)?;
    if get(MODEL_FILE).is_none() {
        let index = std::fs::read(get(INDEX_FILE)?).ok()?;
        if !index_files(&index).ok()?.keys().all(|file| get(file).is_some()) {
            return None;
        }
    }
    Some(dir)
}

/// Whether a text names something inside a folder and nothing outside it.
fn is_below(name: &str) -> bool {
    let path = Path::new(name);
    path.file_name().is_some() && path.components().all(|c| matches!(c, Component::Normal(_)))
}

/// Whether that is in the folder itself.
fn is_plain(name: &str) -> bool {
    is_below(name) && Path::new(name).components().count() == 1
}

fn download(cache: &Cache, repo: &Repo, id: &HubId) -> anyhow::Result<PathBuf> {
    // Retries are made here: the library's own go on from the beginning where its first try sent
    // nothing, behind what an earlier process left.
    let mut builder = ApiBuilder::from_cache(cache.clone())
        .with_progress(false)
        .with_retries(0)
        .with_user_agent("empg", env!("CARGO_PKG_VERSION"))
        .with_token(token(cache));
    if let Some(endpoint) = variable("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let api = builder.build()?;
    let about = api.repo(repo.clone()).info().map_err(in_words)?;
    let commit_is_plain = about.sha.chars().all(|c| c.is_ascii_alphanumeric());
    if about.sha.is_empty() || !commit_is_plain {
        bail!("the server names a commit {:?}", about.sha);
    }
    // By its commit, so that all files are of one; the revision means that commit once they are
    // there, and what it meant until then stays in use.
    let at = Repo::with_revision(id.name.clone(), RepoType::Model, about.sha.clone());
    let own_name = cache.path().join(at.folder_name()).join("refs").join(&about.sha);
    let named = own_name.exists();
    let source = Source { api, files: cache.repo(at.clone()), repo: at, about };
    let found = source.files(id);
    if !named {
        // The library's name for the commit. Python's tools have none for it.
        let _ = std::fs::remove_file(&own_name);
    }
    let found = found?;
    if id.revision != source.about.sha {
        cache.repo(repo.clone()).create_ref(&source.about.sha)?;
    }
    Ok(found)
}

/// A commit of a repository, and where its files are kept.
struct Source {
    api: Api,
    files: CacheRepo,
    repo: Repo,
    about: RepoInfo,
}

impl Source {
    /// The folder of a repository's files, or the one that the id names.
    fn files(&self, id: &HubId) -> anyhow::Result<PathBuf> {
        let snapshot = self.files.pointer_path(&self.about.sha);
        let has = |file: &str| self.about.siblings.iter().any(|s| s.rfilename == file);
        let get = |file: &str| -> anyhow::Result<PathBuf> {
            let path = snapshot.join(file);
            if path.exists() {
                return Ok(path);
            }
            if !has(file) {
                bail!("{} has no {file}; it has {}", id.name, listed(&self.about.siblings));
            }
            self.bring(file, &path).with_context(|| file.to_owned())?;
            Ok(path)
        };
        if let Some(file) = &id.file {
            return get(file);
        }
        get(CONFIG_FILE)?;
        get(TOKENIZER_FILE)?;
        for file in OPTIONAL {
            if has(file) {
                get(file)?;
            }
        }
        if has(MODEL_FILE) || !has(INDEX_FILE) {
            get(MODEL_FILE)?;
        } else {
            let path = get(INDEX_FILE)?;
            let index = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let shards = index_files(&index).map_err(|e| anyhow!("{INDEX_FILE}: {e}"))?;
            for file in shards.keys() {
                get(file)?;
            }
        }
        Ok(snapshot)
    }

    /// Puts a file at its place in the commit's folder: what an earlier commit has the same of is
    /// there already, anything else is downloaded.
    fn bring(&self, file: &str, place: &Path) -> anyhow::Result<()> {
        let url = self.api.repo(self.repo.clone()).url(file);
        let about = self.api.metadata(&url).map_err(in_words)?;
        let (tag, commit, size) = (about.etag(), about.commit_hash(), about.size() as u64);
        if !is_below(tag) || commit != self.about.sha {
            bail!("the server sends {tag:?} of the commit {commit:?}");
        }
        let blob = self.files.blob_path(tag);
        // The tags of some servers are paths (`W/"…"`); those do not say that contents are equal.
        if is_plain(tag) && length(&blob) == Some(size) {
            return link(&blob, place);
        }
        let part = blob.with_extension("part");
        for attempt in ["first", "last"] {
            remove_whole(&blob, &part, size)?;
            // A link to a file that is gone.
            if length(place).is_none() {
                remove(place)?;
            }
            self.download(file)?;
            match length(place) {
                Some(have) if have == size => return Ok(()),
                have => {
                    // Whatever it is, it is not the file, and is not to be gone on from.
                    for path in [place, &blob, &part] {
                        remove(path)?;
                    }
                    if attempt == "last" {
                        bail!("{} bytes have come, of {size}", have.unwrap_or(0));
                    }
                }
            }
        }
        Ok(())
    }

    /// Downloads a file, going on from where an earlier process, or an earlier try, was.
    fn download(&self, file: &str) -> anyhow::Result<()> {
        let repo = self.api.repo(self.repo.clone());
        let terminal = std::io::stderr().is_terminal();
        if !terminal {
            crate::say!("downloading {file}");
        }
        let mut tries = 0;
        loop {
            let bar = Bar(if terminal {
                ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
            } else {
                ProgressBar::hidden()
            });
            let Err(error) = repo.download_with_progress(file, bar) else { return Ok(()) };
            // A server that refuses will do so again.
            let broken = matches!(error, ApiError::RequestError(_) | ApiError::IoError(_));
            if !broken || status(&error).is_some_and(|code| code < 500 && code != 429) {
                return Err(in_words(error));
            }
            if tries == RETRIES {
                return Err(in_words(ApiError::TooManyRetries(Box::new(error))));
            }
            std::thread::sleep(PAUSE * 2_u32.pow(tries));
            tries += 1;
        }
    }
}

fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|about| about.len())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Removes what an earlier process left of a download where nothing is missing of it: a server has
/// nothing to send behind its end. Another that is about to put it in its place holds the lock.
fn remove_whole(blob: &Path, part: &Path, size: u64) -> anyhow::Result<()> {
    if length(part).is_none_or(|have| have < size) {
        return Ok(());
    }
    let lock = std::fs::File::create(blob.with_extension("lock"))?;
    if lock.try_lock().is_ok() {
        remove(part).with_context(|| part.display().to_string())?;
    }
    Ok(())
}

/// Makes a commit's file one that is there already.
fn link(blob: &Path, place: &Path) -> anyhow::Result<()> {
    let what = || place.display().to_string();
    if let Some(dir) = place.parent() {
        std::fs::create_dir_all(dir).with_context(what)?;
    }
    remove(place).with_context(what)?;
    // From snapshots/COMMIT to blobs; nothing here lies deeper.
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(
        Path::new("../../blobs").join(blob.file_name().unwrap_or_default()),
        place,
    );
    #[cfg(not(unix))]
    let made = std::fs::hard_link(blob, place);
    match made {
        // Another process was faster.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.with_context(what),
    }
}

fn listed(files: &[hf_hub::api::Siblings]) -> String {
    const MOST: usize = 12;
    let mut names: Vec<&str> = files.iter().map(|s| s.rfilename.as_str()).collect();
    names.sort_unstable();
    let more = if names.len() > MOST { ", …" } else { "" };
    names.truncate(MOST);
    format!("{}{more}", names.join(", "))
}

/// A download's progress on stderr.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, file: &str) {
        let style = "{msg} {wide_bar} {binary_bytes} / {binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.0.set_style(style);
        }
        self.0.set_length(size as u64);
        self.0.set_position(0);
        self.0.set_message(file.to_owned());
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The library's errors with what helps.
fn in_words(error: ApiError) -> anyhow::Error {
    let hint = match status(&error) {
        Some(401 | 403) => "the repository is private, gated or does not exist: set HF_TOKEN",
        Some(404) => "there is no such repository, revision or file",
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(hint)
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::TooManyRetries(cause) => status(cause),
        ApiError::RequestError(cause) => {
            let text = cause.to_string();
            text.strip_prefix("http status: ")?.trim().parse().ok()
        }
        _ => None,
    }
}

/// The server gave no answer, or none that says anything about the repository.
fn unreachable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<ApiError>() {
        Some(error @ (ApiError::RequestError(_) | ApiError::TooManyRetries(_))) => {
            status(error).is_none_or(|code| code >= 500)
        }
        _ => false,
    })
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn offline() -> bool {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| {
        variable(name)
            .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    })
}

fn token(cache: &Cache) -> Option<String> {
    let file = path("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")));
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
        .iter()
        .find_map(|name| variable(name))
        .or_else(|| std::fs::read_to_string(file?).ok())
        .or_else(|| cache.token())
        .map(|token| token.trim().to_owned())
        .filter(|token| !token.is_empty())
}

/// The folder of everything that Hugging Face's tools keep.
fn home() -> Option<PathBuf> {
    let under = |dir: PathBuf| dir.join("huggingface");
    path("HF_HOME")
        .or_else(|| Some(under(path("XDG_CACHE_HOME")?)))
        .or_else(|| Some(under(env::home_dir()?.join(".cache"))))
}

fn cache_dir() -> anyhow::Result<PathBuf> {
    path("HF_HUB_CACHE")
        .or_else(|| Some(home()?.join("hub")))
        .context("there is no home directory to keep models in: set HF_HOME")
}

/// A variable that names a path. A shell leaves `~` as it is in the middle of a word and in files of
/// variables; Python's tools read it as the home directory.
fn path(name: &str) -> Option<PathBuf> {
    let text = variable(name)?;
    let below = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => return Some(text.into()),
    };
    Some(env::home_dir().map_or_else(|| text.clone().into(), |home| home.join(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_folder() {
        for (name, below, plain) in [
            ("0a1b", true, true),
            ("W/0a1b", true, false),
            ("../0a1b", false, false),
            ("/0a1b", false, false),
            ("..", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_below(name), is_plain(name)), (below, plain), "{name}");
        }
    }

    #[test]
    fn ids() {
        let id = |text| HubId::parse(text).map(|id| (id.name, id.revision, id.file));
        let plain = |name: &str| Some((name.to_owned(), "main".to_owned(), None));
        assert_eq!(id("Qwen/Qwen2.5-0.5B-Instruct"), plain("Qwen/Qwen2.5-0.5B-Instruct"));
        assert_eq!(id("a/b@v1.0"), Some(("a/b".into(), "v1.0".into(), None)));
        assert_eq!(
            id("a/b/m-Q4_0.GGUF"),
            Some(("a/b".into(), "main".into(), Some("m-Q4_0.GGUF".into())))
        );
        for other in
            ["tiny", "a/", "/a/b", "../b", "a/..", "a/b/c", "a/b/c/d.gguf", "a b/c", "a/b@"]
        {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
