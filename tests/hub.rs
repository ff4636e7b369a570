//! Models by repository id, from a server on this machine's loopback.
#![cfg(feature = "hub")]

#[path = "common/repository.rs"]
mod repository;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use burn::tensor::Device;
use deberta_burn::{
    ModelConfig,
    checkpoint::{Checkpoint, LoadOptions, hub::Hub},
};
use serde_json::json;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const REPOSITORY: &str = "someone/tiny";

/// A hub that has one commit of one repository, on the branches `main` and `pr/1`.
struct Server {
    endpoint: String,
    downloads: Arc<AtomicUsize>,
}

impl Server {
    fn start(files: HashMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let downloads = Arc::new(AtomicUsize::new(0));
        let counter = downloads.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &files, &counter);
            }
        });
        Self { endpoint, downloads }
    }

    /// One that has the files of a fixture.
    fn of(case: &str) -> Self {
        let folder = repository::fixture(case);
        let files = fs::read_dir(folder).unwrap().map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
        });
        Self::start(files.collect())
    }

    /// One that has files of these names, whatever they hold.
    fn with_files(names: &[&str]) -> Self {
        Self::start(names.iter().map(|name| ((*name).to_owned(), b"{}".to_vec())).collect())
    }

    fn hub(&self, cache: &TempDir) -> Hub {
        Hub { cache: cache.path().to_owned(), endpoint: self.endpoint.clone(), offline: false, token: None }
    }
}

/// Answers one request and hangs up.
fn answer(mut stream: TcpStream, files: &HashMap<String, Vec<u8>>, downloads: &AtomicUsize) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(|line| line.unwrap_or_default());
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let file = |commit: &str| path.strip_prefix(&format!("/{REPOSITORY}/resolve/{commit}/"));
    let response = if ["main", "pr%2F1", COMMIT]
        .map(|name| format!("/api/models/{REPOSITORY}/revision/{name}"))
        .contains(&path.into())
    {
        let siblings: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
        let body = json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
    } else if let Some((name, bytes)) = file(COMMIT).and_then(|name| files.get_key_value(name)) {
        let range = headers.iter().find_map(|header| header.strip_prefix("range: bytes=")).unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(bytes.len(), |last: usize| bytes.len().min(last + 1));
        if end == bytes.len() {
            downloads.fetch_add(1, Ordering::Relaxed);
        }
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\
             ETag: \"etag-of-{name}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
            end - start,
            end - 1,
            bytes.len()
        );
        [head.as_bytes(), &bytes[start..end]].concat()
    } else {
        let status = if path.contains("gated") { "401 Unauthorized" } else { "404 Not Found" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    };
    // A client that has hung up got what it wanted.
    let _ = stream.write_all(&response);
}

fn loads(folder: &Path) {
    let ModelConfig::Deberta(config) = ModelConfig::from_folder(folder).unwrap() else { panic!("not a DeBERTa") };
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.load(config.init(&Device::flex()), &LoadOptions::default()).unwrap();
}

fn snapshot(cache: &TempDir) -> PathBuf {
    cache.path().join("models--someone--tiny/snapshots").join(COMMIT)
}

#[test]
fn a_model_is_downloaded_once_and_then_there_offline() {
    for (case, files) in [("v3_plain", 2), ("v3_sharded", 4), ("v3_bin", 2)] {
        let (server, cache) = (Server::of(case), TempDir::new().unwrap());
        let hub = server.hub(&cache);
        let folder = hub.fetch(REPOSITORY, None).unwrap();
        assert_eq!(folder, snapshot(&cache), "{case}");
        loads(&folder);
        // The configuration and the weights, but neither references nor gradients.
        assert_eq!(fs::read_dir(&folder).unwrap().count(), files, "{case}");
        assert_eq!(server.downloads.load(Ordering::Relaxed), files, "{case}");

        assert_eq!(hub.fetch(REPOSITORY, Some("pr/1")).unwrap(), folder, "{case}");
        assert_eq!(server.downloads.load(Ordering::Relaxed), files, "{case}");
        let nowhere = "http://127.0.0.1:9".to_owned();
        for (offline, endpoint) in [(true, server.endpoint.clone()), (true, nowhere.clone()), (false, nowhere)] {
            for revision in [None, Some("main"), Some("pr/1"), Some(COMMIT)] {
                let hub = Hub { offline, endpoint: endpoint.clone(), ..hub.clone() };
                assert_eq!(hub.fetch(REPOSITORY, revision).unwrap(), folder, "{case} {revision:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_had_is_said() {
    let (server, cache) = (Server::of("v3_plain"), TempDir::new().unwrap());
    let hub = server.hub(&cache);
    let message = |hub: &Hub, repository: &str, revision| hub.fetch(repository, revision).unwrap_err().to_string();

    let text = message(&hub, "someone/else", None);
    assert!(text.contains("hub repository `someone/else`") && text.contains("has no such repository"), "{text}");
    let text = message(&hub, REPOSITORY, Some("v9"));
    assert!(text.contains("no revision `v9` of it"), "{text}");
    let text = message(&hub, "someone/gated", None);
    assert!(text.contains("denies access") && text.contains("HF_TOKEN"), "{text}");
    let text = message(&Hub { offline: true, ..hub.clone() }, REPOSITORY, None);
    assert!(text.contains("not in the cache") && text.contains("HF_HUB_OFFLINE"), "{text}");
    let text = message(&Hub { endpoint: "http://127.0.0.1:9".into(), ..hub }, REPOSITORY, None);
    assert!(text.contains("http://127.0.0.1:9 cannot be used") && text.contains("has no copy"), "{text}");

    let server = Server::with_files(&["config.json"]);
    let text = message(&server.hub(&cache), REPOSITORY, None);
    assert!(text.contains("there are no weights in it; looked for model.safetensors"), "{text}");
}

#[test]
fn files_of_sentence_transformers_come_along() {
    let files = [
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ];
    let cache = TempDir::new().unwrap();
    let folder = Server::with_files(&files).hub(&cache).fetch(REPOSITORY, None).unwrap();
    for file in files {
        assert!(folder.join(file).exists(), "{file}");
    }
}

#[test]
fn a_gliner_is_there_offline() {
    let (server, cache) = (Server::with_files(&["gliner_config.json", "pytorch_model.bin"]), TempDir::new().unwrap());
    let hub = server.hub(&cache);
    let folder = hub.fetch(REPOSITORY, None).unwrap();
    let offline = Hub { offline: true, ..hub };
    assert_eq!(offline.fetch(REPOSITORY, None).unwrap(), folder);
    fs::remove_file(folder.join("gliner_config.json")).unwrap();
    assert!(offline.fetch(REPOSITORY, None).is_err());
}

#[test]
fn an_index_stays_in_its_folder() {
    let index = json!({ "weight_map": { "a": "../../../outside.safetensors" } }).to_string();
    let files = [("config.json", "{}".into()), ("model.safetensors.index.json", index)];
    let server = Server::start(files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into());
    let cache = TempDir::new().unwrap();
    let text = server.hub(&cache).fetch(REPOSITORY, None).unwrap_err().to_string();
    assert!(text.contains("`../../../outside.safetensors`, expected a file beside it"), "{text}");
}
