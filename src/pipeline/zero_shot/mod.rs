//! Labels that the model was never trained on: by natural language inference, or by a GLiClass model.

mod entailment;
mod gliclass;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use self::{entailment::Entailment, gliclass::GliClass};
use super::{Classifier, LabelScore, Pipeline, PipelineOptions, Runner};
use crate::{Error, Result, batch::Encoding, checkpoint::LoadReport, config::GliClassConfig, scores::sort_by_score};

/// How candidates are put to the model, and how they are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroShotOptions {
    /// The hypothesis of natural language inference; `{}` stands for the candidate.
    pub template: String,
    /// Whether each candidate is judged on its own and not against the others.
    pub multi_label: bool,
}

impl Default for ZeroShotOptions {
    /// "This example is {}.", one label for each text.
    fn default() -> Self {
        Self { template: "This example is {}.".to_owned(), multi_label: false }
    }
}

/// A text and the labels that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroShotRequest {
    /// The text.
    pub text: String,
    /// The labels to choose from; blank ones do not count.
    pub candidates: Vec<String>,
    /// How they are scored.
    pub options: ZeroShotOptions,
}

impl ZeroShotRequest {
    /// The candidates without white space around them.
    fn labels(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().map(|candidate| candidate.trim()).filter(|candidate| !candidate.is_empty())
    }
}

/// Texts and candidate labels in, scores out.
pub struct ZeroShot {
    judge: Judge,
}

/// The model that scores.
#[allow(clippy::large_enum_variant, reason = "there is one in a pipeline")]
enum Judge {
    /// It reads each candidate with the text.
    Entailment(Entailment),
    /// It reads all candidates with the text.
    GliClass(GliClass),
}

impl ZeroShot {
    /// Opens a checkpoint folder: of a GLiClass model (`model_type` in `config.json`), else of a classifier trained for natural
    /// language inference.
    ///
    /// # Errors
    /// As [`Classifier::from_folder`]; a GLiClass model of a kind that is not supported; a
    /// classifier with only one label, or without a label called entailment (`id2label`).
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let folder = folder.as_ref();
        match GliClassConfig::is_in(folder) {
            true => Ok(Self { judge: Judge::GliClass(GliClass::open(folder, options)?) }),
            false => Self::new(Arc::new(Classifier::from_folder(folder, options)?)),
        }
    }

    /// Takes an opened classifier, which may have other uses.
    ///
    /// # Errors
    /// A model with only one label, or without a label called entailment.
    pub fn new(classifier: Arc<Classifier>) -> Result<Self> {
        Ok(Self { judge: Judge::Entailment(Entailment::new(classifier)?) })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.runner().report()
    }

    /// Whether the model reads [`ZeroShotOptions::template`]; a GLiClass model reads the labels alone.
    pub fn reads_template(&self) -> bool {
        matches!(self.judge, Judge::Entailment(_))
    }

    /// Scores every candidate for each text, highest first. The scores are probabilities over the candidates (softmax
    /// of their logits, which are those of entailment in natural language inference). With `multi_label`, or if there is only one
    /// candidate, each candidate has a probability of its own: that of entailment against contradiction, or a sigmoid.
    ///
    /// White space around a candidate is ignored, and blank candidates are left out. A text that is too long is cut at
    /// its end; the labels stay whole.
    ///
    /// # Errors
    /// No text or no candidate, a template without `{}` (for GLiClass, any but the default), labels longer than the model's
    /// input, or scores that are not finite.
    pub fn classify(
        &self,
        texts: &[impl AsRef<str>],
        candidates: &[impl AsRef<str>],
        options: &ZeroShotOptions,
    ) -> Result<Vec<Vec<LabelScore>>> {
        let candidates: Vec<String> = candidates.iter().map(|candidate| candidate.as_ref().to_owned()).collect();
        let request = |text: &str| ZeroShotRequest {
            text: text.to_owned(),
            candidates: candidates.clone(),
            options: options.clone(),
        };
        self.run(&texts.iter().map(|text| request(text.as_ref())).collect::<Vec<_>>())
    }
}

impl Pipeline for ZeroShot {
    type Request = ZeroShotRequest;
    type Answer = Vec<LabelScore>;

    fn runner(&self) -> &Runner {
        match &self.judge {
            Judge::Entailment(model) => model.classifier.runner(),
            Judge::GliClass(model) => &model.runner,
        }
    }

    fn encode(&self, request: &ZeroShotRequest) -> Result<Vec<Encoding>> {
        if request.labels().next().is_none() {
            return Err(Error::setting("candidates", "there are none, expected at least one label"));
        }
        match &self.judge {
            Judge::Entailment(model) => model.encode(request),
            Judge::GliClass(model) => model.encode(request),
        }
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        match &self.judge {
            Judge::Entailment(model) => model.classifier.forward(batch),
            Judge::GliClass(model) => model.forward(batch),
        }
    }

    fn decode(
        &self,
        request: &ZeroShotRequest,
        sequences: &[Encoding],
        rows: Vec<Vec<f32>>,
    ) -> Result<Vec<LabelScore>> {
        self.runner().check_finite(sequences, &rows)?;
        let candidates: Vec<&str> = request.labels().collect();
        let each = request.options.multi_label || candidates.len() == 1;
        let scores = match &self.judge {
            Judge::Entailment(model) => model.scores(&rows, each),
            Judge::GliClass(_) => GliClass::scores(&rows[0], each),
        };
        let labelled = candidates.into_iter().zip(scores);
        let mut scores: Vec<_> = labelled.map(|(label, score)| LabelScore { label: label.to_owned(), score }).collect();
        sort_by_score(&mut scores, |score| score.score);
        Ok(scores)
    }
}
