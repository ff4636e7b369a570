//! Labels that the model was never trained on, by natural language inference: does the text entail "This example is
//! {label}."? (Yin et al. 2019, "Benchmarking Zero-shot Text Classification", arXiv 1909.00161.)

use std::path::Path;

use super::{
    Classifier, LabelScore, PipelineOptions,
    scores::{softmax, sort_by_score},
};
use crate::{
    Error, Result,
    checkpoint::LoadReport,
    config::TaskConfig,
    tokenizer::{Text, Truncation},
};

/// How candidates are turned into hypotheses and scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroShotOptions {
    /// The hypothesis; `{}` stands for the candidate.
    pub template: String,
    /// Whether each candidate is judged on its own (entailed or contradicted) instead of against the others.
    pub multi_label: bool,
}

impl Default for ZeroShotOptions {
    /// "This example is {}.", one label a text.
    fn default() -> Self {
        Self { template: "This example is {}.".to_owned(), multi_label: false }
    }
}

/// Texts and candidate labels in, scores out, by a classifier trained for natural language inference.
pub struct ZeroShot {
    classifier: Classifier,
    entailment: usize,
    /// None if the model only tells entailment from neutral.
    contradiction: Option<usize>,
}

impl ZeroShot {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// As [`Classifier::open`]; labels (`id2label`) none of which is called entailment.
    pub fn open(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let classifier = Classifier::open(folder, options)?;
        let task = classifier.task();
        let entailment = find(task, &["entail"])
            .ok_or_else(|| inference_error(task, "none of them is called entailment: zero-shot needs an NLI model"))?;
        let contradiction = find(task, &["contradict", "not_entail", "not entail", "non_entail"]);
        Ok(Self { classifier, entailment, contradiction })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.classifier.report()
    }

    /// Scores every candidate for each text, highest first: probabilities over the candidates (softmax of their entailment
    /// logits), or with `multi_label` each candidate's own (entailment against contradiction).
    ///
    /// A text that is too long is cut at its end; the hypothesis stays whole.
    ///
    /// # Errors
    /// No text or no candidate, a template without `{}`, a hypothesis longer than the model's input, or `multi_label` with a
    /// model that has no label for contradiction.
    pub fn classify(
        &self,
        texts: &[impl AsRef<str>],
        candidates: &[impl AsRef<str>],
        options: &ZeroShotOptions,
    ) -> Result<Vec<Vec<LabelScore>>> {
        let candidates: Vec<&str> = candidates.iter().map(AsRef::as_ref).collect();
        if candidates.is_empty() {
            return Err(Error::input("candidates", "there are none, expected at least one label"));
        }
        if !options.template.contains("{}") {
            let problem = format!("`{}` has no {{}} to put the label into", options.template);
            return Err(Error::input("hypothesis template", problem));
        }
        let contradiction = match self.contradiction {
            None if options.multi_label => {
                return Err(inference_error(self.classifier.task(), "multi-label needs one called contradiction"));
            }
            contradiction => contradiction.filter(|_| options.multi_label),
        };

        let hypotheses: Vec<String> =
            candidates.iter().map(|candidate| options.template.replace("{}", candidate)).collect();
        let pairs = texts
            .iter()
            .map(|text| hypotheses.iter().map(|hypothesis| Text::from((text.as_ref(), hypothesis))).collect());
        let logits = self.classifier.logits_of_groups(pairs, "text", Truncation::OnlyFirst)?;
        Ok(logits.chunks(candidates.len()).map(|logits| self.scores(logits, &candidates, contradiction)).collect())
    }

    /// The scores of one text's candidates.
    fn scores(&self, logits: &[Vec<f32>], candidates: &[&str], contradiction: Option<usize>) -> Vec<LabelScore> {
        let entailment = |logits: &Vec<f32>| logits[self.entailment];
        let scores: Vec<f32> = match contradiction {
            Some(index) => logits.iter().map(|logits| softmax(&[entailment(logits), logits[index]])[0]).collect(),
            None => softmax(&logits.iter().map(entailment).collect::<Vec<_>>()),
        };
        let labelled = candidates.iter().zip(scores);
        let mut scores: Vec<_> =
            labelled.map(|(label, score)| LabelScore { label: (*label).to_owned(), score }).collect();
        sort_by_score(&mut scores, |score| score.score);
        scores
    }
}

/// The first label whose name starts in one of these ways, in any case.
fn find(task: &TaskConfig, starts: &[&str]) -> Option<usize> {
    let matches = |name: String| starts.iter().any(|start| name.to_lowercase().starts_with(start));
    (0..task.num_labels()).find(|&index| matches(task.label(index)))
}

fn inference_error(task: &TaskConfig, problem: &str) -> Error {
    let labels: Vec<String> = (0..task.num_labels()).map(|index| task.label(index)).collect();
    Error::Model(format!("its labels are {}; {problem} (see id2label in config.json)", labels.join(", ")))
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
        let mnli = task(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]);
        assert_eq!((find(&mnli, &["entail"]), find(&mnli, &["contradict"])), (Some(2), Some(0)));
        let binary = task(&["not_entailment", "entailment"]);
        assert_eq!((find(&binary, &["entail"]), find(&binary, &["contradict", "not_entail"])), (Some(1), Some(0)));
        assert_eq!(find(&task(&[]), &["entail"]), None);
    }
}
