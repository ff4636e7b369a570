//! Classes, labels or numbers for texts and pairs of texts.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Collator, Examples, Splits, indices, lengths, rows};
use crate::{
    Result,
    batch::Truncated,
    config::ProblemType,
    data::{Part, Target},
    heads::{SequenceClassification, SequenceLabels},
    scores::argmax,
    training::{
        metrics::{Classification, Metrics, MultiLabel, Regression},
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// Fine-tunes a [`SequenceClassification`].
#[derive(Clone, Debug)]
pub struct ClassificationTask {
    collator: Collator,
    data: Splits<Examples<Target>>,
}

impl ClassificationTask {
    /// Puts data and model together; the configuration's problem type must be that of the targets.
    pub fn new(collator: Collator, data: Splits<Examples<Target>>) -> Self {
        Self { collator, data }
    }

    /// The figures of a model on some examples.
    ///
    /// # Errors
    /// An example that the model cannot take.
    pub fn score(
        &self,
        model: &SequenceClassification,
        examples: &Examples<Target>,
        device: &Device,
    ) -> Result<Metrics> {
        let rows = self.collator.evaluate(&examples.encodings, device, |input| rows(model.forward(input)))?;
        let targets = &examples.targets;
        match self.collator.config.task().problem_type() {
            ProblemType::SingleLabelClassification => {
                let classes = targets.iter().filter_map(|target| match target {
                    Target::Class(class) => Some(*class),
                    _ => None,
                });
                let predictions: Vec<_> = rows.iter().map(|row| argmax(row)).collect();
                Ok(Classification::new(&classes.collect::<Vec<_>>(), &predictions)?.metrics())
            }
            ProblemType::MultiLabelClassification => {
                let labels = self.collator.config.task().num_labels();
                let on = targets.iter().flat_map(|target| multi_hot(target, labels)).map(|value| value > 0.5);
                let predictions: Vec<_> = rows.iter().flatten().map(|logit| *logit > 0.0).collect();
                Ok(MultiLabel::new(&on.collect::<Vec<_>>(), &predictions, labels)?.metrics())
            }
            ProblemType::Regression => {
                let predictions: Vec<_> = rows.iter().map(|row| row[0]).collect();
                Ok(Regression::new(&targets.iter().map(number).collect::<Vec<_>>(), &predictions)?.metrics())
            }
        }
    }
}

/// 1 for each label that is on, 0 for the others.
fn multi_hot(target: &Target, labels: usize) -> Vec<f32> {
    let mut values = vec![0.0; labels];
    if let Target::Classes(on) = target {
        on.iter().for_each(|label| values[*label] = 1.0);
    }
    values
}

/// The number of a regression; NaN for other targets, which [`Regression`] refuses.
fn number(target: &Target) -> f32 {
    match target {
        Target::Score(score) => *score,
        _ => f32::NAN,
    }
}

impl Task for ClassificationTask {
    type Learner = Trainer<SequenceClassification>;

    fn lengths(&self) -> Vec<usize> {
        lengths(&self.data.train.encodings)
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let input = self.collator.input(examples.iter().map(|index| &self.data.train.encodings[*index]), device)?;
        let targets = || examples.iter().map(|index| &self.data.train.targets[*index]);
        let matrix = |values: Vec<f32>| {
            let shape = [examples.len(), values.len() / examples.len()];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        let labels = match self.collator.config.task().problem_type() {
            ProblemType::SingleLabelClassification => SequenceLabels::Classes(indices(
                targets().map(|target| match target {
                    Target::Class(class) => *class,
                    _ => 0,
                }),
                device,
            )),
            ProblemType::MultiLabelClassification => {
                let labels = self.collator.config.task().num_labels();
                SequenceLabels::MultiHot(matrix(targets().flat_map(|target| multi_hot(target, labels)).collect()))
            }
            ProblemType::Regression => SequenceLabels::Values(matrix(targets().map(number).collect())),
        };
        Ok((input, labels))
    }

    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        self.data.truncated(max_length)
    }

    fn evaluate(&self, model: &SequenceClassification, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
