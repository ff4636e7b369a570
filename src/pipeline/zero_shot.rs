//! Labels that the model was never trained on, by natural language inference: does the text entail "This example is
//! {label}."? (Yin et al. 2019, "Benchmarking Zero-shot Text Classification", arXiv 1909.00161.)

use std::path::Path;

use super::{Classifier, LabelScore, Pipeline, PipelineOptions, Runner};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::LoadReport,
    config::TaskConfig,
    scores::{softmax, sort_by_score},
    tokenizer::{Text, Truncation},
};

/// How hypotheses are made of candidates, and how they are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroShotOptions {
    /// The hypothesis; `{}` stands for the candidate.
    pub template: String,
    /// Whether each candidate is judged on its own (entailment against contradiction) and not against the others.
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

/// Texts and candidate labels in, scores out, by a classifier trained for natural language inference.
pub struct ZeroShot {
    classifier: Classifier,
    entailment: usize,
    contradiction: usize,
}

impl ZeroShot {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// As [`Classifier::from_folder`]; a model with only one label, or without a label called entailment (`id2label`).
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let classifier = Classifier::from_folder(folder, options)?;
        let task = classifier.task();
        let (entailment, contradiction) = inference_labels(task).ok_or_else(|| {
            let labels: Vec<String> = (0..task.num_labels()).map(|index| task.label(index)).collect();
            let problem = "zero-shot needs an NLI model, with a label called entailment and another one";
            let problem = format!("its labels are {}; {problem} (see id2label in config.json)", labels.join(", "));
            Error::unsupported("model", problem)
        })?;
        Ok(Self { classifier, entailment, contradiction })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.classifier.report()
    }

    /// Scores every candidate for each text, highest first. The scores are probabilities over the candidates (softmax
    /// of their entailment logits). With `multi_label`, or if there is only one candidate, each candidate has a
    /// probability of its own: that of entailment against contradiction.
    ///
    /// White space around a candidate is ignored, and blank candidates are left out. A text that is too long is cut at
    /// its end; the hypothesis stays whole.
    ///
    /// # Errors
    /// No text or no candidate, a template without `{}`, a hypothesis longer than the model's input, or scores that are not
    /// finite.
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

    /// The scores of one text's candidates, `each` on its own or against each other.
    fn scores(&self, logits: &[Vec<f32>], candidates: &[&str], each: bool) -> Vec<LabelScore> {
        let entailed = |logits: &Vec<f32>| logits[self.entailment];
        let scores: Vec<f32> = match each {
            true => logits.iter().map(|logits| softmax(&[entailed(logits), logits[self.contradiction]])[0]).collect(),
            false => softmax(&logits.iter().map(entailed).collect::<Vec<_>>()),
        };
        let labelled = candidates.iter().zip(scores);
        let mut scores: Vec<_> =
            labelled.map(|(label, score)| LabelScore { label: (*label).to_owned(), score }).collect();
        sort_by_score(&mut scores, |score| score.score);
        scores
    }
}

impl Pipeline for ZeroShot {
    type Request = ZeroShotRequest;
    type Answer = Vec<LabelScore>;

    fn runner(&self) -> &Runner {
        self.classifier.runner()
    }

    fn encode(&self, request: &ZeroShotRequest) -> Result<Vec<Encoding>> {
        let ZeroShotRequest { text, options, .. } = request;
        if request.labels().next().is_none() {
            return Err(Error::setting("candidates", "there are none, expected at least one label"));
        }
        if !options.template.contains("{}") {
            let problem = format!("`{}` has no {{}} to put the label into", options.template);
            return Err(Error::setting("hypothesis template", problem));
        }
        let pairs = request.labels().map(|label| Text::from((text, options.template.replace("{}", label))));
        let pairs: Vec<Text<'_>> = pairs.collect();
        let mut encodings = self.runner().encode(&pairs, Truncation::OnlyFirst, None)?;
        // It is one text, for errors and for the count of texts that were cut.
        encodings.iter_mut().for_each(|encoding| encoding.text = 0);
        Ok(encodings)
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        self.classifier.forward(batch)
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
        Ok(self.scores(&rows, &candidates, each))
    }
}

/// The indices of entailment and contradiction, found by the names of labels, in upper or lower case. If no label is
/// called contradiction, it is the first label, or the last one if the first is entailment, as in the pipeline of
/// transformers.
fn inference_labels(task: &TaskConfig) -> Option<(usize, usize)> {
    let count = task.num_labels();
    let find = |starts: &[&str]| {
        let matches = |name: String| starts.iter().any(|start| name.to_lowercase().starts_with(start));
        (0..count).find(|&index| matches(task.label(index)))
    };
    let entailment = find(&["entail"])?;
    let last = if entailment == 0 { count - 1 } else { 0 };
    let contradiction = find(&["contradict", "not_entail", "not entail", "non_entail"]).unwrap_or(last);
    (contradiction != entailment).then_some((entailment, contradiction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_name() {
        let task = |labels: &[&str]| TaskConfig {
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            ..TaskConfig::default()
        };
        for (labels, found) in [
            (&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"][..], Some((2, 0))),
            (&["entailment", "contradiction", "neutral"], Some((0, 1))),
            (&["not_entailment", "entailment"], Some((1, 0))),
            (&["entailment", "neutral"], Some((0, 1))),
            (&["a", "entailment", "b"], Some((1, 0))),
            (&["entailment"], None),
            (&[], None),
        ] {
            assert_eq!(inference_labels(&task(labels)), found, "{labels:?}");
        }
    }
}
