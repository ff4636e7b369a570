//! Optimiser steps: forward, loss, backward, clipping, AdamW.

use std::path::Path;

use burn::tensor::Device;

use super::{
    learner::{Learner, Start, TrainStepReport},
    lora::Lora,
    objective::Objective,
    optimizer::{AdamW, Schedule},
    parallel::Replicas,
    run::Run,
    sift::Sift,
    state,
};
use crate::{
    Result,
    checkpoint::{Checkpoint, LoadOptions, adapter, locate},
    config::Configuration,
    data::Random,
    model::{RoutingFigures, input::ModelInput},
};

/// A model in training. All random numbers depend on the seed, the step and the number of the batch in the step. So a
/// run that goes on from a saved step gives the same result as one that was never interrupted. On several devices, a
/// step is data-parallel: each device keeps the model and its optimiser, and only gradients travel.
#[derive(Debug)]
pub struct Trainer<M: Objective> {
    replicas: Replicas<M, AdamW>,
    schedule: Schedule,
    sift: Option<Sift>,
    seed: u64,
    /// How the model is adapted, if it is.
    lora: Option<Lora>,
}

/// Inputs and labels.
pub type Batches<M> = Vec<(ModelInput, <M as Objective>::Labels)>;

impl<M: Objective> Trainer<M> {
    /// Takes a model, which is on the first of these devices, and whose parameters are in f32. The devices have gradients. If
    /// the model computes in f16 ([`Backbone::set_compute_type`](crate::Backbone::set_compute_type)), the loss is scaled.
    ///
    /// # Panics
    /// Without a device.
    pub fn new(
        mut model: M,
        devices: Vec<Device>,
        mut optimizer: AdamW,
        schedule: Schedule,
        sift: Option<Sift>,
        seed: u64,
    ) -> Self {
        let compute_type = model.backbones_mut().first().and_then(|backbone| backbone.compute_type());
        optimizer.scale_for(compute_type);
        Self { replicas: Replicas::new(model, optimizer, &devices), schedule, sift, seed, lora: None }
    }

    /// The model.
    pub fn model(&self) -> &M {
        self.replicas.model()
    }

    /// Steps made so far.
    pub fn steps(&self) -> usize {
        self.replicas.optimizer().steps()
    }

    /// The device of a step's batch with this number.
    pub fn device(&self, batch: usize) -> &Device {
        self.replicas.device(batch)
    }

    /// One step on the mean loss of some batches, each on its [device](Self::device).
    ///
    /// # Panics
    /// Without any batch.
    pub fn train_step(&mut self, batches: Batches<M>) -> TrainStepReport {
        let (step, count, sift) = (self.steps(), batches.len() as f64, self.sift);
        let seed = Random::new(&[self.seed, step as u64]).next_u64();
        let scale = self.replicas.optimizer().scale().factor();
        let (gradients, losses) = self.replicas.gradients(seed, batches, |model, (input, labels)| {
            let (total, loss, adversarial, routing) = match &sift {
                Some(sift) => {
                    let losses = sift.losses(model, &input, &labels, None, scale);
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
        let gradient_norm = self
            .replicas
            .step(gradients, |model, optimizer, gradients| optimizer.step(model, gradients, learning_rate));
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

    const FOLDERS: &'static [&'static str] = M::FOLDERS;

    fn begin(mut model: M, start: Start<'_>) -> Result<Self> {
        let Start { settings, run, schedule, saved } = start;
        let (mut optimizer, device) = (start.optimizer(&model), &run.devices[0]);
        let compute_type = settings.precision.compute_type(device)?;
        model.backbones_mut().into_iter().for_each(|backbone| backbone.set_compute_type(compute_type));
        if let Some(lora) = &settings.lora {
            lora.attach(&mut model, settings.seed);
            if let Some(folder) = saved {
                model = state::read_adapter(folder, model, &mut optimizer, device)?;
            }
            model = Lora::freeze(model);
        } else {
            if let Some(folder) = saved {
                model = model.read(folder, &run.load_options())?;
                state::read_moments(folder, device, &mut optimizer)?;
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
            Some(_) => state::write_adapter(folder, self.model(), self.replicas.optimizer()),
            None => {
                self.model().write(config, folder)?;
                state::write_moments(folder, self.replicas.optimizer())
            }
        }
    }

    fn export(&self, run: &Run<'_>, folder: &Path) -> Result<()> {
        let merged = match &self.lora {
            Some(lora) if !lora.merged => {
                return adapter::write(self.model(), &run.config.encoder(), folder, lora.adapter_settings());
            }
            lora => lora.as_ref().map(|_| Lora::merge(self.model().valid())),
        };
        merged.as_ref().unwrap_or(self.model()).write(run.config, folder)?;
        run.tokenizer.save(folder)
    }

    fn exported(&self, folder: &Path, options: &LoadOptions) -> Result<M> {
        let mut model = self.model().valid();
        Lora::detach(&mut model);
        match &self.lora {
            Some(lora) if !lora.merged => {
                let checkpoint = Checkpoint::open_with_adapter(locate(&lora.base, None)?, folder)?;
                Ok(checkpoint.load(model, options)?.0)
            }
            _ => model.read(folder, options),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        module::{Module, ModuleVisitor, Param},
        tensor::{FloatDType, Int, Tensor, TensorData},
    };

    use super::*;
    use crate::{
        DebertaConfig, ModelConfig,
        config::DebertaVersion,
        heads::{SequenceClassification, SequenceLabels},
        model::InferenceModel,
        training::{
            AdamWConfig, ParameterGroups, ScheduleKind, Warmup,
            optimizer::{LossScale, StepCount},
        },
    };

    const FITTING: f64 = 65536.0;
    const RATE: f64 = 1e-2;

    fn config() -> ModelConfig {
        let config = DebertaConfig {
            vocab_size: 20,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            relative_attention: true,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            pooler_dropout: 0.0,
            cls_dropout: Some(0.0),
            initializer_range: 0.2,
            ..DebertaConfig::new(DebertaVersion::V2)
        };
        config.into()
    }

    fn model(device: &Device) -> SequenceClassification {
        device.seed(1);
        let mut model = SequenceClassification::new(&config(), device);
        InferenceModel::backbone_mut(&mut model).set_compute_type(Some(FloatDType::F16));
        model
    }

    fn optimizer() -> AdamW {
        AdamW::new(AdamWConfig::default(), ParameterGroups::default())
    }

    fn trainer(
        model: SequenceClassification,
        optimizer: AdamW,
        devices: Vec<Device>,
    ) -> Trainer<SequenceClassification> {
        let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), RATE, 100).unwrap();
        Trainer::new(model, devices, optimizer, schedule, None, 0)
    }

    /// Two batches of two texts.
    fn batches(device: &Device) -> Batches<SequenceClassification> {
        let batch = |from: i32| {
            let ids: Vec<i32> = (0..12).map(|token| 1 + (from + token * 7) % 19).collect();
            let labels = SequenceLabels::Classes(Tensor::from_data([0, 1], device));
            (ModelInput::new(Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 6]), device)), labels)
        };
        vec![batch(3), batch(8)]
    }

    fn values(model: &SequenceClassification) -> Vec<f32> {
        struct Values(Vec<f32>);
        impl ModuleVisitor for Values {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.extend(param.val().into_data().try_to_vec::<f32>().expect("parameters in f32"));
            }
        }
        let mut values = Values(Vec::new());
        model.visit(&mut values);
        values.0
    }

    /// Steps whose gradients overflow change nothing but the scale. The first that fits is the step that would have been made
    /// at once with its scale, on one device or two, and so is the step after a save.
    #[test]
    fn steps_are_skipped_until_the_scale_fits() {
        let device = Device::flex().autodiff();
        let mut whole = trainer(model(&device), optimizer(), vec![device.clone()]);
        let fresh = values(whole.model());
        let first = whole.train_step(batches(&device));
        assert!(first.gradient_norm.is_finite() && values(whole.model()) != fresh);
        assert_eq!(whole.replicas.optimizer().scale().factor(), FITTING);

        const SKIPPED: usize = 24;
        let mut late = optimizer();
        let scale = LossScale::Moving { factor: FITTING * 2f64.powi(SKIPPED as i32), steps: 7 };
        late.restore(StepCount::default(), scale, Default::default());
        let mut late = trainer(model(&device), late, vec![device.clone(); 2]);
        let mut skipped = 0;
        let report = loop {
            let report = late.train_step(batches(&device));
            assert_eq!(report.loss, first.loss);
            if report.gradient_norm.is_finite() {
                break report;
            }
            assert!(values(late.model()) == fresh, "a step that was skipped changed the model");
            skipped += 1;
        };
        assert!((1..SKIPPED).contains(&skipped), "{skipped}");
        assert_eq!(late.replicas.optimizer().count(), StepCount { all: skipped + 1, updates: 1 });
        let factor = FITTING * 2f64.powi((SKIPPED - skipped) as i32);
        assert_eq!(late.replicas.optimizer().scale(), LossScale::Moving { factor, steps: 1 });
        // Scales are powers of two, but what is below f16's range with one is not with the other.
        assert!((report.gradient_norm - first.gradient_norm).abs() < 1e-3 * first.gradient_norm);
        let apart = values(late.model()).into_iter().zip(values(whole.model())).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0f32, f32::max) < 1e-3 * RATE as f32);

        let folder = tempfile::tempdir().unwrap();
        state::write_model(folder.path(), late.model(), &config(), late.replicas.optimizer()).unwrap();
        let (mut restored, options) = (optimizer(), LoadOptions::default());
        let read = state::read_model(folder.path(), model(&device), &options, &mut restored, &device).unwrap();
        let mut restored = trainer(read, restored, vec![device.clone()]);
        assert_eq!(restored.replicas.optimizer().scale(), late.replicas.optimizer().scale());
        assert_eq!(restored.train_step(batches(&device)), late.train_step(batches(&device)));
        assert_eq!(restored.replicas.optimizer().scale(), LossScale::Moving { factor, steps: 2 });
        assert!(values(restored.model()) == values(late.model()));
    }
}
