//! The API of text-embeddings-inference, and OpenAI's for embeddings.

use axum::{extract::State, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    App,
    body::{Count, Inputs, Json, List},
    exchange::{Call, OneOrMany, json},
};
use crate::{
    pipeline::{Classifier, ClassifyRequest, EmbedRequest, Embedder, LabelScore, RankRequest, RankedPassage, Reranker},
    serving::{Model, Problem, Usage},
    tokenizer::{EncodeOptions, Text, TruncationSide},
};

/// Whether and where texts may be cut. Without `truncate` they may, which the header `x-truncated` tells.
#[derive(Deserialize)]
pub struct Cut {
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
}

#[derive(Clone, Copy, Deserialize)]
enum Direction {
    #[serde(alias = "left")]
    Left,
    #[serde(alias = "right")]
    Right,
}

impl Cut {
    /// Whether texts may be cut.
    pub fn truncate(&self) -> bool {
        self.truncate.unwrap_or(true)
    }

    fn text(&self, text: Text<'static>) -> Text<'static> {
        match self.truncation_direction {
            Some(Direction::Left) => text.cut_on(TruncationSide::Left),
            Some(Direction::Right) => text.cut_on(TruncationSide::Right),
            None => text,
        }
    }
}

/// A field that other servers of the API read. If it were ignored, the answer would be another one than was asked for.
type Unserved = Option<IgnoredAny>;

fn refuse(name: &str, field: Unserved, why: &str) -> Result<(), Problem> {
    match field {
        None => Ok(()),
        Some(_) => Err(Problem::Validation(format!("{name}: {why}"))),
    }
}

/// What `/predict` is asked.
#[derive(Deserialize)]
pub struct PredictBody {
    inputs: PredictInputs,
    #[serde(default)]
    raw_scores: bool,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "inputs has to be a text, a pair [\"a\", \"b\"], or a list of texts and pairs [[\"a\"], [\"a\", \"b\"]]"
)]
enum PredictInputs {
    Text(String),
    Flat(List<String>),
    Batch(List<List<String>>),
}

/// A text or pair from a list of one or two.
fn text_or_pair(List(texts): List<String>) -> Result<Text<'static>, Problem> {
    let count = texts.len();
    let mut texts = texts.into_iter();
    match (texts.next(), texts.next(), texts.next()) {
        (Some(text), None, _) => Ok(text.into()),
        (Some(first), Some(second), None) => Ok((first, second).into()),
        _ => Err(Problem::Validation(format!(
            "inputs has a list of {count} texts, expected one text or a pair; several texts are [[\"a\"], [\"b\"]]"
        ))),
    }
}

/// Labels with scores.
pub async fn predict(State(app): State<App>, call: Call, Json(body): Json<PredictBody>) -> Result<Response, Problem> {
    let PredictBody { inputs, raw_scores, cut } = body;
    let (texts, one) = match inputs {
        PredictInputs::Text(text) => (vec![Ok(text.into())], true),
        PredictInputs::Flat(texts) => (vec![text_or_pair(texts)], true),
        PredictInputs::Batch(List(batch)) => (batch.into_iter().map(text_or_pair).collect(), false),
    };
    let request = |text: Result<Text<'static>, Problem>| Ok(ClassifyRequest { text: cut.text(text?), raw_scores });
    let requests = texts.into_iter().map(request).collect::<Result<Vec<_>, Problem>>()?;
    let whole = move |answers: Vec<Vec<LabelScore>>, _: &Usage| OneOrMany::from_list(answers, one);
    app.respond::<Classifier, _, _>(call, requests, cut.truncate(), |_, scores| scores, whole).await
}

/// What `/rerank` is asked.
#[derive(Deserialize)]
pub struct RerankBody {
    query: String,
    texts: List<String>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    return_text: bool,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Serialize)]
struct Rank {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Texts by their relevance to a query.
pub async fn rerank(State(app): State<App>, call: Call, Json(body): Json<RerankBody>) -> Result<Response, Problem> {
    let RerankBody { query, texts: List(texts), raw_scores, return_text, cut } = body;
    let returned = return_text.then(|| texts.clone());
    let rank = move |place: RankedPassage| Rank {
        index: place.index,
        score: if raw_scores { place.score } else { place.relevance },
        text: returned.as_ref().map(|texts| texts[place.index].clone()),
    };
    let side = cut.truncation_direction.map(|direction| match direction {
        Direction::Left => TruncationSide::Left,
        Direction::Right => TruncationSide::Right,
    });
    let requests = vec![RankRequest { query, passages: texts, side }];
    let item = move |_, ranking: Vec<RankedPassage>| ranking.into_iter().map(&rank).collect::<Vec<_>>();
    let whole = |rankings: Vec<Vec<Rank>>, _: &Usage| rankings.into_iter().flatten().collect::<Vec<_>>();
    app.respond::<Reranker, _, _>(call, requests, cut.truncate(), item, whole).await
}

/// What `/embed` is asked.
#[derive(Deserialize)]
pub struct EmbedBody {
    inputs: Inputs<String>,
    normalize: Option<bool>,
    dimensions: Option<Count<1>>,
    prompt_name: Unserved,
    #[serde(flatten)]
    cut: Cut,
}

/// Vectors.
pub async fn embed(State(app): State<App>, call: Call, Json(body): Json<EmbedBody>) -> Result<Response, Problem> {
    let EmbedBody { inputs, normalize, dimensions, prompt_name, cut } = body;
    refuse("prompt_name", prompt_name, "prompts have no names here; put the prompt in front of the text")?;
    let (dimensions, normalize) = (dimensions.map(Count::get), normalize.unwrap_or(true));
    let request = |text: String| EmbedRequest { text: cut.text(text.into()), dimensions, normalize };
    let requests = inputs.into_list().0.into_iter().map(request).collect();
    app.respond::<Embedder, _, _>(call, requests, cut.truncate(), |_, vector| vector, |vectors, _| vectors).await
}

/// What `/v1/embeddings` is asked.
#[derive(Deserialize)]
pub struct OpenAiBody {
    input: Inputs<String>,
    model: Option<String>,
    #[serde(default)]
    encoding_format: EncodingFormat,
    dimensions: Option<Count<1>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: OpenAiUsage,
}

#[derive(Serialize)]
struct OpenAiUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Vectors of length 1, as OpenAI's clients want them.
pub async fn openai(State(app): State<App>, call: Call, Json(body): Json<OpenAiBody>) -> Result<Response, Problem> {
    let OpenAiBody { input, model, encoding_format, dimensions } = body;
    let model = model.unwrap_or_else(|| app.service.options().model.clone());
    let dimensions = dimensions.map(Count::get);
    let request = |text: String| EmbedRequest { text: text.into(), dimensions, normalize: true };
    let requests = input.into_list().0.into_iter().map(request);
    let item = move |index, vector: Vec<f32>| {
        let embedding = match encoding_format {
            EncodingFormat::Float => Numbers::Float(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                Numbers::Base64(BASE64_STANDARD.encode(bytes))
            }
        };
        Embedding { object: "embedding", index, embedding }
    };
    let whole = move |data, usage: &Usage| Embeddings {
        object: "list",
        data,
        model,
        usage: OpenAiUsage { prompt_tokens: usage.tokens, total_tokens: usage.tokens },
    };
    app.respond::<Embedder, _, _>(call, requests.collect(), true, item, whole).await
}

/// What `/tokenize` is asked.
#[derive(Deserialize)]
pub struct TokenizeBody {
    inputs: Inputs<String>,
    add_special_tokens: Option<bool>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    special: bool,
    /// The first character, in Unicode scalar values; none for special tokens.
    start: Option<usize>,
    stop: Option<usize>,
}

/// Tokens of texts.
pub async fn tokenize(State(app): State<App>, Json(body): Json<TokenizeBody>) -> Result<Response, Problem> {
    let loaded = app.service.loaded()?;
    let tokenizer = loaded.model.runner().tokenizer();
    let options = EncodeOptions {
        max_length: usize::MAX,
        add_special_tokens: body.add_special_tokens.unwrap_or(true),
        ..EncodeOptions::default()
    };
    let texts: Vec<Text<'static>> = body.inputs.into_list().0.into_iter().map(Text::from).collect();
    let encodings = tokio::task::block_in_place(|| tokenizer.encode(&texts, &options));
    let encodings = encodings.map_err(|error| Problem::of_encoding(&error))?;
    let token = |id: u32, special: bool, (start, stop): (usize, usize)| Token {
        id,
        text: tokenizer.token(id).unwrap_or_default(),
        special,
        start: (!special).then_some(start),
        stop: (!special).then_some(stop),
    };
    let tokens = encodings.iter().map(|encoding| {
        let parts = encoding.ids.iter().zip(&encoding.special).zip(&encoding.offsets);
        parts.map(|((id, special), offsets)| token(*id, *special, *offsets)).collect::<Vec<_>>()
    });
    Ok(json(&tokens.collect::<Vec<_>>()))
}

/// What `/decode` is asked.
#[derive(Deserialize)]
pub struct DecodeBody {
    ids: Ids,
    skip_special_tokens: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "ids has to be a list of token ids, or a list of such lists")]
enum Ids {
    One(List<Count>),
    Many(List<List<Count>>),
}

/// Texts of tokens.
pub async fn decode(State(app): State<App>, Json(body): Json<DecodeBody>) -> Result<Response, Problem> {
    let loaded = app.service.loaded()?;
    let skip_special = body.skip_special_tokens.unwrap_or(true);
    let lists = match body.ids {
        Ids::One(ids) => vec![ids],
        Ids::Many(List(lists)) => lists,
    };
    let decode = |List(ids): List<Count>| {
        let ids: Vec<u32> = ids.into_iter().map(|Count(id)| id).collect();
        loaded.model.runner().tokenizer().decode(&ids, skip_special)
    };
    let texts = lists.into_iter().map(decode);
    let texts = texts.collect::<crate::Result<Vec<String>>>().map_err(|error| Problem::of_encoding(&error))?;
    Ok(json(&texts))
}

/// What is served.
pub async fn info(State(app): State<App>) -> Result<Response, Problem> {
    let loaded = app.service.loaded()?;
    let (runner, options) = (loaded.model.runner(), app.service.options());
    let labels = || {
        let task = runner.config().task();
        let names: Vec<String> = (0..task.num_labels()).map(|index| task.label(index)).collect();
        let id2label: serde_json::Map<_, _> =
            names.iter().enumerate().map(|(index, name)| (index.to_string(), name.clone().into())).collect();
        let label2id: serde_json::Map<_, _> =
            names.iter().enumerate().map(|(index, name)| (name.clone(), index.into())).collect();
        serde_json::json!({ "id2label": id2label, "label2id": label2id })
    };
    let model_type = match &*loaded.model {
        Model::Labels(uses) if uses.only_ranks() => serde_json::json!({ "reranker": labels() }),
        Model::Labels(_) => serde_json::json!({ "classifier": labels() }),
        Model::Vectors(embedder) => {
            let pooling: Vec<_> = embedder.options().pooling.iter().map(|pooling| pooling.name()).collect();
            serde_json::json!({ "embedding": { "pooling": pooling.join("+") } })
        }
        Model::Entities(_) | Model::Answers(_) | Model::Words(_) => {
            serde_json::json!({ loaded.model.task().to_string(): labels() })
        }
        // Their labels come with each request.
        Model::AnyLabels(_) | Model::AnyEntities(_) => serde_json::json!({ loaded.model.task().to_string(): {} }),
    };
    Ok(json(&serde_json::json!({
        "model_id": options.model,
        "model_dtype": runner.options().precision.to_string(),
        "model_type": model_type,
        "task": loaded.model.task().to_string(),
        "max_concurrent_requests": app.settings.max_connections,
        "max_input_length": Some(runner.max_length()).filter(|length| *length < usize::MAX),
        "max_batch_tokens": loaded.scheduler.budget(),
        "max_waiting_tokens": options.max_waiting,
        "tokenization_workers": options.tokenization_threads,
        "auto_truncate": true,
        "version": env!("CARGO_PKG_VERSION"),
    })))
}
