//! Labels for texts and pairs of texts.

use std::path::Path;

use serde::Serialize;

use super::{Pipeline, PipelineOptions, Runner};
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

/// A text to be labelled.
#[derive(Clone, Debug)]
pub struct ClassifyRequest {
    /// The text or pair of texts.
    pub text: Text<'static>,
    /// Whether the scores are the model's outputs themselves and not probabilities.
    pub raw_scores: bool,
}

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
        self.runner.report()
    }

    /// The task's part of the configuration: labels, and the meaning of scores.
    pub fn task(&self) -> &TaskConfig {
        self.runner.config().task()
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
        let request = |text: Text<'a>| ClassifyRequest { text: text.into_owned(), raw_scores: false };
        let requests: Vec<ClassifyRequest> = texts.into_iter().map(|text| request(text.into())).collect();
        self.run(&requests)
    }

    fn scores(&self, logits: &[f32], raw: bool) -> Vec<LabelScore> {
        let problem = self.task().problem_type();
        let scores = match problem {
            ProblemType::SingleLabelClassification if !raw => softmax(logits),
            ProblemType::MultiLabelClassification if !raw => logits.iter().copied().map(sigmoid).collect(),
            _ => logits.to_vec(),
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

impl Pipeline for Classifier {
    type Request = ClassifyRequest;
    type Answer = Vec<LabelScore>;

    fn runner(&self) -> &Runner {
        &self.runner
    }

    fn encode(&self, request: &ClassifyRequest) -> Result<Vec<Encoding>> {
        self.runner.encode(std::slice::from_ref(&request.text), Truncation::LongestFirst, None)
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        rows(self.head.forward(self.runner.input(batch)?))
    }

    fn decode(
        &self,
        request: &ClassifyRequest,
        sequences: &[Encoding],
        rows: Vec<Vec<f32>>,
    ) -> Result<Vec<LabelScore>> {
        self.runner.check_finite(sequences, &rows)?;
        Ok(self.scores(&rows[0], request.raw_scores))
    }
}
