//! Which examples each step of a run sees, and when it is evaluated.

use super::settings::TrainingSettings;
use crate::{Error, Result, data::training_batches};

/// How many steps there are, and when the model is evaluated.
pub(super) struct Plan {
    pub(super) steps: usize,
    pub(super) steps_per_epoch: f64,
    batches_per_epoch: usize,
    batches_per_step: usize,
    evaluate_every: usize,
}

impl Plan {
    /// Plans a run; the settings have to be valid.
    pub(super) fn new(lengths: &[usize], settings: &TrainingSettings, devices: usize) -> Result<Self> {
        if lengths.is_empty() {
            return Err(Error::input("training data", "there is none, expected at least one example"));
        }
        let batches_per_epoch = lengths.len().div_ceil(settings.batch_size);
        let batches_per_step = settings.accumulation * devices;
        let steps_per_epoch = batches_per_epoch as f64 / batches_per_step as f64;
        // Multiplied first: whole epochs are exact then, and are not rounded up to one more step.
        let steps = (settings.epochs * batches_per_epoch as f64 / batches_per_step as f64).ceil() as usize;
        let steps = settings.steps.unwrap_or(steps);
        let evaluate_every = settings.evaluate_every.unwrap_or((steps_per_epoch.round() as usize).max(1));
        Ok(Self { steps, steps_per_epoch, batches_per_epoch, batches_per_step, evaluate_every })
    }

    pub(super) fn evaluates(&self, done: usize) -> bool {
        done.is_multiple_of(self.evaluate_every) || done == self.steps
    }

    /// The batches of a step: the epoch and the examples of each. They depend on the number of the step alone.
    pub(super) fn batches(
        &self,
        step: usize,
        lengths: &[usize],
        settings: &TrainingSettings,
        order: &mut EpochOrder,
    ) -> Result<Vec<(usize, Vec<usize>)>> {
        let first = step * self.batches_per_step;
        (first..first + self.batches_per_step)
            .map(|batch| {
                let epoch = batch / self.batches_per_epoch;
                if order.epoch != Some(epoch) {
                    order.batches = training_batches(lengths, settings.batch_size, settings.seed, epoch as u64)?;
                    order.epoch = Some(epoch);
                }
                Ok((epoch, order.batches[batch % self.batches_per_epoch].clone()))
            })
            .collect()
    }
}

/// The batches of the current epoch.
#[derive(Default)]
pub(super) struct EpochOrder {
    epoch: Option<usize>,
    batches: Vec<Vec<usize>>,
}
