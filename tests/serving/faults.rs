//! What clients do wrong: nothing hangs, nothing is answered twice, and the server goes on.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    endpoints::{assert_close, classifier},
    server::{Server, answer, request},
    support::repository::repository,
};

/// The server still answers.
#[track_caller]
fn goes_on(server: &Server) {
    let answer = server.post("/predict", &json!({ "inputs": "war" }));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn bodies_that_are_wrong() {
    let model = classifier(&["a", "b", "c"]);
    let server = Server::start(model.path(), &[]);
    for (body, message) in [
        (&b"{\"inputs\": "[..], "EOF while parsing"),
        (b"{\"inputs\": \"a\"} b", "the body goes on after its end"),
        (b"{\"inputs\": \"\xff\"}", "the body is not what is expected"),
        (b"{}", "missing field `inputs`"),
        (b"", "EOF while parsing"),
        (b"{\"inputs\": []}", "inputs has to be a text"),
        (b"{\"inputs\": [[]]}", "inputs has to be a text"),
        (b"{\"inputs\": [\"a\", \"b\", \"c\"]}", "a list of 3 texts"),
        (b"{\"inputs\": 5}", "inputs has to be a text"),
        (b"{\"inputs\": \"a\", \"truncation_direction\": \"Up\"}", "unknown variant `Up`"),
    ] {
        let problem = server.send(&request("/predict", body, "")).problem(422, "Validation");
        assert!(problem.contains(message), "{problem}");
    }
    let problem = server.post("/predict", &json!({ "inputs": Vec::<Vec<String>>::new() })).status;
    assert_eq!(problem, 422);
    for text in ["", "\0", " ", "a\0b", &"law ".repeat(250_000)] {
        let answer = server.post("/predict", &json!({ "inputs": text }));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let headers = |line: &str| server.post_with("/predict", &json!({ "inputs": "a" }), line).problem(422, "Validation");
    assert!(headers("x-deadline-ms: soon\r\n").contains("x-deadline-ms has to be a number"));
    assert!(headers("x-priority: high\r\n").contains("`interactive` or `bulk`"));
    goes_on(&server);
}

#[test]
fn bodies_that_are_too_long_or_never_end() {
    let model = classifier(&["a", "b"]);
    let server = Server::start(model.path(), &[]);
    // The announcement is enough.
    let head = b"POST /predict HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 100000000\r\n\r\n{";
    server.send(head).problem(413, "Validation");
    let text = "a".repeat(3_000_000);
    assert_eq!(server.post("/predict", &json!({ "inputs": text })).status, 413);
    // A client that sends half a body and leaves.
    let mut stream = server.connect();
    let whole = request("/predict", br#"{"inputs": "a"}"#, "");
    stream.write_all(&whole[..whole.len() - 5]).unwrap();
    drop(stream);
    goes_on(&server);
}

#[test]
fn more_than_may_wait() {
    let model = classifier(&["a", "b"]);
    let server = Server::start(model.path(), &["--max-waiting-tokens", "300"]);
    let many = |count: usize| json!({ "inputs": vec![["the laws of nature"]; count] });
    let problem = server.post("/predict", &many(200)).problem(413, "Validation");
    assert!(problem.contains("at most 300 may wait"), "{problem}");
    // No more texts become tokens than are needed to know it.
    let tokens = problem.split(' ').find_map(|word| word.parse::<usize>().ok());
    assert!(tokens.is_some_and(|tokens| (301..400).contains(&tokens)), "{problem}");
    goes_on(&server);
}

#[test]
fn a_list_of_a_thousand_labels() {
    let model = classifier(&["entailment", "contradiction"]);
    let labels: Vec<String> = (0..1000).map(|index| format!("law {index}")).collect();
    let body = json!({ "inputs": "war", "labels": labels });
    let server = Server::start(model.path(), &[]);
    let answer = server.post("/zero_shot", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["results"][0].as_array().map(Vec::len), Some(1000));
    let server = Server::start(model.path(), &["--max-waiting-tokens", "2000"]);
    let problem = server.post("/zero_shot", &body).problem(413, "Validation");
    assert!(problem.contains("at most 2000 may wait"), "{problem}");
    goes_on(&server);
}

/// Texts that keep the small model busy for seconds, each unlike the others.
fn heavy(tag: &str) -> Vec<String> {
    let text = "the laws of nature and of nations ".repeat(30);
    (0..230).map(|index| format!("{tag} {index} [MASK] {text}")).collect()
}

#[test]
fn a_client_that_leaves_takes_its_texts_along() {
    let server = Server::start(&repository("models/deberta-tiny"), &[]);
    let mut stream = server.connect();
    let body = json!({ "inputs": heavy("leaves"), "top_k": 1 }).to_string();
    stream.write_all(&request("/fill_mask", body.as_bytes(), "")).unwrap();
    server.wait_until(|server| server.get("/metrics").body.contains("te_queue_size 1"));
    stream.shutdown(Shutdown::Both).unwrap();
    server.wait_until(|server| server.get("/metrics").body.contains("te_queue_size 0"));
    let metrics = server.get("/metrics").body;
    let sequences = metrics.lines().find_map(|line| line.strip_prefix("te_batch_next_size_sum "));
    let sequences: f64 = sequences.and_then(|number| number.parse().ok()).expect("a figure");
    assert!(sequences < 230.0, "{sequences}");
}

#[test]
fn deadlines_and_overload() {
    // The weights do not matter, but the model has to take a while.
    let model = repository("models/deberta-tiny");
    let server = Server::start(&model, &["--max-waiting-tokens", "60000"]);
    thread::scope(|scope| {
        let first = scope.spawn(|| server.post("/fill_mask", &json!({ "inputs": heavy("first"), "top_k": 1 })));
        server.wait_until(|server| server.get("/metrics").body.contains("te_queue_size 1"));
        // One that comes just before a batch ends may be in time.
        let mut late = (0..100).map(|index| {
            let body = json!({ "inputs": format!("late {index} [MASK]") });
            server.post_with("/fill_mask", &body, "x-deadline-ms: 1\r\n")
        });
        late.find(|answer| answer.status != 200).expect("one that is not in time").problem(504, "Overloaded");
        let start = Instant::now();
        // A single text is not kept by all that waits.
        let single = server.post("/fill_mask", &json!({ "inputs": "a [MASK]" }));
        assert_eq!(single.status, 200);
        let waited = start.elapsed();
        let refused = server.post("/fill_mask", &json!({ "inputs": heavy("second"), "top_k": 1 }));
        refused.problem(429, "Overloaded");
        assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{refused:?}");
        let answered = first.join().unwrap();
        assert_eq!(answered.status, 200, "{answered:?}");
        assert!(waited < start.elapsed() / 2, "{waited:?} of {:?}", start.elapsed());
    });
}

#[test]
fn connections_are_bounded_and_keys_are_asked_for() {
    let model = classifier(&["a", "b"]);
    let server = Server::start(model.path(), &["--max-connections", "8", "--api-key", "one,two"]);
    let body = json!({ "inputs": "war" });
    server.post("/predict", &body).problem(401, "Unauthorized");
    assert_eq!(server.post_with("/predict", &body, "authorization: Bearer two\r\n").status, 200);
    assert_eq!(server.get("/health").status, 200);
    let idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let mut waits = server.connect();
    waits.write_all(b"GET /health HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    waits.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(std::io::Read::read(&mut waits, &mut [0; 1]).is_err(), "no connection is left for it");
    drop(idle);
    waits.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(answer(&mut waits).status, 200);
}

/// Of the ten thousand, 100 are open at a time: a test may have few file descriptors, and more than are served and may wait to be
/// accepted (here 64 and, by the system, as few as 128) would only wait for one another.
#[test]
fn ten_thousand_connections() {
    let model = classifier(&["a", "b"]);
    let server = Server::start(model.path(), &["--max-connections", "64"]);
    let request = request("/predict", br#"{"inputs": "war"}"#, "");
    // Nothing, rubbish, a part of a request, and requests whose answers nobody reads.
    let sent = [&b""[..], b"\0\xff\r\n\r\n", &request[..20], &request];
    let mut open = VecDeque::new();
    for index in 0..10_000 {
        let mut stream = server.connect();
        let _ = stream.write_all(sent[index % sent.len()]);
        open.push_back(stream);
        if open.len() > 100 {
            open.pop_front();
        }
    }
    // The last ones still wait, and those that said nothing have 30 seconds for it.
    drop(open);
    goes_on(&server);
    server.wait_until(|server| server.get("/metrics").body.contains("te_queue_size 0"));
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_broken_folder_is_loaded_under_load() {
    let model = classifier(&["a", "b"]);
    let server = Server::start(model.path(), &[]);
    let body = json!({ "inputs": [["war"], ["the laws of nature"], ["peace", "and war"]] });
    let before = server.post("/predict", &body).json();
    let weights = model.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    // A new file, because the old one is mapped into the server's memory.
    fs::remove_file(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let ask = || {
            let mut answered = 0;
            while !done.load(Ordering::Relaxed) {
                let answer = server.post("/predict", &body);
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_close(&answer.json(), &before);
                answered += 1;
            }
            answered
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for count in 1..=3 {
            server.signal("HUP");
            server.wait_until(|server| server.log().matches("the model stays as it was").count() == count);
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
}

#[test]
fn each_input_has_one_line_unless_all_are_late_from_the_start() {
    let model = classifier(&["entailment", "contradiction"]);
    let server = Server::start(model.path(), &[]);
    let body = json!({ "inputs": ["war", "peace"], "labels": ["law", "people", "nature"] });
    let answer = server.post_with("/zero_shot", &body, "accept: application/x-ndjson\r\n");
    let mut lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["index"].as_u64());
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["result"].as_array().is_some_and(|labels| labels.len() == 3)), "{lines:?}");
    // No tokens are made of what is late, or its labels would be refused.
    let body = json!({ "inputs": ["war", "peace"], "labels": [" "] });
    let late = server.post_with("/zero_shot", &body, "accept: application/x-ndjson\r\nx-deadline-ms: 0\r\n");
    assert_eq!(late.problem(504, "Overloaded"), "the deadline passed before the request was computed");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("te_request_success 1\n"), "{metrics}");
    assert!(metrics.contains("te_request_failure{err=\"Overloaded\"} 1\n"), "{metrics}");
}
