//! The tasks that a model can be trained for: from rows of data to batches with labels, and from a model's answers to
//! figures.

mod answering;
mod choice;
mod classification;
mod masked_lm;
mod replaced_token;
mod tagging;

pub use answering::{AnsweringData, AnsweringTask};
pub use choice::ChoiceTask;
pub use classification::ClassificationTask;
pub use masked_lm::MaskedLmTask;
pub use replaced_token::ReplacedTokenTask;
pub use tagging::TaggingTask;

use burn::tensor::{Device, Tensor};

use crate::{
    Error, ModelConfig, Result,
    batch::{Batch, Encoding, Padding, batches_by_length},
    data::Part,
    model::{input::ModelInput, masked_positions::indices},
};

/// Encoded texts and what belongs to each.
#[derive(Clone, Debug)]
pub struct Examples<T> {
    /// The texts as tokens.
    pub encodings: Vec<Encoding>,
    /// What each is to give.
    pub targets: Vec<T>,
}

/// The parts of a task's data.
#[derive(Clone, Debug)]
pub struct Splits<E> {
    /// What is learnt from.
    pub train: E,
    /// What the best model is chosen by.
    pub valid: Option<E>,
    /// What the chosen model is judged by.
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

/// Makes batches for one model.
#[derive(Clone, Debug)]
pub struct Collator {
    /// The model's configuration.
    pub config: ModelConfig,
    /// The token that fills rows up.
    pub pad_id: u32,
    /// Texts in a batch of an evaluation.
    pub batch_size: usize,
}

impl Collator {
    /// Some sequences as the model's input.
    fn input<'a>(&self, encodings: impl IntoIterator<Item = &'a Encoding>, device: &Device) -> Result<ModelInput> {
        Batch::collate(encodings, self.pad_id, Padding::Longest)?.to_input(&self.config, device)
    }

    /// Runs `compute` on batches of similar length; it returns one value for each sequence, and they come back in the order of
    /// `encodings`.
    fn evaluate<T: Clone + Default>(
        &self,
        encodings: &[Encoding],
        device: &Device,
        mut compute: impl FnMut(ModelInput) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let mut values = vec![T::default(); encodings.len()];
        for indices in batches_by_length(encodings, self.batch_size)? {
            let input = self.input(indices.iter().map(|index| &encodings[*index]), device)?;
            for (index, value) in indices.iter().zip(compute(input)?) {
                values[*index] = value;
            }
        }
        Ok(values)
    }
}

/// The values of what a model computed, row after row.
///
/// # Errors
/// [`Error::NotFinite`] if one is NaN or infinite: the largest of such is no answer.
fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let values = tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| Error::Model(format!("the result cannot be read back from the device: {error}")))?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::NotFinite {
            index: 0,
            subject: "evaluation".into(),
            problem: format!("the model answers with {value}"),
        }),
        None => Ok(values),
    }
}

/// Tokens of each sequence.
fn lengths(encodings: &[Encoding]) -> Vec<usize> {
    encodings.iter().map(Encoding::len).collect()
}

/// The index of the largest of each row's numbers.
fn largest(row: &[f32]) -> usize {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]).then(b.cmp(a))).unwrap_or(0)
}
