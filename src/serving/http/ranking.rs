//! The rerank APIs of Jina and Cohere.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    App,
    body::{Count, Json, List},
    exchange::Call,
};
use crate::{
    pipeline::{RankRequest, RankedPassage, Reranker},
    serving::{Problem, Usage},
};

/// What both are asked.
#[derive(Deserialize)]
pub struct Body {
    query: String,
    documents: List<Document>,
    model: Option<String>,
    top_n: Option<Count<1>>,
    #[serde(default)]
    return_documents: bool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a document has to be a text, or an object with a `text`")]
enum Document {
    Text(String),
    Object { text: String },
}

#[derive(Serialize)]
struct Answer {
    model: String,
    object: &'static str,
    results: Vec<Ranked>,
    usage: Tokens,
    meta: Meta,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Returned>,
}

#[derive(Serialize)]
struct Returned {
    text: String,
}

/// Jina's account.
#[derive(Serialize)]
struct Tokens {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Cohere's account.
#[derive(Serialize)]
struct Meta {
    tokens: InputTokens,
}

#[derive(Serialize)]
struct InputTokens {
    input_tokens: usize,
}

/// Documents by their relevance to a query; the answer has the fields of both APIs.
pub async fn rerank(State(app): State<App>, call: Call, Json(body): Json<Body>) -> Result<Response, Problem> {
    let Body { query, documents: List(documents), model, top_n, return_documents } = body;
    let text = |document| match document {
        Document::Text(text) | Document::Object { text } => text,
    };
    let documents: Vec<String> = documents.into_iter().map(text).collect();
    let returned = return_documents.then(|| documents.clone());
    let ranked = move |RankedPassage { index, relevance, .. }| Ranked {
        index,
        relevance_score: relevance,
        document: returned.as_ref().map(|texts| Returned { text: texts[index].clone() }),
    };
    let item = move |_, ranking: Vec<RankedPassage>| {
        let ranking = ranking.into_iter().take(top_n.map_or(usize::MAX, Count::get));
        ranking.map(&ranked).collect::<Vec<_>>()
    };
    let model = model.unwrap_or_else(|| app.service.options().model.clone());
    let whole = move |rankings: Vec<Vec<Ranked>>, usage: &Usage| Answer {
        model,
        object: "list",
        results: rankings.into_iter().flatten().collect(),
        usage: Tokens { prompt_tokens: usage.tokens, total_tokens: usage.tokens },
        meta: Meta { tokens: InputTokens { input_tokens: usage.tokens } },
    };
    app.respond::<Reranker, _, _>(call, vec![RankRequest::new(query, documents)], true, item, whole).await
}
