//! One of several continuations.

use burn::tensor::Device;

use super::{Collator, Examples, Splits, indices, lengths, rows};
use crate::{
    Result,
    batch::Truncated,
    data::{ChoiceExample, Part},
    heads::MultipleChoice,
    scores::argmax,
    tokenizer::{EncodeOptions, Text, Tokenizer},
    training::{
        metrics::{Classification, Metrics},
        objective::ChoiceLabels,
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// Fine-tunes a [`MultipleChoice`].
#[derive(Clone, Debug)]
pub struct ChoiceTask {
    collator: Collator,
    /// Encodings: the choices of each question, one after the other. Targets: one for each question.
    data: Splits<Examples<usize>>,
}

impl ChoiceTask {
    /// Puts data and model together.
    pub fn new(collator: Collator, data: Splits<Examples<usize>>) -> Self {
        Self { collator, data }
    }

    /// Encodes questions: for each choice, a pair of prompt and choice.
    ///
    /// # Errors
    /// A text that the tokenizer cannot take.
    pub fn examples(tokenizer: &Tokenizer, rows: &[ChoiceExample], max_length: usize) -> Result<Examples<usize>> {
        let pairs = rows
            .iter()
            .flat_map(|row| row.choices.iter().map(|choice| Text::from((row.prompt.as_str(), choice.as_str()))));
        let options = EncodeOptions { max_length, ..EncodeOptions::default() };
        let encodings = tokenizer.encode(&pairs.collect::<Vec<_>>(), &options)?;
        Ok(Examples { encodings, targets: rows.iter().map(|row| row.label).collect() })
    }

    /// The figures of a model on some examples.
    ///
    /// # Errors
    /// An example that the model cannot take.
    pub fn score(&self, model: &MultipleChoice, examples: &Examples<usize>, device: &Device) -> Result<Metrics> {
        // Each choice is scored on its own: a batch need not hold whole questions.
        let scores = self.collator.evaluate(&examples.encodings, device, |input| rows(model.forward(input, 1)))?;
        let predictions: Vec<_> = scores.concat().chunks(choices(examples)).map(argmax).collect();
        Ok(Classification::new(&examples.targets, &predictions)?.metrics())
    }
}

/// Choices of a question.
fn choices(examples: &Examples<usize>) -> usize {
    examples.encodings.len() / examples.targets.len().max(1)
}

impl Task for ChoiceTask {
    type Learner = Trainer<MultipleChoice>;

    /// The longest choice of each question.
    fn lengths(&self) -> Vec<usize> {
        let choices = lengths(&self.data.train.encodings);
        choices
            .chunks(self::choices(&self.data.train))
            .map(|of_one| of_one.iter().copied().max().unwrap_or(0))
            .collect()
    }

    fn tokens(&self) -> Vec<usize> {
        let choices = lengths(&self.data.train.encodings);
        choices.chunks(self::choices(&self.data.train)).map(|of_one| of_one.iter().sum()).collect()
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let choices = choices(&self.data.train);
        let rows = examples.iter().flat_map(|index| &self.data.train.encodings[index * choices..(index + 1) * choices]);
        let input = self.collator.input(rows, device)?;
        let right = indices(examples.iter().map(|index| self.data.train.targets[*index]), device);
        Ok((input, ChoiceLabels { choices, right }))
    }

    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        self.data.truncated(max_length)
    }

    fn evaluate(&self, model: &MultipleChoice, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
