//! Labels as hypotheses: does the text entail "This example is {label}."? (Yin et al. 2019, "Benchmarking Zero-shot Text
//! Classification", arXiv 1909.00161.)

use std::sync::Arc;

use super::ZeroShotRequest;
use crate::{
    Error, Result,
    batch::Encoding,
    config::TaskConfig,
    pipeline::{Classifier, Pipeline},
    scores::softmax,
    tokenizer::{Text, Truncation},
};

/// A classifier trained for natural language inference.
pub(super) struct Entailment {
    pub classifier: Arc<Classifier>,
    entailment: usize,
    contradiction: usize,
}

impl Entailment {
    pub fn new(classifier: Arc<Classifier>) -> Result<Self> {
        let task = classifier.task();
        let (entailment, contradiction) = inference_labels(task).ok_or_else(|| {
            let labels: Vec<String> = (0..task.num_labels()).map(|index| task.label(index)).collect();
            let problem = "zero-shot needs an NLI model, with a label called entailment and another one";
            let problem = format!("its labels are {}; {problem} (see id2label in config.json)", labels.join(", "));
            Error::unsupported("model", problem)
        })?;
        Ok(Self { classifier, entailment, contradiction })
    }

    pub fn encode(&self, request: &ZeroShotRequest) -> Result<Vec<Encoding>> {
        let ZeroShotRequest { text, options, .. } = request;
        if !options.template.contains("{}") {
            let problem = format!("`{}` has no {{}} to put the label into", options.template);
            return Err(Error::setting("hypothesis template", problem));
        }
        let pairs = request.labels().map(|label| Text::from((text, options.template.replace("{}", label))));
        let pairs: Vec<Text<'_>> = pairs.collect();
        let mut encodings = self.classifier.runner().encode(&pairs, Truncation::OnlyFirst, None)?;
        // It is one text, for errors and for the count of texts that were cut.
        encodings.iter_mut().for_each(|encoding| encoding.text = 0);
        Ok(encodings)
    }

    /// The probabilities of the candidates, `each` on its own or against each other.
    pub fn scores(&self, logits: &[Vec<f32>], each: bool) -> Vec<f32> {
        let entailed = |logits: &Vec<f32>| logits[self.entailment];
        match each {
            true => logits.iter().map(|logits| softmax(&[entailed(logits), logits[self.contradiction]])[0]).collect(),
            false => softmax(&logits.iter().map(entailed).collect::<Vec<_>>()),
        }
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
