//! Models by their id, from a server that speaks the Hub's protocol and notes what it is asked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use empg_llm::{
    Dtype, LoraConfig, adapter_files, load_directory, load_gguf, load_path, write_files,
};

use crate::program::{Ran, empg, golden};

/// A commit's name.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The next one's, which has another [`CHANGED`].
const NEXT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const CHANGED: &str = "generation_config.json";
/// What is asked of the model.
const LINE: &str = "{\"tokens\":[5,6,7,8]}\n";

/// What the server is to do with the repository's large file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Send it, as the Hub does by way of another address.
    Redirect,
    /// Break off in the middle, once, and then go on from where it is asked to.
    Break,
    /// Be unable to at the first time.
    Unable,
}

/// What changes at the server.
#[derive(Debug)]
struct State {
    /// What the revisions mean.
    commit: &'static str,
    /// A file that cannot be had at present.
    without: &'static str,
}

struct Hub {
    url: String,
    state: Arc<Mutex<State>>,
    asked: Arc<Mutex<Vec<String>>>,
    home: PathBuf,
}

impl Hub {
    /// Serves the files of a folder as `owner/name`, to whoever has the token.
    fn start(name: &str, folder: &Path, token: &'static str, manner: Manner) -> Self {
        let mut files = BTreeMap::new();
        for file in fs::read_dir(folder).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            files.insert(name, fs::read(file.path()).unwrap());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let state = Arc::new(Mutex::new(State { commit: COMMIT, without: "" }));
        let now = Arc::clone(&state);
        thread::spawn(move || {
            let files = Arc::new(files);
            for stream in listener.incoming().flatten() {
                let (files, seen, now) = (Arc::clone(&files), Arc::clone(&seen), Arc::clone(&now));
                thread::spawn(move || answer(stream, &files, token, manner, &now, &seen));
            }
        });
        let home = std::env::temp_dir().join(format!("empg-hub-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        Self { url, state, asked, home }
    }

    /// Where the repository is kept.
    fn kept(&self) -> PathBuf {
        self.home.join("hub/models--owner--name")
    }

    fn becomes(&self, commit: &'static str, without: &'static str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { commit, without };
    }

    fn score(&self, id: &str, variables: &[(&str, &str)]) -> Ran {
        self.run(&["score", "--threads", "1", "--model", id], variables)
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = empg();
        for name in ["HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "http_proxy"] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("HF_HOME", &self.home)
            .env("HF_ENDPOINT", &self.url)
            .env("HF_TOKEN", "secret")
            .env("NO_PROXY", "127.0.0.1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that fails early does not read.
        let _ = child.stdin.take().unwrap().write_all(LINE.as_bytes());
        child.wait_with_output().unwrap().into()
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn answer(
    stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    token: &str,
    manner: Manner,
    state: &Mutex<State>,
    seen: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut out = stream;
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut range, mut authorised) = (None, token.is_empty());
        loop {
            let mut header = String::new();
            if lines.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(bytes) = header.strip_prefix("range: bytes=") {
                let (from, to) = bytes.split_once('-').unwrap();
                range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().ok()));
            }
            authorised |= header == format!("authorization: bearer {token}");
        }
        // The client asks for one byte first, to learn the size.
        let mark = match range {
            Some((from, None)) => format!(" from {from}"),
            _ => String::new(),
        };
        let first_time = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(format!("{path}{mark}"));
            seen.iter().filter(|s| **s == format!("{path}{mark}")).count() == 1
        };
        let State { commit, without } = *state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reply = |status: &str, headers: &str, body: &[u8], promised: usize| {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {promised}\r\n{headers}\r\n");
            out.write_all(head.as_bytes()).and_then(|()| out.write_all(body))
        };
        let sent = if !authorised && path.starts_with("/api") {
            reply("401 Unauthorized", "", b"", 0)
        } else if let Some(name) =
            path.strip_prefix("/api/models/owner/name/revision/").filter(|name| revision(name))
        {
            let commit = meant(name, commit);
            let names: Vec<_> =
                files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let about = serde_json::json!({ "sha": commit, "siblings": names }).to_string();
            reply("200 OK", "Content-Type: application/json\r\n", about.as_bytes(), about.len())
        } else if let Some((at, name)) = path
            .strip_prefix("/owner/name/resolve/")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(name, _)| revision(name))
            .map(|(at, name)| (meant(at, commit), name))
        {
            let tag = if (at, name) == (NEXT, CHANGED) { "other" } else { "etag" };
            let about = format!("X-Repo-Commit: {at}\r\nETag: \"{tag}-{name}\"\r\n");
            match files.get(name) {
                None => reply("404 Not Found", "", b"", 0),
                Some(_) if name == without => reply("503 Service Unavailable", "", b"", 0),
                // The Hub sends large files from elsewhere.
                Some(_) if name.ends_with(".safetensors") => {
                    let place = format!(
                        "{about}X-Linked-Etag: \"etag-{name}\"\r\nLocation: /far/{name}\r\n"
                    );
                    reply("302 Found", &place, b"", 0)
                }
                Some(bytes) => send(&mut reply, bytes, range, &about, false),
            }
        } else if let Some((name, bytes)) =
            path.strip_prefix("/far/").and_then(|name| files.get_key_value(name))
        {
            let whole = range.is_some_and(|(_, to)| to.is_none());
            if manner == Manner::Unable && whole && first_time {
                let _ = reply("503 Service Unavailable", "", b"", 0);
                continue;
            }
            let broken = manner == Manner::Break && whole && first_time && range.unwrap().0 == 0;
            let about = format!("X-Repo-Commit: {commit}\r\nETag: \"etag-{name}\"\r\n");
            if send(&mut reply, bytes, range, &about, broken).is_ok() && broken {
                return;
            }
            Ok(())
        } else {
            reply("404 Not Found", "", b"", 0)
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The commit that a revision is at present; a commit is itself.
fn meant<'a>(revision: &'a str, newest: &'a str) -> &'a str {
    if revision.len() == COMMIT.len() { revision } else { newest }
}

/// Whether the repository has a revision.
fn revision(name: &str) -> bool {
    matches!(name, "main" | "v1" | COMMIT | NEXT)
}

/// Writes status, headers, body and the length that is promised for it.
type Reply<'a> = dyn FnMut(&str, &str, &[u8], usize) -> std::io::Result<()> + 'a;

fn send(
    reply: &mut Reply<'_>,
    bytes: &[u8],
    range: Option<(usize, Option<usize>)>,
    headers: &str,
    broken: bool,
) -> std::io::Result<()> {
    let (from, to) = range.unwrap_or((0, None));
    if from >= bytes.len() {
        return reply("416 Range Not Satisfiable", headers, b"", 0);
    }
    let to = to.map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
    let part = &bytes[from.min(to)..to];
    let headers = format!(
        "{headers}Content-Range: bytes {from}-{}/{}\r\n",
        to.saturating_sub(1),
        bytes.len()
    );
    let sent = if broken { &part[..part.len() / 2] } else { part };
    reply("206 Partial Content", &headers, sent, part.len())
}

/// What the same files give from their folder.
fn local(name: &str) -> String {
    let mut child = empg()
        .args(["score", "--threads", "1", "--model"])
        .arg(golden(name))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(LINE.as_bytes()).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(text.contains("\"logprobs\":[null,-"), "{text}");
    text
}

#[test]
fn a_repository_is_downloaded_once_and_then_found_offline() {
    let hub = Hub::start("once", &golden("qwen2-tiny"), "secret", Manner::Redirect);
    let expected = local("qwen2-tiny");
    let ran = hub.score("owner/name", &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("HF_HUB_OFFLINE"), "{}", ran.stderr);
    assert!(hub.asked().is_empty());

    let ran = hub.score("owner/name", &[]);
    assert_eq!((ran.code, &ran.stdout), (Some(0), &expected), "{}", ran.stderr);
    assert!(ran.stderr.contains("downloading model-00003-of-00003.safetensors"), "{}", ran.stderr);
    let asked = hub.asked();
    assert!(asked.iter().all(|path| !path.contains("expected.json")), "{asked:?}");

    let ran = hub.score("owner/name", &[]);
    assert_eq!((ran.code, &ran.stdout), (Some(0), &expected), "{}", ran.stderr);
    assert_eq!(hub.asked(), ["/api/models/owner/name/revision/main"]);
    let ran = hub.score("owner/name", &[("HF_HUB_OFFLINE", "true")]);
    assert_eq!((ran.code, &ran.stdout), (Some(0), &expected), "{}", ran.stderr);
    assert!(hub.asked().is_empty());
    // Nobody answers there.
    let ran = hub.score("owner/name", &[("HF_ENDPOINT", "http://127.0.0.1:9")]);
    assert_eq!((ran.code, &ran.stdout), (Some(0), &expected), "{}", ran.stderr);
    assert!(ran.stderr.contains("warning"), "{}", ran.stderr);
}

#[test]
fn a_broken_download_goes_on() {
    let hub = Hub::start("broken", &golden("qwen3-tiny"), "", Manner::Break);
    let ran = hub.score("owner/name", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, local("qwen3-tiny"));
    let far: Vec<String> =
        hub.asked().into_iter().filter(|path| path.starts_with("/far/")).collect();
    let size = fs::metadata(golden("qwen3-tiny").join("model.safetensors")).unwrap().len();
    assert!(far.contains(&format!("/far/model.safetensors from {}", size / 2)), "{far:?}");
}

#[test]
fn what_an_earlier_process_left_of_a_download_does_no_harm() {
    let hub = Hub::start("left", &golden("qwen3-tiny"), "", Manner::Unable);
    let whole = fs::read(golden("qwen3-tiny").join("model.safetensors")).unwrap();
    let half = &whole[..whole.len() / 2];
    let more = [&whole[..], half].concat();
    let expected = local("qwen3-tiny");
    let blobs = hub.kept().join("blobs");
    // Half of it, all of it before it got its name, and more than all.
    for left in [half, &whole, &more] {
        let _ = fs::remove_dir_all(&hub.home);
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("etag-model.part"), left).unwrap();
        hub.asked();
        let ran = hub.score("owner/name", &[]);
        let blob = fs::read(blobs.join("etag-model.safetensors")).unwrap_or_default();
        assert_eq!(blob.len(), whole.len(), "{}", ran.stderr);
        assert_eq!((ran.code, &ran.stdout), (Some(0), &expected), "{}", ran.stderr);
        let from = if left.len() < whole.len() { left.len() } else { 0 };
        let asked = hub.asked();
        let mark = format!("/far/model.safetensors from {from}");
        assert_eq!(asked.iter().filter(|path| **path == mark).count(), 2, "{asked:?}");
    }
}

#[test]
fn a_new_commit_brings_what_is_new_and_takes_nothing_away() {
    let hub = Hub::start("next", &golden("qwen2-tiny"), "secret", Manner::Redirect);
    let expected = local("qwen2-tiny");
    let score = |id: &str, offline: &str| {
        let ran = hub.score(id, &[("HF_HUB_OFFLINE", offline)]);
        assert_eq!((ran.code, &ran.stdout), (Some(0), &expected), "{}", ran.stderr);
        ran.stderr
    };
    score("owner/name", "0");
    let name = || fs::read_to_string(hub.kept().join("refs/main")).unwrap();
    assert_eq!(name(), COMMIT);

    hub.becomes(NEXT, CHANGED);
    assert!(score("owner/name", "0").contains("warning"));
    assert_eq!(name(), COMMIT);
    score("owner/name", "1");

    hub.becomes(NEXT, "");
    hub.asked();
    score("owner/name", "0");
    assert_eq!(name(), NEXT);
    let asked = hub.asked();
    let downloads: Vec<_> = asked.iter().filter(|path| path.ends_with(" from 0")).collect();
    assert_eq!(downloads, [&format!("/owner/name/resolve/{NEXT}/{CHANGED} from 0")]);
    assert!(hub.kept().join("snapshots").join(NEXT).join("model.safetensors.index.json").exists());

    // A commit needs no name; Python's tools give it none.
    for commit in [COMMIT, NEXT] {
        score(&format!("owner/name@{commit}"), "1");
        assert!(!hub.kept().join("refs").join(commit).exists());
        score(&format!("owner/name@{commit}"), "0");
        assert!(!hub.kept().join("refs").join(commit).exists());
    }
    let ran = hub.score("owner/name@v1", &[("HF_HUB_OFFLINE", "1")]);
    assert!(ran.stderr.contains("HF_HUB_OFFLINE"), "{}", ran.stderr);
}

#[test]
fn a_tilde_is_the_home_directory() {
    let hub = Hub::start("tilde", &golden("qwen3-tiny"), "", Manner::Redirect);
    let home = hub.home.to_str().unwrap();
    let ran = hub.score("owner/name", &[("HOME", home), ("HF_HOME", "~/x")]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(hub.home.join("x/hub/models--owner--name").exists());
    let ran = hub.score("owner/name", &[("HOME", home), ("HF_HUB_CACHE", "~/y")]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(hub.home.join("y/models--owner--name").exists());
}

#[test]
fn refusals_say_what_helps() {
    let hub = Hub::start("refused", &golden("qwen3-tiny"), "other", Manner::Redirect);
    let ran = hub.score("owner/name", &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("HF_TOKEN"), "{}", ran.stderr);
    let ran = hub.score("owner/nothing", &[("HF_TOKEN", "other")]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("no such repository"), "{}", ran.stderr);
    let ran = hub.score("owner/name/model.gguf", &[("HF_TOKEN", "other")]);
    assert!(ran.stderr.contains("it has chat_template.jinja, config.json"), "{}", ran.stderr);
    let ran = hub.score("no such thing", &[]);
    assert!(ran.stderr.contains("Qwen/Qwen2.5-0.5B-Instruct"), "{}", ran.stderr);
}

#[test]
fn what_is_exported_says_what_the_repository_says() {
    let hub = Hub::start("export", &golden("qwen2-tiny"), "secret", Manner::Redirect);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let export = |model: &str, out: &Path| {
        let ran = hub.run(&["export", "--model", model, "--out", out.to_str().unwrap()], &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    };
    export("owner/name", &out);
    for file in ["generation_config.json", "tokenizer_config.json", "chat_template.jinja"] {
        let source = fs::read(golden("qwen2-tiny").join(file)).unwrap();
        assert_eq!(fs::read(out.join(file)).unwrap(), source, "{file}");
    }

    // Adapters in a folder with nothing else, for a revision.
    hub.asked();
    let adapters = dir.path().join("adapters");
    let mut model = load_path(&golden("qwen2-tiny")).unwrap().model;
    model.adapt(LoraConfig::default(), Some("owner/name@v1".to_owned()), 1).unwrap();
    let files = adapter_files(model.adapters.as_ref().unwrap(), Dtype::F32).unwrap();
    write_files(&adapters, &files).unwrap();
    let ran = hub.score(adapters.to_str().unwrap(), &[]);
    assert_eq!((ran.code, ran.stdout), (Some(0), local("qwen2-tiny")), "{}", ran.stderr);
    assert_eq!(hub.asked()[0], "/api/models/owner/name/revision/v1");
    let merged = dir.path().join("merged");
    export(adapters.to_str().unwrap(), &merged);
    let (one, other) = (load_directory(&out).unwrap(), load_directory(&merged).unwrap());
    assert_eq!(one.side, other.side);
    assert_eq!(one.model.params, other.model.params);

    // Another model's template goes with it.
    assert!(out.join("chat_template.jinja").exists());
    let gguf = golden("tiny_llama.gguf");
    let into =
        ["export", "--force", "--model", gguf.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let ran = hub.run(&into, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!out.join("chat_template.jinja").exists());
}

#[test]
fn one_file_of_a_repository_is_exported_with_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("repository");
    fs::create_dir(&folder).unwrap();
    fs::copy(golden("tiny_llama.gguf"), folder.join("m.gguf")).unwrap();
    let hub = Hub::start("gguf", &folder, "secret", Manner::Redirect);
    let out = dir.path().join("out.gguf");
    let ran =
        hub.run(&["export", "--model", "owner/name/m.gguf", "--gguf", out.to_str().unwrap()], &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (read, source) = (load_gguf(&out).unwrap(), load_gguf(&golden("tiny_llama.gguf")).unwrap());
    let says = |v: empg_llm::GgufVocabulary| (v.bos, v.eos, v.padding, v.add_bos, v.chat_template);
    let said = says(read.vocabulary);
    assert!(said.1.is_some() && said.4.is_some());
    assert_eq!(said, says(source.vocabulary));
}
