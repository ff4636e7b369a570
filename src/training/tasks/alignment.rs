//! Vectors of texts that resemble given ones.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Collator, Examples, Splits, distinct, lengths, rows};
use crate::{
    Error, Result,
    batch::Truncated,
    data::Part,
    heads::{AlignmentLoss, TextEncoder},
    training::{
        metrics::{Metrics, Retrieval},
        objective::VectorLabels,
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// Fine-tunes a [`TextEncoder`] beside a frozen model, whose vectors are the examples' targets.
#[derive(Clone, Debug)]
pub struct AlignmentTask {
    collator: Collator,
    data: Splits<Examples<Vec<f32>>>,
    loss: AlignmentLoss,
}

impl AlignmentTask {
    /// Puts data and model together.
    ///
    /// # Errors
    /// Vectors of different sizes.
    pub fn new(collator: Collator, data: Splits<Examples<Vec<f32>>>, loss: AlignmentLoss) -> Result<Self> {
        let task = Self { collator, data, loss };
        let width = task.width();
        for (part, flag) in
            [(Part::Train, "--vectors"), (Part::Valid, "--valid-vectors"), (Part::Test, "--test-vectors")]
        {
            let mut vectors = task.data.get(part).into_iter().flat_map(|examples| &examples.targets);
            if let Some(other) = vectors.find(|vector| vector.len() != width) {
                let problem = format!("it has vectors of {} numbers, expected {width}, as the first ones", other.len());
                return Err(Error::setting(flag, problem));
            }
        }
        Ok(task)
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.data.train.targets.first().map_or(0, Vec::len)
    }

    /// The figures of a model on some examples: how well a text finds its vector among all.
    ///
    /// # Errors
    /// An example that the model cannot take.
    pub fn score(&self, model: &TextEncoder, examples: &Examples<Vec<f32>>, device: &Device) -> Result<Metrics> {
        let vectors = self.collator.evaluate(&examples.encodings, device, |input| rows(model.forward(input)))?;
        // Several texts may describe one image.
        let bits = |vector: &Vec<f32>| vector.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let (candidates, own) = distinct(&examples.targets, bits);
        Ok(Retrieval::new(&vectors, &candidates, &own).metrics())
    }
}

impl Task for AlignmentTask {
    type Learner = Trainer<TextEncoder>;

    fn lengths(&self) -> Vec<usize> {
        lengths(&self.data.train.encodings)
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let data = &self.data.train;
        let input = self.collator.input(examples.iter().map(|index| &data.encodings[*index]), device)?;
        let given: Vec<f32> = examples.iter().flat_map(|index| &data.targets[*index]).copied().collect();
        let shape = [examples.len(), given.len() / examples.len()];
        let given = Tensor::from_data(TensorData::new(given, shape), device);
        Ok((input, VectorLabels::Given { vectors: given, loss: self.loss }))
    }

    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        self.data.truncated(max_length)
    }

    fn evaluate(&self, model: &TextEncoder, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
