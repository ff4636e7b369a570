//! The life of a server: its readiness, its end, and another model.

use std::{fs, thread};

use deberta_burn::pipeline::Classifier;
use serde_json::{json, to_value};

use crate::{
    endpoints::{assert_close, classifier, options},
    server::Server,
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
