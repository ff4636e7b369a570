//! The OpenAPI document: what every endpoint is asked, with an example.

use serde_json::{Map, Value, json};

/// The document.
pub fn document() -> Value {
    let text = || json!({ "type": "string" });
    let flag = || json!({ "type": "boolean" });
    let count = |least: usize| json!({ "type": "integer", "minimum": least, "maximum": u32::MAX });
    let list = |items: Value| json!({ "type": "array", "items": items, "minItems": 1 });
    let or_null = |schema: Value| json!({ "oneOf": [schema, { "type": "null" }] });
    let many = |item: Value| json!({ "oneOf": [item, list(item.clone())] });
    let choice = |names: &[&str]| json!({ "type": "string", "enum": names });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let closed = |required: &[&str], properties: Value| {
        let mut object = object(required, properties);
        object["additionalProperties"] = false.into();
        object
    };
    let direction = || choice(&["Left", "Right"]);
    let pair = || json!({ "type": "array", "items": text(), "minItems": 1, "maxItems": 2 });
    let question = || object(&["question", "context"], json!({ "question": text(), "context": text() }));
    let document = json!({ "oneOf": [text(), object(&["text"], json!({ "text": text() }))] });
    let documents = |summary: &str| {
        let properties = json!({
            "model": or_null(text()), "query": text(), "documents": list(document.clone()), "top_n": or_null(count(0)), "return_documents": flag()
        });
        let example =
            json!({ "query": "why is the sky blue", "documents": ["Air scatters blue light most."], "top_n": 1 });
        post(summary, object(&["query", "documents"], properties), example)
    };

    let mut paths = json!({
        "/": post(
            "The model's own task, in the shapes of huggingface_hub's InferenceClient and of text-embeddings-inference",
            object(&["inputs"], json!({ "inputs": {}, "parameters": { "type": "object" } })),
            json!({ "inputs": "She opened the [MASK].", "parameters": {} }),
        ),
        "/predict": post(
            "Labels with scores, the best first",
            object(&["inputs"], json!({
                "inputs": { "oneOf": [text(), pair(), list(pair())] },
                "raw_scores": flag(), "truncate": or_null(flag()), "truncation_direction": or_null(direction())
            })),
            json!({ "inputs": [["A fine film."], ["A man sleeps.", "Nobody is awake."]] }),
        ),
        "/rerank": post(
            "Texts by their relevance to a query",
            object(&["query", "texts"], json!({
                "query": text(), "texts": list(text()), "raw_scores": flag(), "return_text": flag(), "truncate": or_null(flag()),
                "truncation_direction": or_null(direction())
            })),
            json!({ "query": "why is the sky blue", "texts": ["Air scatters blue light most.", "Bread is made of flour."] }),
        ),
        "/embed": post(
            "A vector for each text",
            object(&["inputs"], json!({
                "inputs": many(text()), "normalize": or_null(flag()), "truncate": or_null(flag()), "truncation_direction": or_null(direction())
            })),
            json!({ "inputs": ["a cat", "a kitten"] }),
        ),
        "/v1/embeddings": post(
            "Vectors, as OpenAI's API has them",
            object(&["input"], json!({
                "input": many(text()), "model": or_null(text()), "encoding_format": choice(&["float", "base64"])
            })),
            json!({ "input": ["a cat"], "model": "any" }),
        ),
        "/v1/rerank": documents("Documents by their relevance, as Jina's API has them"),
        "/v2/rerank": documents("Documents by their relevance, as Cohere's API has them"),
        "/ner": post(
            "Entities with their positions, in Unicode scalar values",
            closed(&["inputs"], json!({
                "inputs": many(text()), "words": choice(&["first", "average", "max", "tokens"]), "stride": or_null(count(0))
            })),
            json!({ "inputs": "Ada Lovelace was born in London." }),
        ),
        "/zero_shot": post(
            "Labels of your choice, by a model of natural language inference",
            closed(&["inputs", "labels"], json!({
                "inputs": many(text()), "labels": list(text()), "template": or_null(text()), "multi_label": flag(), "truncate": or_null(flag())
            })),
            json!({ "inputs": "Extra time!", "labels": ["sports", "politics"] }),
        ),
        "/answer": post(
            "Answers that are spans of a context",
            closed(&["inputs"], json!({
                "inputs": many(question()), "top_k": or_null(count(1)), "max_answer_tokens": or_null(count(1)), "stride": or_null(count(0)),
                "no_answer_threshold": or_null(json!({ "type": "number" }))
            })),
            json!({ "inputs": { "question": "Where?", "context": "Ada was born in London." } }),
        ),
        "/fill_mask": post(
            "The likeliest words for each [MASK]",
            closed(&["inputs"], json!({ "inputs": many(text()), "top_k": or_null(count(0)) })),
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
                "ids": { "oneOf": [list(count(0)), list(list(count(0)))] }, "skip_special_tokens": or_null(flag())
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
    paths["/info"]["get"]["responses"]["401"] = json!({ "$ref": "#/components/responses/Problem" });
    let kinds = crate::serving::Problem::KINDS;
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
