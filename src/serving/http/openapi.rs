//! The OpenAPI document: what every endpoint is asked, with an example. Of the endpoints for predictions it has those that the
//! served model can answer, and the body of `/` is that of its task.

use serde_json::{Map, Value, json};

use crate::{
    config::ProblemType,
    pipeline::{Classifier, Embedder, FillMask, Gliner, QuestionAnswerer, Reranker, TokenTagger, ZeroShot},
    serving::{Model, Problem, Served},
};

fn text() -> Value {
    json!({ "type": "string" })
}

/// A text with this in it.
fn text_with(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn count(least: u32) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": u32::MAX })
}

fn probability() -> Value {
    json!({ "type": "number", "minimum": 0, "maximum": 1 })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items, "minItems": 1 })
}

/// Labels of which one at least is not blank.
fn labels() -> Value {
    json!({ "type": "array", "items": text(), "minItems": 1, "contains": text_with(WORD) })
}

fn many(item: Value) -> Value {
    json!({ "oneOf": [item, list(item.clone())] })
}

fn or_null(schema: Value) -> Value {
    json!({ "oneOf": [schema, { "type": "null" }] })
}

fn choice(names: &[&str]) -> Value {
    json!({ "type": "string", "enum": names })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// An object without other properties.
fn closed(required: &[&str], properties: Value) -> Value {
    let mut object = object(required, properties);
    object["additionalProperties"] = false.into();
    object
}

/// Something that is not white space.
const WORD: &str = "[^\\s]";
const MASK: &str = "\\[MASK\\]";
const TEMPLATE: &str = "\\{\\}";

/// Where a template may stand, if the model reads one.
fn template(model: Option<&Model>) -> Value {
    match model.and_then(ZeroShot::of).is_none_or(|model| model.reads_template()) {
        true => or_null(text_with(TEMPLATE)),
        false => json!({ "type": "null" }),
    }
}

fn cut() -> Value {
    or_null(choice(&["Left", "Right", "left", "right"]))
}

fn question() -> Value {
    object(&["question", "context"], json!({ "question": text_with(WORD), "context": text_with(WORD) }))
}

fn predict() -> Value {
    let pair = || json!({ "type": "array", "items": text(), "minItems": 1, "maxItems": 2 });
    object(
        &["inputs"],
        json!({
            "inputs": { "oneOf": [text(), pair(), list(pair())] },
            "raw_scores": flag(), "truncate": or_null(flag()), "truncation_direction": cut()
        }),
    )
}

fn rerank() -> Value {
    object(
        &["query", "texts"],
        json!({
            "query": text(), "texts": list(text()), "raw_scores": flag(), "return_text": flag(),
            "truncate": or_null(flag()), "truncation_direction": cut()
        }),
    )
}

/// How many numbers of its vectors the model can give.
fn dimensions(model: Option<&Model>) -> Value {
    let most = match model {
        Some(Model::Vectors(embedder)) => embedder.width(),
        _ => u32::MAX as usize,
    };
    or_null(json!({ "type": "integer", "minimum": 1, "maximum": most }))
}

fn embed(model: Option<&Model>) -> Value {
    object(
        &["inputs"],
        json!({
            "inputs": many(text()), "normalize": or_null(flag()), "truncate": or_null(flag()), "truncation_direction": cut(),
            "dimensions": dimensions(model), "prompt_name": { "type": "null" }
        }),
    )
}

/// What `/ner` is asked: by a model with labels of its own, and by one without.
fn ner(model: Option<&Model>) -> Value {
    let own = closed(
        &["inputs"],
        json!({
            "inputs": many(text()), "words": choice(&["first", "average", "max", "tokens"]), "stride": or_null(count(0))
        }),
    );
    let any = closed(
        &["inputs", "labels"],
        json!({
            "inputs": many(text()), "labels": list(text_with(WORD)), "threshold": or_null(probability()), "nested": flag(),
            "multi_label": flag(), "truncate": or_null(flag())
        }),
    );
    match model {
        Some(Model::Entities(_)) => own,
        Some(Model::AnyEntities(_)) => any,
        _ => json!({ "oneOf": [own, any] }),
    }
}

/// What `/` is asked.
fn root(model: Option<&Model>) -> Value {
    let body = |required: &[&str], inputs: Value, parameters: Value| {
        object(required, json!({ "inputs": inputs, "parameters": parameters }))
    };
    let zero_shot = || {
        let parameters = json!({
            "candidate_labels": labels(), "multi_label": flag(), "hypothesis_template": template(model)
        });
        body(&["inputs", "parameters"], many(text()), closed(&["candidate_labels"], parameters))
    };
    let Some(model) = model else { return body(&["inputs"], json!({}), json!({ "type": "object" })) };
    match model {
        Model::Labels(labels) => {
            let own = match labels.problem_type() {
                ProblemType::SingleLabelClassification => "softmax",
                ProblemType::MultiLabelClassification => "sigmoid",
                ProblemType::Regression => "none",
            };
            let function = or_null(choice(&[own, "none"][..if own == "none" { 1 } else { 2 }]));
            let parameters = json!({ "function_to_apply": function, "top_k": or_null(count(1)) });
            let classify = body(&["inputs", "parameters"], many(text()), closed(&[], parameters));
            let mut predict = predict();
            predict["not"] = json!({ "anyOf": [{ "required": ["parameters"] }, { "required": ["query"] }] });
            let mut bodies = vec![predict, classify];
            bodies.extend(ZeroShot::of(model).map(|_| zero_shot()));
            bodies.extend(Reranker::of(model).map(|_| rerank()));
            json!({ "oneOf": bodies })
        }
        Model::AnyLabels(_) => zero_shot(),
        Model::Entities(_) => {
            let strategies = choice(&["simple", "first", "average", "max"]);
            let parameters = json!({
                "aggregation_strategy": strategies, "ignore_labels": { "type": "array", "items": text() },
                "stride": or_null(count(0))
            });
            body(&["inputs"], many(text()), closed(&[], parameters))
        }
        Model::AnyEntities(_) => {
            let parameters = json!({ "labels": list(text_with(WORD)), "threshold": or_null(probability()) });
            body(&["inputs", "parameters"], many(text()), closed(&["labels"], parameters))
        }
        Model::Answers(_) => {
            let parameters = json!({
                "top_k": or_null(count(1)), "max_answer_len": or_null(count(1)), "doc_stride": or_null(count(0)),
                "handle_impossible_answer": flag()
            });
            body(&["inputs"], many(question()), closed(&[], parameters))
        }
        Model::Words(_) => body(&["inputs"], many(text_with(MASK)), closed(&[], json!({ "top_k": or_null(count(1)) }))),
        Model::Vectors(_) => {
            let sentences = object(
                &["source_sentence", "sentences"],
                json!({ "source_sentence": text(), "sentences": list(text()) }),
            );
            json!({ "oneOf": [embed(Some(model)), body(&["inputs"], sentences, closed(&[], json!({})))] })
        }
    }
}

fn root_example(model: Option<&Model>) -> Value {
    match model {
        Some(Model::Labels(_)) => json!({ "inputs": "A fine film.", "parameters": {} }),
        Some(Model::AnyLabels(_)) => {
            json!({ "inputs": "Extra time!", "parameters": { "candidate_labels": ["sports", "politics"] } })
        }
        Some(Model::Entities(_)) => json!({ "inputs": "Ada Lovelace was born in London." }),
        Some(Model::AnyEntities(_)) => {
            json!({ "inputs": "Ada Lovelace was born in London.", "parameters": { "labels": ["person", "place"] } })
        }
        Some(Model::Answers(_)) => {
            json!({ "inputs": { "question": "Where?", "context": "Ada was born in London." }, "parameters": {} })
        }
        None | Some(Model::Words(_)) => json!({ "inputs": "She opened the [MASK].", "parameters": {} }),
        Some(Model::Vectors(_)) => json!({ "inputs": ["a cat", "a kitten"] }),
    }
}

/// The paths that a model has no answers for.
fn closed_paths(model: &Model) -> Vec<&'static str> {
    let paths = [
        ("/predict", Classifier::of(model).is_some()),
        ("/rerank", Reranker::of(model).is_some()),
        ("/v1/rerank", Reranker::of(model).is_some()),
        ("/v2/rerank", Reranker::of(model).is_some()),
        ("/embed", Embedder::of(model).is_some()),
        ("/v1/embeddings", Embedder::of(model).is_some()),
        ("/ner", TokenTagger::of(model).is_some() || Gliner::of(model).is_some()),
        ("/zero_shot", ZeroShot::of(model).is_some()),
        ("/answer", QuestionAnswerer::of(model).is_some()),
        ("/fill_mask", FillMask::of(model).is_some()),
    ];
    paths.into_iter().filter_map(|(path, open)| (!open).then_some(path)).collect()
}

/// The document; without a model that of all endpoints.
pub fn document(model: Option<&Model>) -> Value {
    let passage = json!({ "oneOf": [text(), object(&["text"], json!({ "text": text() }))] });
    let documents = |summary: &str| {
        let properties = json!({
            "model": or_null(text()), "query": text(), "documents": list(passage.clone()), "top_n": or_null(count(1)),
            "return_documents": flag()
        });
        let example =
            json!({ "query": "why is the sky blue", "documents": ["Air scatters blue light most."], "top_n": 1 });
        post(summary, object(&["query", "documents"], properties), example)
    };
    // Ids that the tokenizer knows.
    let mut id = count(0);
    if let Some(model) = model {
        id["maximum"] = (model.runner().tokenizer().vocab_size() - 1).into();
    }

    let mut paths = json!({
        "/": post(
            "The model's own task, in the shapes of huggingface_hub's InferenceClient and of text-embeddings-inference",
            root(model),
            root_example(model),
        ),
        "/predict": post(
            "Labels with scores, the best first",
            predict(),
            json!({ "inputs": [["A fine film."], ["A man sleeps.", "Nobody is awake."]] }),
        ),
        "/rerank": post(
            "Texts by their relevance to a query",
            rerank(),
            json!({ "query": "why is the sky blue", "texts": ["Air scatters blue light most.", "Bread is made of flour."] }),
        ),
        "/embed": post("A vector for each text", embed(model), json!({ "inputs": ["a cat", "a kitten"] })),
        "/v1/embeddings": post(
            "Vectors, as OpenAI's API has them",
            object(&["input"], json!({
                "input": many(text()), "model": or_null(text()), "encoding_format": choice(&["float", "base64"]),
                "dimensions": dimensions(model)
            })),
            json!({ "input": ["a cat"], "model": "any" }),
        ),
        "/v1/rerank": documents("Documents by their relevance, as Jina's API has them"),
        "/v2/rerank": documents("Documents by their relevance, as Cohere's API has them"),
        "/ner": post("Entities with their positions, in Unicode scalar values", ner(model), match model {
            Some(Model::AnyEntities(_)) => {
                json!({ "inputs": "Ada Lovelace was born in London.", "labels": ["person", "place"] })
            }
            _ => json!({ "inputs": "Ada Lovelace was born in London." }),
        }),
        "/zero_shot": post(
            "Labels of your choice, by a GLiClass model or one of natural language inference",
            closed(&["inputs", "labels"], json!({
                "inputs": many(text()), "labels": labels(), "template": template(model), "multi_label": flag(),
                "truncate": or_null(flag())
            })),
            json!({ "inputs": "Extra time!", "labels": ["sports", "politics"] }),
        ),
        "/answer": post(
            "Answers that are spans of a context",
            closed(&["inputs"], json!({
                "inputs": many(question()), "top_k": or_null(count(1)), "max_answer_tokens": or_null(count(1)),
                "stride": or_null(count(0)), "no_answer_threshold": or_null(json!({ "type": "number" }))
            })),
            json!({ "inputs": { "question": "Where?", "context": "Ada was born in London." } }),
        ),
        "/fill_mask": post(
            "The likeliest words for each [MASK]",
            closed(&["inputs"], json!({ "inputs": many(text_with(MASK)), "top_k": or_null(count(1)) })),
            json!({ "inputs": "Time [MASK] like an arrow.", "top_k": 3 }),
        ),
        "/tokenize": post(
            "Tokens of texts",
            object(&["inputs"], json!({ "inputs": many(text()), "add_special_tokens": or_null(flag()) })),
            json!({ "inputs": "Time flies." }),
        ),
        "/decode": post(
            "Texts of tokens",
            object(&["ids"], json!({
                "ids": { "oneOf": [list(id.clone()), list(list(id))] }, "skip_special_tokens": or_null(flag())
            })),
            json!({ "ids": [[5, 6, 7]] }),
        ),
        "/info": get("What is served", "application/json"),
        "/health": get("Whether the server is alive", "text/plain"),
        "/ready": get("Whether requests are welcome: not while the model is loaded or the server ends", "text/plain"),
        "/metrics": get("Figures for Prometheus", "text/plain"),
        "/ui": get("A page to try the model", "text/html"),
        "/docs": get("This list", "text/html"),
        "/api-doc/openapi.json": get("This document", "application/json"),
    });
    if let Some(paths) = paths.as_object_mut() {
        model.map(closed_paths).unwrap_or_default().into_iter().for_each(|path| drop(paths.remove(path)));
    }
    paths["/info"]["get"]["responses"]["401"] = json!({ "$ref": "#/components/responses/Problem" });
    let kinds = Problem::KINDS;
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "deberta-serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Online predictions of one DeBERTa checkpoint. Requests for predictions may have the headers \
                x-deadline-ms, x-priority (interactive or bulk) and accept (application/x-ndjson: a line for each answer)."
        },
        "security": [{}, { "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Problem": object(&["error", "error_type"], json!({ "error": text(), "error_type": choice(&kinds) }))
            },
            "responses": {
                "Problem": {
                    "description": "A problem",
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } }
                }
            }
        }
    })
}

fn post(summary: &str, schema: Value, example: Value) -> Value {
    let problems = ["401", "408", "413", "422", "424", "429", "500", "503", "504"];
    let problem = |status: &str| (status.to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
    let mut responses: Map<String, Value> = problems.into_iter().map(problem).collect();
    responses.insert("200".to_owned(), answer("application/json"));
    json!({
        "post": {
            "summary": summary,
            "requestBody": { "required": true, "content": { "application/json": { "schema": schema, "example": example } } },
            "responses": responses
        }
    })
}

fn get(summary: &str, content_type: &str) -> Value {
    let problem = json!({ "$ref": "#/components/responses/Problem" });
    json!({ "get": { "summary": summary, "responses": { "200": answer(content_type), "503": problem } } })
}

fn answer(content_type: &str) -> Value {
    json!({ "description": "The answer", "content": { content_type: {} } })
}
