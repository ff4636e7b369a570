//! Passages in the order of their relevance to a query, by a cross-encoder.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Classifier, Pipeline, PipelineOptions, Runner, activation::ScoreActivation};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::LoadReport,
    scores::{sigmoid, sort_by_score},
    tokenizer::{Text, Truncation, TruncationSide},
};

/// A query and the passages to be ranked for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RankRequest {
    /// What is looked for.
    pub query: String,
    /// Where it may be found.
    pub passages: Vec<String>,
    /// The side on which a passage that is too long is cut; if none, that of the tokenizer's settings.
    #[serde(skip)]
    pub side: Option<TruncationSide>,
}

impl RankRequest {
    /// A query and its passages, cut on the side of the tokenizer's settings.
    pub fn new(query: impl Into<String>, passages: Vec<String>) -> Self {
        Self { query: query.into(), passages, side: None }
    }
}

/// A passage in a ranking.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedPassage {
    /// Which of the request's passages it is, from 0.
    pub index: usize,
    /// The raw score. With one output it is that output; with two labels, the logit of the second minus that of the
    /// first.
    pub score: f32,
    /// The sigmoid of the score; with two labels, the probability of the second.
    pub probability: f32,
    /// What the folder's activation makes of the one output, as sentence-transformers' `CrossEncoder.predict` does: its
    /// sigmoid, or the output itself. With two labels the probability of the second.
    pub relevance: f32,
}

/// Queries and passages in, rankings out, by a sequence classification head with one output or two labels (not relevant,
/// relevant).
pub struct Reranker {
    classifier: Arc<Classifier>,
    activation: ScoreActivation,
}

impl Reranker {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// As [`Classifier::from_folder`]; a head with more than two labels; an activation of one output that is neither sigmoid
    /// nor identity.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        Self::new(Arc::new(Classifier::from_folder(folder, options)?))
    }

    /// Takes an opened classifier, which may have other uses.
    ///
    /// # Errors
    /// A head with more than two labels; an activation of one output that is neither sigmoid nor identity.
    pub fn new(classifier: Arc<Classifier>) -> Result<Self> {
        let labels = classifier.task().num_labels();
        if labels > 2 {
            let problem = format!("it has {labels} labels; a reranker has one output, or two labels");
            return Err(Error::unsupported("model", problem));
        }
        let activation = match labels {
            1 => ScoreActivation::from_folder(classifier.runner().checkpoint().folder())?,
            _ => ScoreActivation::Sigmoid,
        };
        Ok(Self { classifier, activation })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.classifier.report()
    }

    /// What a score means, in a few words.
    pub fn meaning(&self) -> String {
        let task = self.classifier.task();
        match task.num_labels() {
            1 => format!("the model's one output; its relevance is the {} of it", self.activation.name()),
            _ => format!("logit of {} less logit of {}", task.label(1), task.label(0)),
        }
    }

    /// Ranks the passages of every request, the most relevant first.
    ///
    /// A passage that is too long is cut at its end; the query stays whole.
    ///
    /// # Errors
    /// No request at all, a request without passages, a query that leaves no room for a passage, or scores that are not
    /// finite.
    pub fn rank(&self, requests: &[RankRequest]) -> Result<Vec<Vec<RankedPassage>>> {
        if let Some(index) = requests.iter().position(|request| request.passages.is_empty()) {
            return Err(Error::text(index, NO_PASSAGES).with_text_name(|request| format!("request {request}")));
        }
        self.run(requests)
    }
}

const NO_PASSAGES: &str = "it has no passages, expected at least one";

impl Pipeline for Reranker {
    type Request = RankRequest;
    type Answer = Vec<RankedPassage>;

    fn runner(&self) -> &Runner {
        self.classifier.runner()
    }

    fn encode(&self, request: &RankRequest) -> Result<Vec<Encoding>> {
        if request.passages.is_empty() {
            return Err(Error::input("request", NO_PASSAGES));
        }
        let pair = |passage| {
            let pair = Text::from((&request.query, passage));
            request.side.into_iter().fold(pair, Text::cut_on)
        };
        let pairs: Vec<Text<'_>> = request.passages.iter().map(pair).collect();
        let encodings = self.runner().encode(&pairs, Truncation::OnlySecond, None);
        encodings.map_err(|error| error.with_text_name(|passage| format!("passage {passage}")))
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        self.classifier.forward(batch)
    }

    fn decode(&self, _: &RankRequest, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Vec<RankedPassage>> {
        self.runner().check_finite(sequences, &rows)?;
        let ranked = |(index, logits): (usize, &Vec<f32>)| {
            let score = if let [negative, positive] = logits[..] { positive - negative } else { logits[0] };
            let relevance = self.activation.apply(score);
            RankedPassage { index, score, probability: sigmoid(score), relevance }
        };
        let mut ranking: Vec<_> = rows.iter().enumerate().map(ranked).collect();
        sort_by_score(&mut ranking, |passage| passage.score);
        Ok(ranking)
    }

    fn name(request: usize, passage: usize) -> String {
        format!("request {request}, passage {passage}")
    }
}
