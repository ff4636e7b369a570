//! Models whose labels come with the request: GLiNER and GLiClass.

use deberta_burn::pipeline::{Gliner, GlinerOptions, ZeroShot, ZeroShotOptions};
use serde_json::{json, to_value};

use crate::{
    endpoints::{assert_close, ok, options},
    server::Server,
    support::repository::fixture,
};

const TEXT: &str = "Ada Lovelace was born in London, on 10 December 1815.";
const TYPES: [&str; 3] = ["person", "location", "date of birth"];

#[test]
fn entities_of_types_in_the_request() {
    let folder = fixture("gliner/span");
    // Its task follows from its files.
    let server = Server::start(&folder, &[]);
    let options_of = GlinerOptions { threshold: 0.85, nested: true, multi_label: false };
    let library = Gliner::from_folder(&folder, options()).unwrap();
    // With more words than the model reads at once.
    let long = [TEXT; 4].join(" ");
    let expected = to_value(library.find(&[TEXT, &long], &TYPES, options_of).unwrap()).unwrap();
    assert!(expected.as_array().unwrap().iter().all(|found| !found.as_array().unwrap().is_empty()), "{expected}");
    let body = json!({ "inputs": [TEXT, long], "labels": TYPES, "threshold": 0.85, "nested": true });
    assert_close(&ok(server.post("/ner", &body))["results"], &expected);

    let flat = GlinerOptions { nested: false, ..options_of };
    let expected = library.find(&[TEXT], &TYPES, flat).unwrap().remove(0);
    let own = ok(server.post("/", &json!({ "inputs": TEXT, "parameters": { "labels": TYPES, "threshold": 0.85 } })));
    let group = |one: &deberta_burn::pipeline::Entity| json!({ "entity_group": one.label, "score": one.score, "word": one.text, "start": one.start, "end": one.end });
    assert_close(&own, &json!(expected.iter().map(group).collect::<Vec<_>>()));

    // Equal texts with other labels are not equal inputs.
    let only = ok(server.post("/ner", &json!({ "inputs": TEXT, "labels": ["location"], "threshold": 0.85 })));
    let expected = to_value(library.find(&[TEXT], &["location"], flat).unwrap()).unwrap();
    assert_close(&only["results"], &expected);

    let problem = server.post("/ner", &json!({ "inputs": TEXT })).problem(422, "Validation");
    assert!(problem.contains("missing field `labels`"), "{problem}");
    let problem = server.post("/ner", &json!({ "inputs": TEXT, "labels": [" "] })).problem(422, "Validation");
    assert!(problem.contains("label 1 is blank"), "{problem}");
    let body = json!({ "inputs": TEXT, "labels": TYPES, "threshold": 2 });
    assert!(server.post("/ner", &body).problem(422, "Validation").contains("a probability from 0 to 1"));
}

#[test]
fn cut_words_are_told_and_many_labels_refused() {
    let server = Server::start(&fixture("gliner/span"), &["--max-length", "24"]);
    let word = "London".repeat(20);
    let answer = server.post("/ner", &json!({ "inputs": word, "labels": ["location"] }));
    assert_eq!((answer.status, answer.header("x-truncated")), (200, Some("1")), "{answer:?}");
    assert_eq!(answer.json()["truncated"], 1);
    let body = json!({ "inputs": word, "labels": ["location"], "truncate": false });
    assert!(server.post("/ner", &body).problem(422, "Validation").contains("but the model takes 24"));
    let labels: Vec<String> = (0..1000).map(|index| format!("label {index}")).collect();
    let problem = server.post("/ner", &json!({ "inputs": "a", "labels": labels })).problem(422, "Validation");
    assert!(problem.contains("leave no room for the text"), "{problem}");
    refuses_many(&server, &[("/ner", "labels"), ("/", "labels")]);
}

/// A short body that asks for many tokens is refused before they are made, at each path with its name of labels.
#[track_caller]
fn refuses_many(server: &Server, paths: &[(&str, &str)]) {
    let (texts, labels) = (vec!["a"; 1000], vec!["b"; 1000]);
    for (path, name) in paths {
        let body = match *path {
            "/" => json!({ "inputs": texts, "parameters": { *name: labels } }),
            _ => json!({ "inputs": texts, *name: labels }),
        };
        let problem = server.post(path, &body).problem(413, "Validation");
        assert!(problem.starts_with("it has at least 1000000 tokens"), "{path}: {problem}");
    }
}

#[test]
fn a_tokenizer_from_elsewhere() {
    let (folder, tokenizer) = (fixture("gliner/token"), fixture("gliner/tokenizer"));
    let server = Server::start(&folder, &["--tokenizer", tokenizer.to_str().unwrap()]);
    let library = Gliner::with_tokenizer(&folder, &tokenizer, options()).unwrap();
    let expected = to_value(library.find(&[TEXT], &TYPES, GlinerOptions::default()).unwrap()).unwrap();
    assert_close(&ok(server.post("/ner", &json!({ "inputs": TEXT, "labels": TYPES })))["results"], &expected);

    let mut server = Server::launch(&fixture("gliclass/first"), &["--tokenizer", tokenizer.to_str().unwrap()]);
    assert_eq!(server.exit_code(), Some(1));
    server.wait_until(|server| server.log().contains("only GLiNER models take one from elsewhere"));
}

#[test]
fn labels_in_the_request() {
    let folder = fixture("gliclass/first");
    let server = Server::start(&folder, &[]);
    let library = ZeroShot::from_folder(&folder, options()).unwrap();
    for multi_label in [false, true] {
        let options = ZeroShotOptions { multi_label, ..ZeroShotOptions::default() };
        let expected = to_value(library.classify(&[TEXT, "Rome"], &TYPES, &options).unwrap()).unwrap();
        let body = json!({ "inputs": [TEXT, "Rome"], "labels": TYPES, "multi_label": multi_label });
        assert_close(&ok(server.post("/zero_shot", &body))["results"], &expected);
        let parameters = json!({ "candidate_labels": TYPES, "multi_label": multi_label });
        let body = json!({ "inputs": [TEXT, "Rome"], "parameters": parameters });
        assert_close(&ok(server.post("/", &body)), &expected);
    }
    let long = json!({ "inputs": TEXT.repeat(100), "labels": TYPES });
    assert_eq!(server.post("/zero_shot", &long).header("x-truncated"), Some("1"));
    let problem = server.post("/", &json!({ "inputs": TEXT })).problem(422, "Validation");
    assert!(problem.contains("missing field `parameters`"), "{problem}");
    server.post("/predict", &json!({ "inputs": TEXT })).problem(424, "Backend");
    refuses_many(&server, &[("/zero_shot", "labels"), ("/", "candidate_labels")]);
}
