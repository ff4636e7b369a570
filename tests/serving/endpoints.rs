//! Every endpoint answers what the library answers, in its dialect.

use std::{path::Path, thread};

use burn::tensor::Device;
use deberta_burn::{
    heads::{QuestionAnswering, SequenceClassification, TokenClassification},
    pipeline::{
        AnswerOptions, Classifier, EmbedOptions, Embedder, FillMask, PipelineOptions, Question, QuestionAnswerer,
        RankRequest, Reranker, TagOptions, TokenTagger, ZeroShot, ZeroShotOptions,
    },
    tokenizer::Text,
};
use serde_json::{Value, json, to_value};
use tempfile::TempDir;

use crate::{
    server::{Answer, Server},
    support::{
        config, folder,
        repository::{fixture, repository},
    },
};

/// Batches differ from single texts by the order of f32 sums; scores are below 1.
const TOLERANCE: f64 = 1e-5;

/// Whether two answers are the same but for rounding.
#[track_caller]
pub fn assert_close(left: &Value, right: &Value) {
    assert!(close(left, right), "{left}\nis not\n{right}");
}

fn close(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            (left.as_f64().unwrap() - right.as_f64().unwrap()).abs() <= TOLERANCE
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| close(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len() && left.iter().all(|(key, left)| close(left, &right[key]))
        }
        _ => left == right,
    }
}

pub fn options() -> PipelineOptions {
    PipelineOptions::new(Device::flex())
}

/// A classifier with these labels.
pub fn classifier(labels: &[&str]) -> TempDir {
    let mut config = config(labels);
    config.task.architectures = vec!["DebertaV2ForSequenceClassification".into()];
    folder(config, SequenceClassification::new)
}

#[track_caller]
pub fn ok(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn one<T: serde::Serialize>(answers: deberta_burn::Result<Vec<T>>) -> Value {
    to_value(answers.unwrap().remove(0)).unwrap()
}

const LONG: &str = "the laws of nature and of nations ";

#[test]
fn labels_rankings_and_zero_shot() {
    let model = classifier(&["entailment", "contradiction"]);
    let server = Server::start(model.path(), &[]);
    let library = Classifier::from_folder(&model, options()).unwrap();
    let single = one(library.classify(["war"]));
    let pair = one(library.classify([("war", "peace")]));

    let predict = |body: Value| ok(server.post("/predict", &body));
    assert_close(&predict(json!({ "inputs": "war" })), &single);
    assert_close(&predict(json!({ "inputs": ["war"] })), &single);
    assert_close(&predict(json!({ "inputs": ["war", "peace"] })), &pair);
    assert_close(&predict(json!({ "inputs": [["war"], ["war", "peace"]] })), &json!([single, pair]));
    let raw = predict(json!({ "inputs": "war", "raw_scores": true }));
    let difference = |scores: &Value| scores[0]["score"].as_f64().unwrap() - scores[1]["score"].as_f64().unwrap();
    let odds = (single[0]["score"].as_f64().unwrap() / single[1]["score"].as_f64().unwrap()).ln();
    assert!((difference(&raw) - odds).abs() < 1e-4, "{raw}");

    // InferenceClient's shapes.
    assert_close(&ok(server.post("/", &json!({ "inputs": "war", "parameters": {} }))), &json!([single]));
    assert_close(&ok(server.post("/", &json!({ "inputs": "war" }))), &single);
    let top = ok(server.post("/", &json!({ "inputs": "war", "parameters": { "top_k": 1 } })));
    assert_close(&top, &json!([[single[0]]]));

    let request = RankRequest::new("law", vec!["war".into(), "the laws of nature".into()]);
    let ranking = Reranker::from_folder(&model, options()).unwrap().rank(&[request]).unwrap().remove(0);
    let body = json!({ "query": "law", "texts": ["war", "the laws of nature"], "return_text": true });
    let texts = ["war", "the laws of nature"];
    let expected: Vec<Value> = ranking
        .iter()
        .map(|place| json!({ "index": place.index, "score": place.probability, "text": texts[place.index] }))
        .collect();
    assert_close(&ok(server.post("/rerank", &body)), &json!(expected));
    assert_close(&ok(server.post("/", &body)), &json!(expected));
    let body = json!({ "query": "law", "documents": ["war", { "text": "the laws of nature" }], "top_n": 1, "return_documents": true });
    let best = json!([{ "index": ranking[0].index, "relevance_score": ranking[0].probability, "document": { "text": texts[ranking[0].index] } }]);
    for path in ["/v1/rerank", "/v2/rerank"] {
        let answer = ok(server.post(path, &body));
        assert_close(&answer["results"], &best);
        assert!(answer["usage"]["total_tokens"].as_u64() > Some(4), "{answer}");
    }

    let zero_shot = ZeroShot::from_folder(&model, options()).unwrap();
    let choice = one(zero_shot.classify(&["war"], &["law", "peace"], &ZeroShotOptions::default()));
    let answer = ok(server.post("/zero_shot", &json!({ "inputs": "war", "labels": ["law", "peace"] })));
    assert_close(&answer["results"], &json!([choice]));
    let parameters = json!({ "candidate_labels": ["law", "peace"], "multi_label": false });
    assert_close(&ok(server.post("/", &json!({ "inputs": "war", "parameters": parameters }))), &choice);

    let info = ok(server.get("/info"));
    assert_eq!(info["model_type"]["classifier"]["id2label"]["0"], "entailment");
    let problem = server.post("/ner", &json!({ "inputs": "war" })).problem(424, "Backend");
    assert!(problem.contains("for the task classify; it cannot find entities"), "{problem}");
}

#[test]
fn a_reranker_scores_as_its_folder_says() {
    let model = classifier(&["relevance"]);
    let texts = ["war", "the laws of nature"];
    for (activation, of) in
        [("Sigmoid", (|score| 1.0 / (1.0 + (-score).exp())) as fn(f64) -> f64), ("Identity", |score| score)]
    {
        let settings = json!({ "activation_fn": format!("torch.nn.modules.activation.{activation}") });
        std::fs::write(model.path().join("config_sentence_transformers.json"), settings.to_string()).unwrap();
        let server = Server::start(model.path(), &[]);
        let ask = |raw: bool| ok(server.post("/rerank", &json!({ "query": "law", "texts": texts, "raw_scores": raw })));
        let mut expected = ask(true);
        for place in expected.as_array_mut().unwrap() {
            place["score"] = of(place["score"].as_f64().unwrap()).into();
        }
        assert_close(&ask(false), &expected);
        let answer = ok(server.post("/v1/rerank", &json!({ "query": "law", "documents": texts })));
        for (theirs, ours) in answer["results"].as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
            assert_eq!(theirs["index"], ours["index"]);
            assert_close(&theirs["relevance_score"], &ours["score"]);
        }
    }
}

#[test]
fn cuts_are_told_or_refused() {
    let model = classifier(&["a", "b", "c"]);
    let server = Server::start(model.path(), &[]);
    let long = LONG.repeat(20);
    let answer = server.post("/predict", &json!({ "inputs": [["war"], [long]] }));
    assert_eq!((answer.status, answer.header("x-truncated")), (200, Some("1")), "{answer:?}");
    let library = Classifier::from_folder(&model, options()).unwrap();
    assert_close(&answer.json()[1], &one(library.classify([&long])));
    let left = server.post("/predict", &json!({ "inputs": long, "truncation_direction": "Left" })).json();
    let text = Text::from(long.clone()).cut_on(deberta_burn::tokenizer::TruncationSide::Left);
    assert_close(&left, &one(library.classify([text])));
    let problem =
        server.post("/predict", &json!({ "inputs": [["war"], [long]], "truncate": false })).problem(422, "Validation");
    assert!(problem.starts_with("text 1 has ") && problem.contains(" tokens, but the model takes 32"), "{problem}");
    // It has no label to rank or to entail by.
    server.post("/rerank", &json!({ "query": "a", "texts": ["b"] })).problem(424, "Backend");
    server.post("/zero_shot", &json!({ "inputs": "a", "labels": ["b"] })).problem(424, "Backend");
}

#[test]
fn entities() {
    // Without `O`, every word is in an entity, whatever the random weights say.
    let mut config = config(&["B-PER", "I-PER", "B-LOC"]);
    config.task.architectures = vec!["DebertaV2ForTokenClassification".into()];
    let model = folder(config, TokenClassification::new);
    let server = Server::start(model.path(), &[]);
    let text = format!("« ça va » 🏔️ of the people {LONG}{LONG}{LONG}{LONG}");
    let library = one(TokenTagger::from_folder(&model, options()).unwrap().tag(&[&text], TagOptions::default()));
    let answer = ok(server.post("/ner", &json!({ "inputs": text })));
    assert_close(&answer["results"][0], &library);
    let own = ok(server.post("/", &json!({ "inputs": text, "parameters": { "aggregation_strategy": "first" } })));
    assert!(!own.as_array().unwrap().is_empty());
    for (theirs, ours) in own.as_array().unwrap().iter().zip(library.as_array().unwrap()) {
        assert_eq!((&theirs["entity_group"], &theirs["word"]), (&ours["label"], &ours["text"]));
        assert_eq!((&theirs["start"], &theirs["end"]), (&ours["start"], &ours["end"]));
    }
    let problem =
        server.post("/", &json!({ "inputs": "a", "parameters": { "strategy": "x" } })).problem(422, "Validation");
    assert!(problem.contains("unknown field `strategy`"), "{problem}");
}

#[test]
fn answers() {
    let mut config = config(&[]);
    config.task.architectures = vec!["DebertaV2ForQuestionAnswering".into()];
    let model = folder(config, QuestionAnswering::new);
    let server = Server::start(model.path(), &[]);
    let context = LONG.repeat(8);
    let question = Question { question: "who".into(), context: context.clone() };
    let library = QuestionAnswerer::from_folder(&model, options()).unwrap();
    let expected = one(library.answer(&[question], &AnswerOptions { top_k: 2, ..AnswerOptions::default() }));
    let body = json!({ "inputs": { "question": "who", "context": context }, "top_k": 2 });
    assert_close(&ok(server.post("/answer", &body))["results"][0], &expected);
    let body =
        |parameters: Value| json!({ "inputs": { "question": "who", "context": context }, "parameters": parameters });
    let span = |index: usize| {
        let span = &expected["spans"][index];
        json!({ "answer": span["text"], "score": span["probability"], "start": span["start"], "end": span["end"] })
    };
    assert_close(&ok(server.post("/", &body(json!({})))), &span(0));
    assert_close(&ok(server.post("/", &body(json!({ "top_k": 2 })))), &json!([span(0), span(1)]));
}

#[test]
fn words_for_masks() {
    let model = repository("models/deberta-tiny");
    let server = Server::start(&model, &[]);
    let text = "The old [MASK] shook his head.";
    let library = FillMask::from_folder(&model, options()).unwrap().fill(&[text], 3).unwrap();
    let answer = ok(server.post("/fill_mask", &json!({ "inputs": [text, text], "top_k": 3 })));
    assert_close(&answer["results"], &json!([library[0], library[0]]));
    let words = ok(server.post("/", &json!({ "inputs": text, "parameters": { "top_k": 1 } })));
    assert_eq!((&words[0]["token_str"], &words[0]["sequence"]), (&json!("man"), &json!("The old man shook his head.")));
    let problem = server.post("/fill_mask", &json!({ "inputs": ["a [MASK]", "no mask"] })).problem(422, "Tokenizer");
    assert!(problem.starts_with("text 1: it holds no [MASK]"), "{problem}");

    let tokens = ok(server.post("/tokenize", &json!({ "inputs": "Time flies" })));
    let ids: Vec<&Value> = tokens[0].as_array().unwrap().iter().map(|token| &token["id"]).collect();
    assert_eq!(tokens[0][0], json!({ "id": ids[0], "text": "[CLS]", "special": true, "start": null, "stop": null }));
    assert_eq!(tokens[0][1]["start"], 0);
    let ends = tokens[0].as_array().unwrap().iter().filter_map(|token| token["stop"].as_u64());
    assert_eq!(ends.max(), Some(10));
    assert_eq!(ok(server.post("/decode", &json!({ "ids": ids }))), json!(["Time flies"]));
}

fn embedder_folder() -> TempDir {
    let mut config = config(&[]);
    config.task.architectures = vec!["DebertaV2Model".into()];
    folder(config, deberta_burn::Backbone::new)
}

#[test]
fn vectors() {
    let model = embedder_folder();
    let server = Server::start(model.path(), &[]);
    let normalised = EmbedOptions { normalize: true, ..EmbedOptions::default() };
    let library = Embedder::from_folder(&model, options()).unwrap().with_options(normalised).unwrap();
    let vectors = library.embed(["war", "peace"]).unwrap();
    assert_close(&ok(server.post("/embed", &json!({ "inputs": ["war", "peace"] }))), &json!(vectors));
    assert_close(&ok(server.post("/", &json!({ "inputs": "war" }))), &json!([vectors[0]]));
    let answer = ok(server.post("/v1/embeddings", &json!({ "input": "war", "model": "any" })));
    assert_close(&answer["data"][0]["embedding"], &json!(vectors[0]));
    assert_eq!((&answer["object"], &answer["data"][0]["index"]), (&json!("list"), &json!(0)));
    let answer = ok(server.post("/v1/embeddings", &json!({ "input": ["war"], "encoding_format": "base64" })));
    use base64::{Engine, prelude::BASE64_STANDARD};
    let bytes = BASE64_STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let numbers: Vec<f32> = bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_close(&json!(numbers), &json!(vectors[0]));
    // The first numbers, scaled where vectors are.
    let plain = Embedder::from_folder(&model, options()).unwrap().embed(["war"]).unwrap().remove(0);
    let cut = EmbedOptions { size: Some(4), normalize: true, ..EmbedOptions::default() };
    let cut = Embedder::from_folder(&model, options()).unwrap().with_options(cut).unwrap().embed(["war"]).unwrap();
    let ask = |path: &str, body: serde_json::Value| ok(server.post(path, &body));
    assert_close(
        &ask("/v1/embeddings", json!({ "input": "war", "dimensions": 4 }))["data"][0]["embedding"],
        &json!(cut[0]),
    );
    assert_close(&ask("/embed", json!({ "inputs": "war", "dimensions": 4 })), &json!(cut));
    let unscaled = json!({ "inputs": "war", "dimensions": 4, "normalize": false });
    assert_close(&ask("/embed", unscaled), &json!([plain[..4]]));
    let body = json!({ "inputs": { "source_sentence": "war", "sentences": ["war", "peace"] } });
    let cosine: f32 = vectors[0].iter().zip(&vectors[1]).map(|(left, right)| left * right).sum();
    assert_close(&ok(server.post("/", &body)), &json!([1.0, cosine]));
    for (path, body, field) in [
        ("/embed", json!({ "inputs": "war", "dimensions": 17 }), "dimensions: it is 17, expected from 1 to 16"),
        ("/embed", json!({ "inputs": "war", "prompt_name": "query" }), "prompt_name: "),
        ("/", json!({ "inputs": "war", "prompt_name": "query" }), "prompt_name: "),
        ("/v1/embeddings", json!({ "input": "war", "dimensions": 17 }), "dimensions: it is 17, expected from 1 to 16"),
        (
            "/v1/embeddings",
            json!({ "input": "war", "dimensions": 0 }),
            "the body is not what is expected: dimensions: 0",
        ),
    ] {
        let problem = server.post(path, &body).problem(422, "Validation");
        assert!(problem.starts_with(field), "{problem}");
    }
}

/// Texts of 1 to some forty tokens, some longer than the model's input.
fn texts(count: usize) -> Vec<String> {
    let words = ["war", "peace", "the", "law", "of", "nations", "people", "nature", "and", "true"];
    let mut state = 1u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    (0..count).map(|_| (0..draw(40) + 1).map(|_| words[draw(10) as usize]).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn company_does_not_change_an_answer() {
    let model = classifier(&["a", "b", "c"]);
    let server = Server::start(model.path(), &[]);
    let texts = texts(1000);
    let batch: Vec<[&String; 1]> = texts.iter().map(|text| [text]).collect();
    let together = ok(server.post("/predict", &json!({ "inputs": batch })));
    let ask = |server: &Server, text: &String| ok(server.post("/predict", &json!({ "inputs": text })));
    for (text, expected) in texts.iter().zip(together.as_array().unwrap()) {
        assert_close(&ask(&server, text), expected);
    }
    thread::scope(|scope| {
        for client in 0..64 {
            let (server, texts, together) = (&server, &texts, &together);
            scope.spawn(move || {
                for index in (client..texts.len()).step_by(64) {
                    assert_close(&ask(server, &texts[index]), &together[index]);
                }
            });
        }
    });
    // Line by line, in any order.
    let answer = server.post_with("/predict", &json!({ "inputs": batch }), "accept: application/x-ndjson\r\n");
    let mut lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["index"].as_u64());
    assert_eq!(lines.len(), texts.len());
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], index);
        assert_close(&line["result"], &together[index]);
    }
    let metrics = server.get("/metrics").body;
    for line in ["te_request_count 2002", "te_request_success 2002", "te_queue_size 0"] {
        assert!(metrics.lines().any(|known| known == line), "{line}\n{metrics}");
    }
}

#[test]
fn the_document_names_the_endpoints_of_the_model_and_their_examples_are_answered() {
    let nli = classifier(&["entailment", "contradiction"]);
    let (labels, vectors) = (classifier(&["a", "b", "c"]), embedder_folder());
    let entities = folder(config(&["O", "PER"]), TokenClassification::new);
    let answers = folder(config(&[]), QuestionAnswering::new);
    let both = ["/rerank", "/v1/rerank", "/v2/rerank"];
    let with = |more: &[&'static str]| [&both[..], more].concat();
    for (model, task, paths) in [
        (nli.path(), "classify", with(&["/predict", "/zero_shot"])),
        (labels.path(), "classify", vec!["/predict"]),
        (nli.path(), "zero-shot", vec!["/zero_shot"]),
        (entities.path(), "ner", vec!["/ner"]),
        (&fixture("gliner/span"), "gliner", vec!["/ner"]),
        (answers.path(), "answer", vec!["/answer"]),
        (&repository("models/deberta-tiny"), "fill-mask", vec!["/fill_mask"]),
        (vectors.path(), "embed", vec!["/embed", "/v1/embeddings"]),
    ] {
        the_document_names(&Server::start(model, &["--task", task]), &paths);
    }
}

/// These are the endpoints for predictions, beside `/`, and all examples are answered.
fn the_document_names(server: &Server, predictions: &[&str]) {
    let document = ok(server.get("/api-doc/openapi.json"));
    let paths = document["paths"].as_object().unwrap();
    let all = ["/predict", "/rerank", "/v1/rerank", "/v2/rerank", "/embed", "/v1/embeddings", "/ner", "/zero_shot"];
    for path in all.iter().chain(&["/answer", "/fill_mask"]) {
        assert_eq!(paths.contains_key(*path), predictions.contains(path), "{path}");
    }
    for (path, methods) in paths {
        for (method, about) in methods.as_object().unwrap() {
            let example = &about["requestBody"]["content"]["application/json"]["example"];
            let answer = match method.as_str() {
                "get" => server.get(path),
                _ => server.post(path, example),
            };
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
    }
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/predict").status, 405);
}

#[test]
fn a_folder_without_a_task_needs_one() {
    let model = folder(config(&["a", "b"]), SequenceClassification::new);
    let mut server = Server::launch(model.path(), &[]);
    assert_eq!(server.exit_code(), Some(1));
    server.wait_until(|server| server.log().contains("which says no task: give it (`--task`)"));
    let server = Server::start(Path::new(model.path()), &["--task", "classify"]);
    assert_eq!(ok(server.get("/info"))["task"], "classify");
}
