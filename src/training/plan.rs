//! Which examples each step of a run sees, and when it is evaluated.

use super::run::TrainingSettings;
use crate::{Error, Result, data::training_batches};

/// How many steps there are and when something happens.
pub(super) struct Plan {
    pub(super) steps: usize,
    pub(super) steps_per_epoch: f64,
    batches_per_epoch: usize,
    batches_per_step: usize,
    evaluate_every: usize,
}

impl Plan {
    pub(super) fn new(lengths: &[usize], settings: &TrainingSettings, devices: usize) -> Result<Self> {
        let at_least_one = |name: &str, value: usize| match value {
            0 => Err(Error::input(name, "it is 0, expected at least 1")),
            _ => Ok(()),
        };
        at_least_one("number of training examples", lengths.len())?;
        at_least_one("batch size", settings.batch_size)?;
        at_least_one("gradient accumulation", settings.accumulation)?;
        at_least_one("evaluation interval", settings.evaluate_every.unwrap_or(1))?;
        if settings.steps.is_none() && !(settings.epochs > 0.0 && settings.epochs.is_finite()) {
            return Err(Error::input("epochs", format!("{} is no number above 0", settings.epochs)));
        }
        let batches_per_epoch = lengths.len().div_ceil(settings.batch_size);
        let batches_per_step = settings.accumulation * devices;
        let steps_per_epoch = batches_per_epoch as f64 / batches_per_step as f64;
        let steps = settings.steps.unwrap_or((settings.epochs * steps_per_epoch).ceil() as usize).max(1);
        let evaluate_every = settings.evaluate_every.unwrap_or((steps_per_epoch.round() as usize).max(1));
        Ok(Self { steps, steps_per_epoch, batches_per_epoch, batches_per_step, evaluate_every })
    }

    pub(super) fn evaluates(&self, done: usize) -> bool {
        done.is_multiple_of(self.evaluate_every) || done == self.steps
    }

    /// The epoch and the examples of each of a step's batches: a function of the step alone.
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

/// The batches of the epoch at hand.
#[derive(Default)]
pub(super) struct EpochOrder {
    epoch: Option<usize>,
    batches: Vec<Vec<usize>>,
}
