//! Passages in the order of their relevance to a query, by a cross-encoder.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Classifier, PipelineOptions};
use crate::{
    Error, Result,
    checkpoint::LoadReport,
    scores::{sigmoid, sort_by_score},
    tokenizer::{Text, Truncation},
};

/// A query and the passages to be ranked for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RankRequest {
    /// What is looked for.
    pub query: String,
    /// Where it may be found.
    pub passages: Vec<String>,
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
}

/// Queries and passages in, rankings out, by a sequence classification head with one output or two labels (not relevant,
/// relevant).
pub struct Reranker {
    classifier: Classifier,
}

impl Reranker {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// As [`Classifier::from_folder`]; a head with more than two labels.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let classifier = Classifier::from_folder(folder, options)?;
        let labels = classifier.task().num_labels();
        if labels > 2 {
            let problem = format!("it has {labels} labels; a reranker has one output, or two labels");
            return Err(Error::unsupported("model", problem));
        }
        Ok(Self { classifier })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.classifier.report()
    }

    /// What a score means, in a few words.
    pub fn meaning(&self) -> String {
        let task = self.classifier.task();
        match task.num_labels() {
            1 => "the model's one output".to_owned(),
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
            return Err(Error::input(format!("request {index}"), "it has no passages, expected at least one"));
        }
        let passages =
            |(index, request): (usize, &RankRequest)| (0..request.passages.len()).map(move |passage| (index, passage));
        let places: Vec<(usize, usize)> = requests.iter().enumerate().flat_map(passages).collect();
        let pairs: Vec<Text<'_>> = places
            .iter()
            .map(|&(index, passage)| Text::from((&requests[index].query, &requests[index].passages[passage])))
            .collect();
        let logits =
            self.classifier.encode(&pairs, Truncation::OnlySecond).and_then(|pairs| self.classifier.logits(&pairs));
        let name = |pair: usize| format!("request {}, passage {}", places[pair].0, places[pair].1);
        let mut logits = logits.map_err(|error| error.with_text_name(name))?.into_iter();
        let rank = |request: &RankRequest| {
            let scores = logits.by_ref().take(request.passages.len());
            let mut ranking: Vec<_> = scores
                .enumerate()
                .map(|(index, logits)| {
                    let score = if let [negative, positive] = logits[..] { positive - negative } else { logits[0] };
                    RankedPassage { index, score, probability: sigmoid(score) }
                })
                .collect();
            sort_by_score(&mut ranking, |passage| passage.score);
            ranking
        };
        Ok(requests.iter().map(rank).collect())
    }
}
