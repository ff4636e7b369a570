//! The tasks that a model can be trained for: from rows of data to batches with labels, and from a model's answers to
//! figures.

mod alignment;
mod answering;
mod choice;
mod classification;
mod entities;
mod masked_lm;
mod pairs;
mod ranking;
mod replaced_token;
mod tagging;

pub use alignment::AlignmentTask;
pub use answering::{AnsweringData, AnsweringTask};
pub use choice::ChoiceTask;
pub use classification::ClassificationTask;
pub use entities::{AskedTypes, EntityExamples, EntityOptions, EntityReader, EntityTask, GlinerBase};
pub use masked_lm::MaskedLmTask;
pub use pairs::{PairEncoder, PairExamples, PairTask};
pub use ranking::{RankingExamples, RankingLoss, RankingTask};
pub use replaced_token::ReplacedTokenTask;
pub use tagging::TaggingTask;

use std::{collections::HashMap, hash::Hash};

use burn::tensor::{Device, Tensor};

use crate::{
    Error, ModelConfig, Result,
    batch::{Batch, Encoding, Padding, Truncated, in_batches},
    data::Part,
    model::{input::ModelInput, masked_positions::indices},
    scores,
};

/// Encoded texts, each with its target.
#[derive(Clone, Debug)]
pub struct Examples<T> {
    /// The texts as tokens.
    pub encodings: Vec<Encoding>,
    /// What the model is to answer for each.
    pub targets: Vec<T>,
}

/// The parts of a task's data.
#[derive(Clone, Debug)]
pub struct Splits<E> {
    /// The part to learn from.
    pub train: E,
    /// The part that decides which model is the best.
    pub valid: Option<E>,
    /// The part that the best model is judged by.
    pub test: Option<E>,
}

impl<E> Splits<E> {
    /// The part, if there is one.
    pub fn get(&self, part: Part) -> Option<&E> {
        match part {
            Part::Train => Some(&self.train),
            Part::Valid => self.valid.as_ref(),
            Part::Test => self.test.as_ref(),
        }
    }
}

impl<T> Splits<Examples<T>> {
    /// The number of texts in all parts that were cut to `max_length` tokens; none if there are none.
    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        let parts = [Some(&self.train), self.valid.as_ref(), self.test.as_ref()].into_iter().flatten();
        let counts = parts.filter_map(|part| Truncated::count(&part.encodings, max_length));
        counts.reduce(|sum, part| Truncated { texts: sum.texts + part.texts, ..sum })
    }
}

/// Makes batches for one model.
#[derive(Clone, Debug)]
pub struct Collator {
    /// The model's configuration.
    pub config: ModelConfig,
    /// The id of the padding token.
    pub pad_id: u32,
    /// Most tokens in a batch of an evaluation.
    pub batch_tokens: usize,
}

impl Collator {
    /// Some sequences as the model's input.
    fn input<'a>(&self, encodings: impl IntoIterator<Item = &'a Encoding>, device: &Device) -> Result<ModelInput> {
        Batch::collate(encodings, self.pad_id, Padding::Longest)?.to_input(&self.config, device)
    }

    /// Runs `compute` on batches of similar length. It returns one value for each sequence; the result has them in the
    /// order of `encodings`.
    fn evaluate<T>(
        &self,
        encodings: &[Encoding],
        device: &Device,
        mut compute: impl FnMut(ModelInput) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        in_batches(encodings, self.batch_tokens, |indices| {
            compute(self.input(indices.iter().map(|index| &encodings[*index]), device)?)
        })
    }
}

/// What a model computed, as one list for each row of the first dimension.
///
/// # Errors
/// [`Error::NotFinite`] if a value is NaN or infinite: a decision by the largest value would be meaningless.
fn rows<const D: usize>(tensor: Tensor<D>) -> Result<Vec<Vec<f32>>> {
    let rows = scores::rows(tensor)?;
    match rows.iter().flatten().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::not_finite("evaluation", format!("the model answers with {value}"))),
        None => Ok(rows),
    }
}

/// Tokens of each sequence.
fn lengths(encodings: &[Encoding]) -> Vec<usize> {
    encodings.iter().map(Encoding::len).collect()
}

/// The candidates without repetition, told apart by their keys, and the index of each one among them.
fn distinct<T: Clone, K: Eq + Hash>(candidates: &[T], key: impl Fn(&T) -> K) -> (Vec<T>, Vec<usize>) {
    let (mut found, mut known) = (Vec::new(), HashMap::new());
    let index = |candidate: &T| {
        *known.entry(key(candidate)).or_insert_with(|| {
            found.push(candidate.clone());
            found.len() - 1
        })
    };
    let own = candidates.iter().map(index).collect();
    (found, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_candidates_are_one() {
        let (candidates, own) = distinct(&["one", "other", "one"], |candidate| candidate.len());
        assert_eq!((candidates, own), (vec!["one", "other"], vec![0, 1, 0]));
    }

    #[test]
    fn answers_that_are_not_finite_belong_to_no_single_text() {
        let tensor = Tensor::<2>::from_floats([[0.0, 1.0], [f32::NAN, 0.0]], &Device::flex());
        let error = rows(tensor).unwrap_err();
        assert!(matches!(error, Error::NotFinite { index: None, .. }), "{error:?}");
        let error = error.with_text_name(|index| format!("line {index}"));
        assert_eq!(error.to_string(), "evaluation: the model answers with NaN");
    }
}
