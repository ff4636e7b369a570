//! An API for the tasks that no other server has. A body has `inputs`, one or a list, and options; unknown fields are refused.
//! The answer is `{"results": [..], "tokens": .., "truncated": ..}`, a result for each input.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    App,
    exchange::{Call, Json, OneOrMany},
};
use crate::{
    pipeline::{
        AnswerOptions, AnswerRequest, FillMask, FillRequest, Pipeline, Question, QuestionAnswerer, TagOptions,
        TagRequest, TokenTagger, WordScores, ZeroShot, ZeroShotOptions, ZeroShotRequest,
    },
    serving::{Problem, Served, Usage},
};

#[derive(Serialize)]
struct Results<T> {
    results: Vec<T>,
    tokens: usize,
    truncated: usize,
}

/// What all tasks answer.
async fn results<P>(
    app: App,
    call: Call,
    requests: Vec<P::Request>,
    truncate: Option<bool>,
) -> Result<Response, Problem>
where
    P: Served + Pipeline<Answer: Serialize + 'static>,
{
    let whole = |results, usage: &Usage| Results { results, tokens: usage.tokens, truncated: usage.truncated };
    app.respond::<P, _, _>(call, requests, truncate.unwrap_or(true), |_, answer| answer, whole).await
}

/// What `/ner` is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NerBody {
    inputs: OneOrMany<String>,
    #[serde(default)]
    words: WordScores,
    stride: Option<usize>,
}

/// Entities. Long texts are read in windows.
pub async fn ner(State(app): State<App>, call: Call, Json(body): Json<NerBody>) -> Result<Response, Problem> {
    let options = TagOptions { words: body.words, stride: body.stride };
    let requests = body.inputs.into_list().0.into_iter().map(|text| TagRequest { text, options });
    results::<TokenTagger>(app, call, requests.collect(), None).await
}

/// What `/zero_shot` is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroShotBody {
    inputs: OneOrMany<String>,
    labels: Vec<String>,
    template: Option<String>,
    #[serde(default)]
    multi_label: bool,
    truncate: Option<bool>,
}

/// Labels of the client's choice.
pub async fn zero_shot(
    State(app): State<App>,
    call: Call,
    Json(body): Json<ZeroShotBody>,
) -> Result<Response, Problem> {
    let ZeroShotBody { inputs, labels, template, multi_label, truncate } = body;
    let template = template.unwrap_or(ZeroShotOptions::default().template);
    let options = ZeroShotOptions { template, multi_label };
    let request = |text| ZeroShotRequest { text, candidates: labels.clone(), options: options.clone() };
    let requests = inputs.into_list().0.into_iter().map(request);
    results::<ZeroShot>(app, call, requests.collect(), truncate).await
}

/// What `/answer` is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    inputs: OneOrMany<Question>,
    top_k: Option<usize>,
    max_answer_tokens: Option<usize>,
    stride: Option<usize>,
    no_answer_threshold: Option<f32>,
}

/// Answers in contexts. Long contexts are read in windows.
pub async fn answer(State(app): State<App>, call: Call, Json(body): Json<AnswerBody>) -> Result<Response, Problem> {
    let default = AnswerOptions::default();
    let options = AnswerOptions {
        top_k: body.top_k.unwrap_or(default.top_k),
        max_answer_tokens: body.max_answer_tokens.unwrap_or(default.max_answer_tokens),
        stride: body.stride,
        no_answer_threshold: body.no_answer_threshold,
    };
    let requests = body.inputs.into_list().0.into_iter().map(|question| AnswerRequest { question, options });
    results::<QuestionAnswerer>(app, call, requests.collect(), None).await
}

/// What `/fill_mask` is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillMaskBody {
    inputs: OneOrMany<String>,
    top_k: Option<usize>,
}

/// Words for masks. A text that is too long is refused, because its mask might be cut off.
pub async fn fill_mask(
    State(app): State<App>,
    call: Call,
    Json(body): Json<FillMaskBody>,
) -> Result<Response, Problem> {
    let top_k = body.top_k.unwrap_or(5);
    let requests = body.inputs.into_list().0.into_iter().map(|text| FillRequest { text, top_k });
    results::<FillMask>(app, call, requests.collect(), None).await
}
