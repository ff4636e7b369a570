//! What a run needs from the task that a model is trained for.

use burn::tensor::Device;

use super::{learner::Learner, metrics::Metrics};
use crate::{Result, batch::Truncated, data::Part};

/// Data and evaluation of one task.
pub trait Task: Sized {
    /// What trains its model.
    type Learner: Learner;

    /// Tokens of each training example, by which they are grouped.
    fn lengths(&self) -> Vec<usize>;

    /// Tokens of each training example that the model reads, where these are more than what examples are grouped by.
    fn tokens(&self) -> Vec<usize> {
        self.lengths()
    }

    /// Some training examples as a batch on the device. What is random in them depends on the epoch.
    ///
    /// # Errors
    /// An example that the model cannot take.
    fn batch(&self, examples: &[usize], epoch: usize, device: &Device) -> Result<TaskBatch<Self>>;

    /// The number of texts that were longer than `max_length` tokens and were cut; none if there are none.
    fn truncated(&self, _max_length: usize) -> Option<Truncated> {
        None
    }

    /// The figures of a model (without gradients) on a part of the data; none if there is no such part.
    ///
    /// # Errors
    /// An example that the model cannot take; [`Error::NotFinite`](crate::Error::NotFinite) if it answers with NaN or infinity.
    fn evaluate(&self, model: &TaskModel<Self>, part: Part, device: &Device) -> Result<Option<Metrics>>;
}

/// The model of a task.
pub type TaskModel<T> = <<T as Task>::Learner as Learner>::Model;

/// A batch of a task: inputs and labels.
pub type TaskBatch<T> = <<T as Task>::Learner as Learner>::Batch;
