//! `POST /`: the model's own task, for `InferenceClient` of huggingface_hub and clients of text-embeddings-inference.
//!
//! The client sends `inputs` and `parameters`, and for some tasks expects other shapes than other clients. Parameters that are
//! not known are refused.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    App,
    body::{Count, Inputs, Json, List, Object, Probability, parse},
    exchange::{Call, OneOrMany},
    tei,
};
use crate::{
    config::ProblemType,
    pipeline::{
        Answer, AnswerOptions, AnswerRequest, Answers, Classifier, ClassifyRequest, EmbedRequest, Embedder, Entity,
        FillMask, FillRequest, FilledMask, Gliner, GlinerOptions, GlinerRequest, LabelScore, Pipeline, Question,
        QuestionAnswerer, TagOptions, TagRequest, TokenTagger, WordScores, ZeroShot, ZeroShotOptions, ZeroShotRequest,
    },
    serving::{Model, Problem, Served, Usage},
    tokenizer::Tokenizer,
};

/// A body of the client.
#[derive(Deserialize)]
struct Body<I, P> {
    inputs: I,
    #[serde(default)]
    parameters: Object<P>,
}

/// A body whose parameters say what is looked for.
#[derive(Deserialize)]
struct Asked<I, P> {
    inputs: I,
    parameters: Object<P>,
}

/// Answers by what the model is for.
pub async fn root(State(app): State<App>, call: Call, Json(body): Json<Value>) -> Result<Response, Problem> {
    let loaded = app.service.loaded()?;
    match &*loaded.model {
        Model::Labels(_) if body.get("query").is_some() => tei::rerank(State(app), call, Json(parse(body)?)).await,
        Model::Labels(_) if body["parameters"].get("candidate_labels").is_some() => {
            zero_shot(app, call, parse(body)?).await
        }
        Model::Labels(_) if body.get("parameters").is_some() => classify(app, call, parse(body)?).await,
        Model::Labels(_) => tei::predict(State(app), call, Json(parse(body)?)).await,
        Model::AnyLabels(_) => zero_shot(app, call, parse(body)?).await,
        Model::Entities(_) => entities(app, call, parse(body)?).await,
        Model::AnyEntities(_) => any_entities(app, call, parse(body)?).await,
        Model::Answers(_) => answers(app, call, parse(body)?).await,
        Model::Words(_) => words(app, call, parse(body)?).await,
        Model::Vectors(_) if body["inputs"].get("source_sentence").is_some() => {
            similarity(app, call, parse(body)?).await
        }
        Model::Vectors(_) => tei::embed(State(app), call, Json(parse(body)?)).await,
    }
}

/// Answers in the form of the question: one, or a list.
async fn answer<P: Served, T: Serialize + Send + 'static>(
    app: App,
    call: Call,
    (requests, one): (Vec<P::Request>, bool),
    item: impl Fn(usize, P::Answer) -> T + Send + 'static,
) -> Result<Response, Problem> {
    let whole = move |items, _: &Usage| OneOrMany::from_list(items, one);
    app.respond::<P, _, _>(call, requests, true, item, whole).await
}

/// Makes requests of inputs.
fn requests<I, R>(inputs: Inputs<I>, request: impl Fn(I) -> R) -> (Vec<R>, bool) {
    let (inputs, one) = inputs.into_list();
    (inputs.into_iter().map(request).collect(), one)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassifyParameters {
    function_to_apply: Option<Function>,
    top_k: Option<Count<1>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Function {
    Sigmoid,
    Softmax,
    None,
}

/// The answer is a list of lists, also for one text.
async fn classify(app: App, call: Call, body: Body<Inputs<String>, ClassifyParameters>) -> Result<Response, Problem> {
    let ClassifyParameters { function_to_apply, top_k } = body.parameters.0;
    let loaded = app.service.loaded()?;
    let own = match loaded.model.runner().config().task().problem_type() {
        ProblemType::SingleLabelClassification => Function::Softmax,
        ProblemType::MultiLabelClassification => Function::Sigmoid,
        ProblemType::Regression => Function::None,
    };
    let raw_scores = function_to_apply == Some(Function::None);
    if !raw_scores && function_to_apply.is_some_and(|function| function != own) {
        let problem =
            "function_to_apply: it has to be the one that the model was trained with, or `none`; leave it out";
        return Err(Problem::Validation(problem.into()));
    }
    let (requests, _) = requests(body.inputs, |text: String| ClassifyRequest { text: text.into(), raw_scores });
    let top = move |_, mut scores: Vec<LabelScore>| {
        scores.truncate(top_k.map_or(usize::MAX, Count::get));
        scores
    };
    app.respond::<Classifier, _, _>(call, requests, true, top, |items, _| items).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZeroShotParameters {
    candidate_labels: List<String>,
    #[serde(default)]
    multi_label: bool,
    hypothesis_template: Option<String>,
}

async fn zero_shot(app: App, call: Call, body: Asked<Inputs<String>, ZeroShotParameters>) -> Result<Response, Problem> {
    let ZeroShotParameters { candidate_labels: List(candidates), multi_label, hypothesis_template } = body.parameters.0;
    app.admit_labels(&body.inputs, &candidates)?;
    let template = hypothesis_template.unwrap_or(ZeroShotOptions::default().template);
    let options = ZeroShotOptions { template, multi_label };
    let request = |text| ZeroShotRequest { text, candidates: candidates.clone(), options: options.clone() };
    answer::<ZeroShot, _>(app, call, requests(body.inputs, request), |_, scores| scores).await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct EntityParameters {
    #[serde(default)]
    aggregation_strategy: Aggregation,
    #[serde(default)]
    ignore_labels: Vec<String>,
    stride: Option<Count>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Aggregation {
    Simple,
    #[default]
    First,
    Average,
    Max,
}

#[derive(Serialize)]
struct EntityGroup {
    entity_group: String,
    score: f32,
    word: String,
    start: usize,
    end: usize,
}

impl From<Entity> for EntityGroup {
    fn from(Entity { label, text, start, end, score }: Entity) -> Self {
        Self { entity_group: label, score, word: text, start, end }
    }
}

async fn entities(app: App, call: Call, body: Body<Inputs<String>, EntityParameters>) -> Result<Response, Problem> {
    let EntityParameters { aggregation_strategy, ignore_labels, stride } = body.parameters.0;
    let words = match aggregation_strategy {
        Aggregation::Simple => WordScores::Tokens,
        Aggregation::First => WordScores::First,
        Aggregation::Average => WordScores::Average,
        Aggregation::Max => WordScores::Max,
    };
    let options = TagOptions { words, stride: stride.map(Count::get) };
    let item = move |_, entities: Vec<Entity>| {
        let entities = entities.into_iter().filter(|entity| !ignore_labels.contains(&entity.label));
        entities.map(EntityGroup::from).collect::<Vec<_>>()
    };
    answer::<TokenTagger, _>(app, call, requests(body.inputs, |text| TagRequest { text, options }), item).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyEntityParameters {
    labels: List<String>,
    threshold: Option<Probability>,
}

async fn any_entities(
    app: App,
    call: Call,
    body: Asked<Inputs<String>, AnyEntityParameters>,
) -> Result<Response, Problem> {
    let AnyEntityParameters { labels: List(labels), threshold } = body.parameters.0;
    app.admit_labels(&body.inputs, &labels)?;
    let default = GlinerOptions::default();
    let threshold = threshold.map_or(default.threshold, |Probability(threshold)| threshold);
    let options = GlinerOptions { threshold, ..default };
    let request = |text| GlinerRequest { text, labels: labels.clone(), options };
    let item = |_, entities: Vec<Entity>| entities.into_iter().map(EntityGroup::from).collect::<Vec<_>>();
    answer::<Gliner, _>(app, call, requests(body.inputs, request), item).await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AnswerParameters {
    top_k: Option<Count<1>>,
    max_answer_len: Option<Count<1>>,
    doc_stride: Option<Count>,
    #[serde(default)]
    handle_impossible_answer: bool,
}

#[derive(Serialize)]
struct Span {
    answer: String,
    score: f32,
    start: usize,
    end: usize,
}

async fn answers(
    app: App,
    call: Call,
    body: Body<Inputs<Object<Question>>, AnswerParameters>,
) -> Result<Response, Problem> {
    let AnswerParameters { top_k, max_answer_len, doc_stride, handle_impossible_answer } = body.parameters.0;
    let default = AnswerOptions::default();
    let options = AnswerOptions {
        top_k: top_k.map_or(default.top_k, Count::get),
        max_answer_tokens: max_answer_len.map_or(default.max_answer_tokens, Count::get),
        stride: doc_stride.map(Count::get),
        no_answer_threshold: handle_impossible_answer.then_some(0.0),
    };
    let one = options.top_k == 1;
    let span = |Answer { text, start, end, probability, .. }| Span { answer: text, score: probability, start, end };
    let item = move |_, Answers { no_answer, spans, .. }: Answers| {
        let none = no_answer.then(|| Span { answer: String::new(), score: 0.0, start: 0, end: 0 });
        let spans = none.into_iter().chain(spans.into_iter().map(span));
        OneOrMany::from_list(spans.take(options.top_k).collect(), one)
    };
    answer::<QuestionAnswerer, _>(
        app,
        call,
        requests(body.inputs, |Object(question)| AnswerRequest { question, options }),
        item,
    )
    .await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FillParameters {
    top_k: Option<Count<1>>,
}

#[derive(Serialize)]
struct Word {
    score: f32,
    token: u32,
    token_str: String,
    sequence: String,
}

/// A list of words for a text with one mask, a list of lists for one with several.
async fn words(app: App, call: Call, body: Body<Inputs<String>, FillParameters>) -> Result<Response, Problem> {
    let top_k = body.parameters.0.top_k.map_or(5, Count::get);
    let (requests, one) = requests(body.inputs, |text| FillRequest { text, top_k });
    let (loaded, asked) = (app.service.loaded()?, requests.clone());
    let item = move |index: usize, masks: Vec<FilledMask>| {
        // Its tokens, for the sequences with words in place of masks; made only now, for a request that was admitted.
        let encode = |model: &FillMask| tokio::task::block_in_place(|| model.encode(&asked[index]).ok());
        let ids = FillMask::of(&loaded.model).and_then(encode).map_or(Vec::new(), |mut one| one.remove(0).ids);
        let tokenizer = loaded.model.runner().tokenizer();
        let single = masks.len() == 1;
        let words = |FilledMask { position, words }: FilledMask| {
            let word = |word: crate::pipeline::WordScore| {
                let sequence = with_word(tokenizer, &ids, position, word.id, single);
                Word { score: word.score, token: word.id, token_str: word.word, sequence }
            };
            words.into_iter().map(word).collect::<Vec<_>>()
        };
        OneOrMany::from_list(masks.into_iter().map(words).collect(), single)
    };
    answer::<FillMask, _>(app, call, (requests, one), item).await
}

/// The text with a word in place of a mask; special tokens stay where other masks do.
fn with_word(tokenizer: &Tokenizer, ids: &[u32], position: usize, word: u32, skip_special: bool) -> String {
    let ids: Vec<u32> = ids.iter().enumerate().map(|(at, id)| if at == position { word } else { *id }).collect();
    tokenizer.decode(&ids, skip_special).unwrap_or_default()
}

#[derive(Deserialize)]
struct Sentences {
    source_sentence: String,
    sentences: List<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

/// The cosine of each sentence's vector with that of the source.
async fn similarity(app: App, call: Call, body: Body<Object<Sentences>, NoParameters>) -> Result<Response, Problem> {
    let Body { inputs: Object(Sentences { source_sentence, sentences: List(sentences) }), .. } = body;
    let texts = std::iter::once(source_sentence).chain(sentences);
    let requests = texts.map(|text| EmbedRequest { text: text.into(), dimensions: None, normalize: true }).collect();
    let cosines = |vectors: Vec<Vec<f32>>, _: &Usage| -> Vec<f32> {
        let (source, others) = vectors.split_first().expect("the source is one");
        others.iter().map(|other| source.iter().zip(other).map(|(left, right)| left * right).sum()).collect()
    };
    app.respond::<Embedder, _, _>(call, requests, true, |_, vector| vector, cosines).await
}
