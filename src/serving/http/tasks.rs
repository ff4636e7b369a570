//! An API for the tasks that no other server has. A body has `inputs`, one or a list, and options; unknown fields are refused.
//! The answer is `{"results": [..], "tokens": .., "truncated": ..}`, a result for each input.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    App,
    body::{Count, Inputs, Json, List, Object, Probability, parse},
    exchange::Call,
};
use crate::{
    pipeline::{
        AnswerOptions, AnswerRequest, FillMask, FillRequest, Gliner, GlinerOptions, GlinerRequest, Pipeline, Question,
        QuestionAnswerer, TagOptions, TagRequest, TokenTagger, WordScores, ZeroShot, ZeroShotOptions, ZeroShotRequest,
    },
    serving::{Model, Problem, Served, Usage},
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

/// What `/ner` asks a model with its own labels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagBody {
    inputs: Inputs<String>,
    #[serde(default)]
    words: WordScores,
    stride: Option<Count>,
}

/// What `/ner` asks a model of any labels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GlinerBody {
    inputs: Inputs<String>,
    labels: List<String>,
    threshold: Option<Probability>,
    #[serde(default)]
    nested: bool,
    #[serde(default)]
    multi_label: bool,
    truncate: Option<bool>,
}

/// Entities, of the model's labels or of those in the body. Long texts are read in windows.
pub async fn ner(State(app): State<App>, call: Call, Json(body): Json<Value>) -> Result<Response, Problem> {
    let any_labels = match &*app.service.loaded()?.model {
        Model::AnyEntities(_) => true,
        Model::Entities(_) => false,
        _ => body.get("labels").is_some(),
    };
    if any_labels {
        let GlinerBody { inputs, labels: List(labels), threshold, nested, multi_label, truncate } = parse(body)?;
        app.admit_labels(&inputs, &labels)?;
        let threshold = threshold.map_or(GlinerOptions::default().threshold, |Probability(threshold)| threshold);
        let options = GlinerOptions { threshold, nested, multi_label };
        let request = |text| GlinerRequest { text, labels: labels.clone(), options };
        let requests = inputs.into_list().0.into_iter().map(request);
        results::<Gliner>(app, call, requests.collect(), truncate).await
    } else {
        let TagBody { inputs, words, stride } = parse(body)?;
        let options = TagOptions { words, stride: stride.map(Count::get) };
        let requests = inputs.into_list().0.into_iter().map(|text| TagRequest { text, options });
        results::<TokenTagger>(app, call, requests.collect(), None).await
    }
}

/// What `/zero_shot` is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroShotBody {
    inputs: Inputs<String>,
    labels: List<String>,
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
    let ZeroShotBody { inputs, labels: List(labels), template, multi_label, truncate } = body;
    app.admit_labels(&inputs, &labels)?;
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
    inputs: Inputs<Object<Question>>,
    top_k: Option<Count<1>>,
    max_answer_tokens: Option<Count<1>>,
    stride: Option<Count>,
    no_answer_threshold: Option<f32>,
}

/// Answers in contexts. Long contexts are read in windows.
pub async fn answer(State(app): State<App>, call: Call, Json(body): Json<AnswerBody>) -> Result<Response, Problem> {
    let default = AnswerOptions::default();
    let options = AnswerOptions {
        top_k: body.top_k.map_or(default.top_k, Count::get),
        max_answer_tokens: body.max_answer_tokens.map_or(default.max_answer_tokens, Count::get),
        stride: body.stride.map(Count::get),
        no_answer_threshold: body.no_answer_threshold,
    };
    let requests = body.inputs.into_list().0.into_iter().map(|Object(question)| AnswerRequest { question, options });
    results::<QuestionAnswerer>(app, call, requests.collect(), None).await
}

/// What `/fill_mask` is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillMaskBody {
    inputs: Inputs<String>,
    top_k: Option<Count<1>>,
}

/// Words for masks. A text that is too long is refused, because its mask might be cut off.
pub async fn fill_mask(
    State(app): State<App>,
    call: Call,
    Json(body): Json<FillMaskBody>,
) -> Result<Response, Problem> {
    let top_k = body.top_k.map_or(5, Count::get);
    let requests = body.inputs.into_list().0.into_iter().map(|text| FillRequest { text, top_k });
    results::<FillMask>(app, call, requests.collect(), None).await
}
