//! One optimiser step after the other: forward, loss, backward, clipping, AdamW.
//!
//! On several devices a step is data-parallel: each has a copy of the model and takes its share of the step's batches, and the
//! gradients are summed on the first, as accumulation on one device sums them.

use std::thread;

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
    devices: Vec<Device>,
}

/// Batches and what they are trained towards.
pub type Batches<M> = Vec<(ModelInput, <M as Objective>::Labels)>;

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
    /// Takes a model on the first of these devices, which have gradients.
    ///
    /// # Panics
    /// Without a device.
    pub fn new(
        model: M,
        devices: Vec<Device>,
        optimizer: AdamW,
        schedule: Schedule,
        sift: Option<Sift>,
        seed: u64,
    ) -> Self {
        assert!(!devices.is_empty(), "training needs a device");
        Self { model: Some(model), optimizer, schedule, sift: sift.filter(|sift| sift.lambda > 0.0), seed, devices }
    }

    /// The model.
    pub fn model(&self) -> &M {
        self.model.as_ref().expect("every step puts it back")
    }

    /// Steps made so far.
    pub fn steps(&self) -> usize {
        self.optimizer.steps()
    }

    /// The device of a step's batch with this number.
    pub fn device(&self, batch: usize) -> &Device {
        &self.devices[batch % self.devices.len()]
    }

    /// One step on the mean loss of some batches, each on its [device](Self::device).
    ///
    /// # Panics
    /// Without any batch.
    pub fn step(&mut self, batches: Batches<M>) -> StepReport {
        assert!(!batches.is_empty(), "a step needs a batch");
        let model = self.model.take().expect("every step puts it back");
        let step = self.optimizer.steps();
        // Dropout and noise draw from the devices' random states.
        for (number, device) in self.devices.iter().enumerate() {
            device.seed(Random::new(&[self.seed, step as u64, number as u64]).next_u64());
        }
        let count = batches.len();
        let mut shares: Vec<Batches<M>> = self.devices.iter().map(|_| Vec::new()).collect();
        for (number, batch) in batches.into_iter().enumerate() {
            shares[number % self.devices.len()].push(batch);
        }
        let mut passes = self.passes(&model, shares, count).into_iter();
        let first = passes.next().expect("there is a device");
        let (mut loss, mut adversarial) = (first.loss, first.adversarial);
        let mut accumulator = GradientsAccumulator::new();
        accumulator.accumulate(&model, first.gradients);
        for pass in passes {
            loss += pass.loss;
            adversarial = adversarial.zip(pass.adversarial).map(|(a, b)| a + b);
            accumulator.accumulate(&model, pass.gradients.to_device(&self.devices[0].clone().inner(), &model));
        }
        let learning_rate = self.schedule.learning_rate(step);
        let (model, gradient_norm) = self.optimizer.step(model, accumulator.grads(), learning_rate);
        self.model = Some(model);
        StepReport { loss, adversarial, gradient_norm, learning_rate }
    }

    /// Every device's share of a step of `count` batches.
    fn passes(&self, model: &M, mut shares: Vec<Batches<M>>, count: usize) -> Vec<Pass> {
        let sift = self.sift;
        if shares.len() == 1 {
            return vec![Pass::run(model, shares.remove(0), count, sift)];
        }
        thread::scope(|scope| {
            let threads: Vec<_> = shares
                .into_iter()
                .zip(&self.devices)
                .filter(|(share, _)| !share.is_empty())
                .map(|(share, device)| {
                    let copy = model.clone();
                    let copy = if *device == self.devices[0] { copy } else { copy.fork(device) };
                    scope.spawn(move || Pass::run(&copy, share, count, sift))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a device's pass")).collect()
        })
    }
}

/// What one device contributes to a step.
struct Pass {
    gradients: GradientsParams,
    loss: f64,
    adversarial: Option<f64>,
}

impl Pass {
    /// Sums the gradients and losses of some of a step's `count` batches, each divided by `count`.
    fn run<M: Objective>(model: &M, batches: Batches<M>, count: usize, sift: Option<Sift>) -> Self {
        let count = count as f64;
        let mut accumulator = GradientsAccumulator::new();
        let (mut loss_sum, mut adversarial) = (0.0, None);
        for (input, labels) in batches {
            let (total, task) = match &sift {
                Some(sift) => {
                    let losses = sift.losses(model, &input, &labels, None);
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
            accumulator.accumulate(model, GradientsParams::from_grads(total.backward(), model));
        }
        Self { gradients: accumulator.grads(), loss: loss_sum, adversarial }
    }
}
