//! Steps of generator and discriminator.

use std::path::Path;

use burn::{Tensor, module::Module, optim::GradientsParams, tensor::Device};
use serde_json::Value;

use super::{Corrupted, ReplacedToken, ReplacedTokenPretraining, Sharing, generator_config, model::GENERATOR, sample};
use crate::{
    DebertaConfig, Error, ModelConfig, Result,
    checkpoint::{self, Checkpoint, LoadOptions},
    config::Configuration,
    data::Random,
    model::{InferenceModel, RoutingFigures, input::ModelInput},
    training::{
        bounds::positive,
        learner::{Learner, Start, TrainStepReport},
        objective::MaskedLmLabels,
        optimizer::{AdamW, Schedule},
        parallel::Replicas,
        run::Run,
        state,
    },
};

/// The discriminator's folder in a saved run. Its embeddings are the discriminator's own: E_delta, if gradients are
/// disentangled.
const DISCRIMINATOR: &str = "discriminator";

/// Generator and discriminator in training. As in [`Trainer`](crate::training::Trainer), all random numbers depend on
/// the seed, the step and the number of the batch in it, and on several devices a step is data-parallel.
#[derive(Debug)]
pub struct ReplacedTokenTrainer {
    replicas: Replicas<ReplacedTokenPretraining, Halves>,
    schedule: Schedule,
    seed: u64,
}

/// The optimiser of each half.
#[derive(Clone, Debug)]
struct Halves {
    generator: AdamW,
    discriminator: AdamW,
}

impl ReplacedTokenTrainer {
    /// Takes a model, which is on the first of these devices, and an optimiser for each half of it. The devices have
    /// gradients. The loss of a half that computes in f16 is scaled.
    ///
    /// # Panics
    /// Without a device.
    pub fn new(
        model: ReplacedTokenPretraining,
        devices: &[Device],
        mut generator: AdamW,
        mut discriminator: AdamW,
        schedule: Schedule,
        seed: u64,
    ) -> Self {
        generator.scale_for(model.generator.backbone().compute_type());
        discriminator.scale_for(model.discriminator.backbone().compute_type());
        Self { replicas: Replicas::new(model, Halves { generator, discriminator }, devices), schedule, seed }
    }

    /// The generator's gradients of the mean of L_G; for each batch L_G, \[1\], and the text for the discriminator.
    fn generate(
        &mut self,
        batches: Vec<(ModelInput, MaskedLmLabels)>,
    ) -> (Vec<GradientsParams>, Vec<(Tensor<1>, Corrupted)>) {
        let optimizer = &self.replicas.optimizer().generator;
        let (seed, scale) = (self.draws(optimizer, 0), optimizer.scale().factor());
        self.replicas.gradients(seed, batches, |model, (masked, labels)| {
            let (input, routing) = masked.clone().record_routing();
            let logits = model.generator_logits(input, &labels);
            let text = Corrupted::new(&masked, &labels, sample(logits.clone(), None));
            let loss = model.generator_loss(logits, labels);
            (routing.add_to(loss.clone()) * scale, (loss.inner(), text))
        })
    }

    /// The gradients of the mean of `weight L_D`, and for each text L_D, \[1\], and how its tokens were routed.
    fn discriminate(
        &mut self,
        texts: Vec<Corrupted>,
    ) -> (Vec<GradientsParams>, Vec<(Tensor<1>, Option<RoutingFigures>)>) {
        let optimizer = &self.replicas.optimizer().discriminator;
        let (seed, scale) = (self.draws(optimizer, 1), optimizer.scale().factor());
        self.replicas.gradients(seed, texts, |model, text| {
            let (input, routing) = text.input.clone().record_routing();
            let loss = model.discriminator_loss(model.discriminator_logits(input), text);
            let weighted = routing.add_to(loss.clone() * model.options.weight);
            (weighted * scale, (loss.inner(), routing.figures()))
        })
    }

    /// The seed of the random numbers in the next step of the half with this optimiser.
    fn draws(&self, optimizer: &AdamW, half: u64) -> u64 {
        Random::new(&[self.seed, optimizer.steps() as u64, half]).next_u64()
    }
}

impl Halves {
    /// Moves the discriminator's gradients of the shared embeddings to the generator's, in the generator's scale.
    fn join(
        &self,
        model: &ReplacedTokenPretraining,
        mut own: GradientsParams,
        joint: &mut GradientsParams,
    ) -> GradientsParams {
        let scales = self.generator.scale().factor() / self.discriminator.scale().factor();
        for id in model.generator.backbone().embeddings().shareable_ids() {
            if let Some(other) = joint.remove::<2>(id) {
                let other = other * scales;
                let sum = own.remove(id).map_or(other.clone(), |own| own + other);
                own.register(id, sum);
            }
        }
        own
    }
}

impl Learner for ReplacedTokenTrainer {
    type Model = ReplacedTokenPretraining;
    /// Texts with masked positions, and the words that were there.
    type Batch = (ModelInput, MaskedLmLabels);

    const FOLDERS: &'static [&'static str] = &["", GENERATOR];

    fn describe(model: &ReplacedTokenPretraining) -> Value {
        let ReplacedToken { sharing, weight } = model.options;
        serde_json::json!({ "replaced_token": { "sharing": sharing, "weight": weight } })
    }

    fn begin(model: ReplacedTokenPretraining, start: Start<'_>) -> Result<Self> {
        let Start { settings, run, schedule, .. } = start;
        if settings.sift.is_some() {
            return Err(Error::setting("SiFT", "it is for fine-tuning, expected none in replaced token detection"));
        }
        if settings.lora.is_some() {
            return Err(Error::setting("--lora", "it is for fine-tuning, expected none in replaced token detection"));
        }
        positive("--discriminator-weight", model.options.weight)?;
        let ReplacedTokenPretraining { mut generator, mut discriminator, options } = model;
        let mut optimizers = (start.optimizer(&generator), start.optimizer(&discriminator));
        let compute_type = settings.precision.compute_type(&run.devices[0])?;
        for backbone in [generator.backbone_mut(), discriminator.backbone_mut()] {
            backbone.set_compute_type(compute_type);
        }
        if let Some(folder) = start.saved {
            let (load, device) = (run.load_options(), &run.devices[0]);
            generator = state::read_model(&folder.join(GENERATOR), generator, &load, &mut optimizers.0, device)?;
            let folder = folder.join(DISCRIMINATOR);
            discriminator = state::read_model(&folder, discriminator, &load, &mut optimizers.1, device)?;
        }
        let (generator, discriminator) = (settings.frozen.freeze(generator), settings.frozen.freeze(discriminator));
        let model = ReplacedTokenPretraining { generator, discriminator, options };
        Ok(Self::new(model, run.devices, optimizers.0, optimizers.1, schedule, settings.seed))
    }

    fn model(&self) -> &ReplacedTokenPretraining {
        self.replicas.model()
    }

    fn steps(&self) -> usize {
        self.replicas.optimizer().generator.steps()
    }

    fn device(&self, batch: usize) -> &Device {
        self.replicas.device(batch)
    }

    /// The loss that is reported is L_G + weight L_D, the gradient norm that of both halves; figures of routers are the
    /// discriminator's.
    fn train_step(&mut self, batches: Vec<Self::Batch>) -> TrainStepReport {
        let learning_rate = self.schedule.learning_rate(self.steps());
        let ReplacedToken { sharing, weight } = self.model().options;

        let (gradients, texts) = self.generate(batches);
        let (generator_losses, texts): (Vec<_>, Vec<Corrupted>) = texts.into_iter().unzip();
        let step_generator = |model: ReplacedTokenPretraining, optimizers: &mut Halves, gradients| {
            let (generator, norm) = optimizers.generator.step(model.generator, gradients, learning_rate);
            (ReplacedTokenPretraining { generator, ..model }, norm)
        };
        let step_discriminator = |model: ReplacedTokenPretraining, optimizers: &mut Halves, gradients| {
            let (discriminator, norm) = optimizers.discriminator.step(model.discriminator, gradients, learning_rate);
            (ReplacedTokenPretraining { discriminator, ..model }, norm)
        };
        let (generator_norm, discriminator_norm, found);
        if sharing == Sharing::Shared {
            // One step on both losses: the shared embeddings have not changed yet.
            let joint;
            (joint, found) = self.discriminate(texts);
            let both = gradients.into_iter().zip(joint).collect();
            (generator_norm, discriminator_norm) = self.replicas.step(both, |model, optimizers, (own, mut joint)| {
                let own = optimizers.join(&model, own, &mut joint);
                let (model, generator) = step_generator(model, optimizers, own);
                let (model, discriminator) = step_discriminator(model, optimizers, joint);
                (model, (generator, discriminator))
            });
        } else {
            generator_norm = self.replicas.step(gradients, step_generator);
            let gradients;
            (gradients, found) = self.discriminate(texts);
            discriminator_norm = self.replicas.step(gradients, step_discriminator);
        }
        let (discriminator_losses, routing): (Vec<_>, Vec<_>) = found.into_iter().unzip();

        // Reading a number waits for the device: last, when all work is under way.
        let (generator, discriminator) = (mean(generator_losses), mean(discriminator_losses));
        let mut parts = vec![("train_generator_loss", generator), ("train_discriminator_loss", discriminator)];
        let routing: Vec<_> = routing.into_iter().flatten().collect();
        parts.extend(RoutingFigures::mean(&routing).into_iter().flat_map(|figures| figures.named()));
        TrainStepReport {
            loss: generator + weight * discriminator,
            parts,
            gradient_norm: generator_norm.hypot(discriminator_norm),
            learning_rate,
        }
    }

    fn save(&self, config: &dyn Configuration, folder: &Path) -> Result<()> {
        let (model, configs) = (self.model(), Configs::new(config)?);
        let Halves { generator, discriminator } = self.replicas.optimizer();
        state::write_model(&folder.join(GENERATOR), &model.generator, &configs.generator, generator)?;
        state::write_model(&folder.join(DISCRIMINATOR), &model.discriminator, config, discriminator)
    }

    /// The discriminator with its own embeddings, and the generator in a folder inside it.
    fn export(&self, run: &Run<'_>, folder: &Path) -> Result<()> {
        let (model, configs, generator) = (self.model(), Configs::new(run.config)?, folder.join(GENERATOR));
        checkpoint::write(&model.generator, &configs.generator, &generator, None)?;
        checkpoint::write(&model.merged_discriminator(), &configs.discriminator, folder, None)?;
        [&generator, folder].into_iter().try_for_each(|folder| run.tokenizer.save(folder))
    }

    fn exported(&self, folder: &Path, options: &LoadOptions) -> Result<ReplacedTokenPretraining> {
        let ReplacedTokenPretraining { generator, discriminator, options: own } = self.model().valid();
        let (generator, _) = Checkpoint::open(folder.join(GENERATOR))?.load(generator, options)?;
        let (discriminator, _) = Checkpoint::open(folder)?.load(discriminator, options)?;
        let options = ReplacedToken { sharing: Sharing::NotShared, ..own };
        Ok(ReplacedTokenPretraining { generator, discriminator, options })
    }
}

/// The mean of some losses, each \[1\].
fn mean(losses: Vec<Tensor<1>>) -> f64 {
    let count = losses.len() as f64;
    losses.into_iter().map(Tensor::into_scalar::<f64>).sum::<f64>() / count
}

/// The configurations of both halves.
struct Configs {
    generator: ModelConfig,
    discriminator: ModelConfig,
}

impl Configs {
    fn new(config: &dyn Configuration) -> Result<Self> {
        let ModelConfig::Deberta(config) = config.encoder() else {
            let problem = "it is RoBERTa's, expected DeBERTa's: only it has a generator and a discriminator";
            return Err(Error::unsupported("configuration", problem));
        };
        let mut discriminator: DebertaConfig = config.clone();
        // transformers has no class for the discriminator's head; it can use the encoder.
        discriminator.task.architectures = vec![config.model_type.class_name("Model")];
        Ok(Self { generator: generator_config(&config)?.into(), discriminator: discriminator.into() })
    }
}
