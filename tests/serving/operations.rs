//! The life of a server: its readiness, its end, and another model.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use deberta_burn::pipeline::Classifier;
use serde_json::{json, to_value};

use crate::{
    endpoints::{assert_close, classifier, ok, options},
    server::{Answer, Server, refusal},
    support::repository::repository,
};

#[test]
fn every_admitted_request_is_answered_before_the_end() {
    let mut server = Server::start(&repository("models/deberta-tiny"), &[]);
    let texts: Vec<String> =
        (0..60).map(|index| format!("{index} [MASK] {}", "the laws of nature ".repeat(30))).collect();
    thread::scope(|scope| {
        let shared = &server;
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let texts = &texts;
                scope.spawn(move || {
                    shared.post("/fill_mask", &json!({ "inputs": texts[client * 15..][..15], "top_k": 1 }))
                })
            })
            .collect();
        shared.wait_until(|server| server.get("/metrics").body.contains("te_queue_size 4"));
        shared.signal("TERM");
        for client in clients {
            let answer = client.join().unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["results"].as_array().unwrap().len(), 15);
        }
    });
    assert_eq!(server.exit_code(), Some(0));
    assert!(server.log().contains("all requests were answered"), "{}", server.log());
}

#[test]
fn a_server_that_ends_is_alive_but_not_ready() {
    let model = classifier(&["a", "b"]);
    let mut server = Server::start(model.path(), &["--drain-delay", "1"]);
    assert_eq!((server.get("/health").status, server.get("/ready").status), (200, 200));
    server.signal("TERM");
    server.wait_until(|server| server.get("/ready").status == 503);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.post("/predict", &json!({ "inputs": "war" })).status, 200);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn another_model_replaces_the_one_that_is_served_if_it_works() {
    let (model, other) = (classifier(&["a", "b"]), classifier(&["c", "d", "e"]));
    let server = Server::start(model.path(), &[]);
    let ask = || server.post("/predict", &json!({ "inputs": "war" })).json();
    let expected = |folder: &tempfile::TempDir| {
        to_value(Classifier::from_folder(folder, options()).unwrap().classify(["war"]).unwrap().remove(0)).unwrap()
    };
    let (before, after) = (expected(&model), expected(&other));
    assert_close(&ask(), &before);

    // A broken folder changes nothing.
    let weights = model.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::remove_file(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    server.signal("HUP");
    server.wait_until(|server| server.log().contains("the model stays as it was"));
    assert!(server.log().contains("model.safetensors"), "{}", server.log());
    assert_close(&ask(), &before);

    // Requests go on while the other one is loaded.
    for file in ["model.safetensors", "config.json"] {
        fs::remove_file(model.path().join(file)).unwrap();
        fs::copy(other.path().join(file), model.path().join(file)).unwrap();
    }
    let loads = |log: &str| log.matches("\"loaded\"").count();
    let first = loads(&server.log());
    server.signal("HUP");
    while loads(&server.log()) == first {
        let answer = ask();
        assert_eq!(
            answer.as_array().map(Vec::len).filter(|count| [2, 3].contains(count)),
            answer.as_array().map(Vec::len)
        );
    }
    server.wait_until(|_| ask().as_array().map(Vec::len) == Some(3));
    assert_close(&ask(), &after);
}

/// Puts a pipe in the place of a file: whoever reads it waits for its end.
fn make_pipe(path: &Path) {
    fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// The other end of a pipe, as soon as somebody reads it.
fn writer(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn a_server_ends_while_it_loads_its_model() {
    let model = classifier(&["a", "b"]);
    let config = model.path().join("config.json");
    make_pipe(&config);
    let mut server = Server::launch(model.path(), &["--task", "classify"]);
    let _open = writer(&config);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn the_newest_files_are_served_however_slowly_older_ones_are_read() {
    let (model, other) = (classifier(&["a", "b"]), classifier(&["c", "d"]));
    let server = Server::start(model.path(), &["--task", "classify"]);
    let config = model.path().join("config.json");
    let older = fs::read(&config).unwrap();
    make_pipe(&config);
    server.signal("HUP");
    let mut pipe = writer(&config);
    fs::remove_file(&config).unwrap();
    fs::copy(other.path().join("config.json"), &config).unwrap();
    server.signal("HUP");
    // Time for the newer one, which would have it served first if it did not wait.
    thread::sleep(Duration::from_millis(500));
    pipe.write_all(&older).unwrap();
    drop(pipe);
    server.wait_until(|server| server.log().matches("\"loaded\"").count() == 3);
    assert_eq!(ok(server.get("/info"))["model_type"]["classifier"]["id2label"], json!({ "0": "c", "1": "d" }));
}

#[test]
fn flags_that_cannot_be_are_refused_before_anything_is_loaded() {
    let refused = |flag: &str, value: &str| refusal(Path::new("no/such/folder"), &[flag, value]);
    for empty in ["", " , "] {
        assert!(refused("--api-key", empty).starts_with("--api-key: it is empty"));
    }
    assert!(refused("--cors-allow-origin", "a.example").starts_with("--cors-allow-origin: it is `a.example`"));
    for flag in ["--max-connections", "--tokenization-threads", "--max-waiting-tokens", "--payload-limit"] {
        let problem = refused(flag, "0");
        assert!(problem.contains(flag) && problem.contains("0 is not in 1..="), "{problem}");
    }
    let most = usize::MAX.to_string();
    assert!(refused("--max-connections", &most).contains(&format!("{most} is not in 1..=")));
}

/// What a browser learns before a page of this origin sends a request with a key.
fn preflight(server: &Server, origin: &str) -> Answer {
    let lines = [
        "OPTIONS /predict HTTP/1.1",
        "host: test",
        "connection: close",
        "access-control-request-method: POST",
        "access-control-request-headers: authorization,content-type",
        &format!("origin: {origin}\r\n\r\n"),
    ];
    server.send(lines.join("\r\n").as_bytes())
}

#[test]
fn web_pages_of_some_origins_may_send_keys() {
    let model = classifier(&["a", "b"]);
    let start = |origins: &str| Server::start(model.path(), &["--api-key", "one", "--cors-allow-origin", origins]);
    let server = start("https://a.example,http://localhost:8080");
    let answer = preflight(&server, "http://localhost:8080");
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:8080"), "{answer:?}");
    // Browsers do not take `*` for a name of this header.
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,content-type"), "{answer:?}");
    assert_eq!(preflight(&server, "https://b.example").header("access-control-allow-origin"), None);
    let server = start("https://a.example,*");
    assert_eq!(preflight(&server, "https://b.example").header("access-control-allow-origin"), Some("*"));
}
