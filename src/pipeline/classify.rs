//! Labels for texts and pairs of texts.

use std::path::Path;

use serde::Serialize;

use super::{PipelineOptions, runner::Runner};
use crate::{
    Result,
    batch::Encoding,
    checkpoint::LoadReport,
    config::{ProblemType, TaskConfig},
    heads::SequenceClassification,
    model::inference::Prepared,
    scores::{rows, sigmoid, softmax, sort_by_score},
    tokenizer::{Text, Truncation},
};

/// A label and its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScore {
    /// The label's name.
    pub label: String,
    /// A probability; for regression the number itself.
    pub score: f32,
}

/// Texts in, labels with scores out, by a sequence classification head.
pub struct Classifier {
    runner: Runner,
    head: Prepared<SequenceClassification>,
}

impl Classifier {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// A missing or damaged file, a checkpoint of another task or without the head (`pooler.*`, `classifier.*`), or options
    /// that do not fit the model.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let (runner, head) = Runner::open(folder.as_ref(), options)?;
        Ok(Self { runner, head })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        &self.runner.report
    }

    /// The task's part of the configuration: labels, and the meaning of scores.
    pub fn task(&self) -> &TaskConfig {
        self.runner.config.task()
    }

    /// Scores every label for each text or pair of texts. By the model's [`ProblemType`]:
    /// - single label: probabilities that add up to 1, highest first;
    /// - multi-label: a probability for each label on its own, highest first;
    /// - regression: the numbers, in the order of the outputs.
    ///
    /// Texts that are too long are cut, on the side that the tokenizer's settings say; of a pair, the longer text is
    /// cut first.
    ///
    /// # Errors
    /// No text at all, tokens that the model does not have, or scores that are not finite.
    pub fn classify<'a>(&self, texts: impl IntoIterator<Item = impl Into<Text<'a>>>) -> Result<Vec<Vec<LabelScore>>> {
        let texts: Vec<Text<'_>> = texts.into_iter().map(Into::into).collect();
        let logits = self.logits(&self.encode(&texts, Truncation::LongestFirst)?)?;
        Ok(logits.iter().map(|logits| self.scores(logits)).collect())
    }

    /// Texts in the form that [`logits`](Self::logits) takes.
    pub(super) fn encode(&self, texts: &[Text<'_>], truncation: Truncation) -> Result<Vec<Encoding>> {
        self.runner.encode(texts, truncation, None)
    }

    /// The raw outputs for each text, in the order of the labels.
    pub(super) fn logits(&self, encodings: &[Encoding]) -> Result<Vec<Vec<f32>>> {
        self.runner.run(encodings, |input, _| rows(self.head.forward(input)), |_, logits| logits)
    }

    fn scores(&self, logits: &[f32]) -> Vec<LabelScore> {
        let problem = self.task().problem_type();
        let scores = match problem {
            ProblemType::SingleLabelClassification => softmax(logits),
            ProblemType::MultiLabelClassification => logits.iter().copied().map(sigmoid).collect(),
            ProblemType::Regression => logits.to_vec(),
        };
        let labelled = scores.into_iter().enumerate();
        let mut scores: Vec<_> =
            labelled.map(|(index, score)| LabelScore { label: self.task().label(index), score }).collect();
        if problem != ProblemType::Regression {
            sort_by_score(&mut scores, |score| score.score);
        }
        scores
    }
}
