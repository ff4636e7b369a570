//! One optimiser step after the other: forward, loss, backward, clipping, AdamW.

use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
};

use super::{objective::Objective, optimizer::AdamW, schedule::Schedule, sift::Sift};
use crate::{data::Random, input::ModelInput};

/// A model in training. Everything random is a function of the seed and the step, so that a run that goes on from a saved step
/// is the run that was never interrupted.
#[derive(Debug)]
pub struct Trainer<M: Objective> {
    /// None during a step only: the optimiser updates in place what nobody else holds.
    model: Option<M>,
    pub(super) optimizer: AdamW,
    schedule: Schedule,
    sift: Option<Sift>,
    seed: u64,
    device: Device,
}

/// What a step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The task's loss before the step, averaged over its batches.
    pub loss: f64,
    /// The adversarial term, if there is one.
    pub adversarial: Option<f64>,
    /// The norm of all gradients before clipping; where it is not finite the step changed nothing.
    pub gradient_norm: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

impl<M: Objective> Trainer<M> {
    /// Takes a model on a device with gradients.
    pub fn new(model: M, device: Device, optimizer: AdamW, schedule: Schedule, sift: Option<Sift>, seed: u64) -> Self {
        Self { model: Some(model), optimizer, schedule, sift: sift.filter(|sift| sift.lambda > 0.0), seed, device }
    }

    /// The model.
    pub fn model(&self) -> &M {
        self.model.as_ref().expect("every step puts it back")
    }

    /// Steps made so far.
    pub fn steps(&self) -> usize {
        self.optimizer.steps()
    }

    /// Where the model trains.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// One step on the mean loss of some batches, whose gradients are accumulated.
    ///
    /// # Panics
    /// Without any batch.
    pub fn step(&mut self, batches: Vec<(ModelInput, M::Labels)>) -> StepReport {
        let model = self.model.take().expect("every step puts it back");
        let step = self.optimizer.steps();
        // Dropout and noise draw from the device's random state.
        self.device.seed(Random::new(&[self.seed, step as u64]).next_u64());
        let count = batches.len() as f64;
        let mut accumulator = GradientsAccumulator::new();
        let (mut loss_sum, mut adversarial) = (0.0, None);
        for (input, labels) in batches {
            let (total, task) = match &self.sift {
                Some(sift) => {
                    let losses = sift.losses(&model, &input, &labels, None);
                    *adversarial.get_or_insert(0.0) += losses.adversarial.into_scalar::<f64>() / count;
                    (losses.total, losses.task)
                }
                None => {
                    let loss = model.loss(model.logits(input, &labels), labels);
                    (loss.clone(), loss)
                }
            };
            loss_sum += task.into_scalar::<f64>() / count;
            let total = if count > 1.0 { total / count } else { total };
            accumulator.accumulate(&model, GradientsParams::from_grads(total.backward(), &model));
        }
        let learning_rate = self.schedule.learning_rate(step);
        let (model, gradient_norm) = self.optimizer.step(model, accumulator.grads(), learning_rate);
        self.model = Some(model);
        StepReport { loss: loss_sum, adversarial, gradient_norm, learning_rate }
    }
}
