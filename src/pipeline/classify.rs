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
        let texts: Vec<Text<'static>> = texts.into_iter().map(|text| text.into().into_owned()).collect();
        self.run(&texts)
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

impl Pipeline for Classifier {
    type Request = Text<'static>;
    type Answer = Vec<LabelScore>;

    fn runner(&self) -> &Runner {
        &self.runner
    }

    fn encode(&self, text: &Text<'static>) -> Result<Vec<Encoding>> {
        self.runner.encode(std::slice::from_ref(text), Truncation::LongestFirst, None)
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        rows(self.head.forward(self.runner.input(batch)?))
    }

    fn decode(&self, _: &Text<'static>, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Vec<LabelScore>> {
        self.runner.check_finite(sequences, &rows)?;
        Ok(self.scores(&rows[0]))
    }
}
