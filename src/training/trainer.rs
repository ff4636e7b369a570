//! Optimiser steps: forward, loss, backward, clipping, AdamW.

use std::path::Path;

use burn::tensor::Device;

use super::{
    learner::{Learner, Start, TrainStepReport},
    lora::Lora,
    objective::Objective,
    optimizer::{AdamW, Schedule},
    parallel::Devices,
    run::Run,
    sift::Sift,
    state,
};
use crate::{
    Result,
    checkpoint::{self, Checkpoint, LoadOptions, adapter, locate},
    config::Configuration,
    data::Random,
    model::{RoutingFigures, input::ModelInput},
};

/// A model in training. All random numbers depend on the seed, the step and the number of the batch in the step. So a
/// run that goes on from a saved step gives the same result as one that was never interrupted. On several devices, a
/// step is data-parallel.
#[derive(Debug)]
pub struct Trainer<M: Objective> {
    /// None only during a step: the optimiser updates parameters in place if it is their only owner.
    model: Option<M>,
    optimizer: AdamW,
    schedule: Schedule,
    sift: Option<Sift>,
    seed: u64,
    devices: Devices,
    /// How the model is adapted, if it is.
    lora: Option<Lora>,
}

/// Inputs and labels.
pub type Batches<M> = Vec<(ModelInput, <M as Objective>::Labels)>;

impl<M: Objective> Trainer<M> {
    /// Takes a model, which is on the first of these devices. The devices have gradients.
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
        Self { model: Some(model), optimizer, schedule, sift, seed, devices: Devices::new(&devices), lora: None }
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
        self.devices.of(batch)
    }

    /// One step on the mean loss of some batches, each on its [device](Self::device).
    ///
    /// # Panics
    /// Without any batch.
    pub fn train_step(&mut self, batches: Batches<M>) -> TrainStepReport {
        let model = self.model.take().expect("every step puts it back");
        let (step, count, sift) = (self.steps(), batches.len() as f64, self.sift);
        let (seed, scale) = (Random::new(&[self.seed, step as u64]).next_u64(), self.optimizer.scale().factor());
        let (gradients, losses) = self.devices.gradients(seed, &model, batches, |model, (input, labels)| {
            let (total, loss, adversarial, routing) = match &sift {
                Some(sift) => {
                    let losses = sift.losses(model, &input, &labels, None);
                    (losses.total, losses.task, Some(losses.adversarial.inner()), losses.routing)
                }
                None => {
                    let (input, routing) = input.record_routing();
                    let loss = model.loss(model.logits(input, &labels), labels);
                    (routing.add_to(loss.clone()), loss, None, routing)
                }
            };
            (total * scale, (loss.inner(), adversarial, routing.figures()))
        });
        let learning_rate = self.schedule.learning_rate(step);
        let (model, gradient_norm) = self.optimizer.step(model, gradients, learning_rate);
        self.model = Some(model);
        // Reading a number waits for the device: last, when all work is under way.
        let (mut loss, mut adversarial) = (0.0, 0.0);
        for (task, of_sift, _) in &losses {
            loss += task.clone().into_scalar::<f64>() / count;
            adversarial += of_sift.clone().map_or(0.0, |loss| loss.into_scalar::<f64>()) / count;
        }
        let routing: Vec<_> = losses.into_iter().filter_map(|values| values.2).collect();
        let routing = RoutingFigures::mean(&routing).into_iter().flat_map(|figures| figures.named());
        let parts = sift.map(|_| ("adversarial", adversarial)).into_iter().chain(routing).collect();
        TrainStepReport { loss, parts, gradient_norm, learning_rate }
    }
}

impl<M: Objective> Learner for Trainer<M> {
    type Model = M;
    type Batch = (ModelInput, M::Labels);

    fn begin(mut model: M, start: Start<'_>) -> Result<Self> {
        let Start { settings, run, schedule, saved } = start;
        let (mut optimizer, device) = (start.optimizer(&run.config.encoder()), &run.devices[0]);
        if let Some(lora) = &settings.lora {
            lora.attach(&mut model, settings.seed);
            if let Some(folder) = saved {
                model = state::read_adapter(folder, model, run.dtype, &mut optimizer, device)?;
            }
            model = Lora::freeze(model);
        } else {
            if let Some(folder) = saved {
                model = state::read_model(folder, model, &run.load_options(), &mut optimizer, device)?;
            }
            model = settings.frozen.freeze(model);
        }
        let trainer = Self::new(model, run.devices.to_vec(), optimizer, schedule, settings.sift, settings.seed);
        Ok(Self { lora: settings.lora.clone(), ..trainer })
    }

    fn model(&self) -> &M {
        self.model()
    }

    fn steps(&self) -> usize {
        self.steps()
    }

    fn device(&self, batch: usize) -> &Device {
        self.device(batch)
    }

    fn train_step(&mut self, batches: Vec<Self::Batch>) -> TrainStepReport {
        self.train_step(batches)
    }

    fn save(&self, config: &dyn Configuration, folder: &Path) -> Result<()> {
        match self.lora {
            Some(_) => state::write_adapter(folder, self.model(), &self.optimizer),
            None => state::write_model(folder, self.model(), config, &self.optimizer),
        }
    }

    fn export(&self, run: &Run<'_>, folder: &Path) -> Result<()> {
        let merged = match &self.lora {
            Some(lora) if !lora.merged => {
                return adapter::write(self.model(), &run.config.encoder(), folder, lora.adapter_settings());
            }
            lora => lora.as_ref().map(|_| Lora::merge(self.model().valid())),
        };
        checkpoint::write(merged.as_ref().unwrap_or(self.model()), run.config, folder, None)?;
        run.tokenizer.save(folder)
    }

    fn exported(&self, folder: &Path, options: &LoadOptions) -> Result<M> {
        let (mut model, checkpoint) = (
            self.model().valid(),
            match &self.lora {
                Some(lora) if !lora.merged => Checkpoint::open_with_adapter(locate(&lora.base, None)?, folder)?,
                _ => Checkpoint::open(folder)?,
            },
        );
        Lora::detach(&mut model);
        Ok(checkpoint.load(model, options)?.0)
    }
}
