//! The flags of fine-tuning, on the command line or in a TOML file.

mod meaning;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use deberta_burn::{
    Error, Result,
    data::decode_text,
    training::{ScheduleKind, SiftLoss, Warmup, recipes::Recipe},
};
use serde::Deserialize;

use super::{compute_type::ComputeType, truncation::Truncation};

/// The model of the repository.
const DEFAULT_MODEL: &str = "models/deberta-tiny";

/// Flags of every fine-tuning example. What a flag does not say comes from the settings file, then from the recipe, then from
/// the defaults.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TrainingFlags {
    /// TOML file with any of these flags as keys (`learning-rate = 2e-5`); flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    settings: Option<PathBuf>,

    /// Published hyperparameters to start from, such as mnli-base or rte-v3-large
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,

    /// Checkpoint folder (config.json, weights, tokenizer) to start from, or a repository of the Hugging Face Hub (owner/name)
    /// [default: models/deberta-tiny]
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub model: Option<String>,

    /// flex, ndarray, cuda, vulkan, wgpu or metal; :N for the N-th of its kind [default: flex]
    #[arg(long, help_heading = "Model")]
    device: Option<String>,

    /// Train data-parallel on all devices of the kind of --device, or on those with these names (cuda:0,cuda:1); each takes
    /// batches of its own [default: one]
    #[arg(long, value_name = "one|all|NAMES", help_heading = "Model")]
    devices: Option<String>,

    /// Type that linear maps and attention compute in; all else, and the model that is written, is in f32 [default: f32]
    #[arg(long, visible_alias = "dtype", value_enum, help_heading = "Model")]
    #[serde(alias = "dtype")]
    precision: Option<ComputeType>,

    /// Most tokens of one input, special tokens included; not more than the model was trained with [default: 128; for GLiNER as
    /// many as that]
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub max_length: Option<usize>,

    /// Which side of a text that is too long goes; finetune_qa, finetune_gliner and pretrain read long texts in pieces, whole [default: as
    /// the tokenizer's settings say, else right]
    #[arg(long, value_enum, value_name = "SIDE", help_heading = "Model")]
    pub truncation: Option<Truncation>,

    /// Dropout in front of the classifier, which finetune_qa, finetune_embed and pretrain do not have [default: the checkpoint's]
    #[arg(long, value_name = "P", help_heading = "Model")]
    task_dropout: Option<f64>,

    /// Train with the embeddings as they are
    #[arg(long, help_heading = "Model")]
    freeze_embeddings: bool,

    /// Train with the first N encoder layers as they are
    #[arg(long, value_name = "N", help_heading = "Model")]
    freeze_layers: Option<usize>,

    /// Train low-rank adapters (LoRA) of this rank and the head, with the backbone as it is; leaves a folder as PEFT writes it, or with --lora-merge a model
    #[arg(long, value_name = "RANK", help_heading = "LoRA")]
    lora: Option<usize>,

    /// The change of a linear map is scaled by this number over the rank [default: 16]
    #[arg(long, value_name = "X", help_heading = "LoRA")]
    lora_alpha: Option<f64>,

    /// Leave the whole model with the change merged into it, and not an adapter; finetune_embed and finetune_gliner always do
    #[arg(long, help_heading = "LoRA")]
    lora_merge: bool,

    /// Linear maps to adapt: some of query, key, value, attention-output, intermediate, output, or all [default: query,value]
    #[arg(long, value_name = "NAMES", help_heading = "LoRA")]
    lora_targets: Option<String>,

    /// File to learn from
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub train: Option<PathBuf>,

    /// File to choose the best model by
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    valid: Option<PathBuf>,

    /// File to judge the chosen model by
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    test: Option<PathBuf>,

    /// Output folder: model, metrics.csv, curves.svg, training.json
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub output: Option<PathBuf>,

    /// Go on with the unfinished run in the output folder, if there is one
    #[arg(long, help_heading = "Run")]
    #[serde(skip)]
    pub resume: bool,

    /// Of everything random: new head, order of examples, dropout, noise [default: 0]
    #[arg(long, value_name = "N", help_heading = "Run")]
    seed: Option<u64>,

    /// Steps between lines of metrics.csv [default: 10]
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub report_every: Option<usize>,

    /// Steps between evaluations, at which the run is also saved [default: once an epoch]
    #[arg(long, value_name = "N", help_heading = "Run")]
    evaluate_every: Option<usize>,

    /// Stop after so many evaluations on --valid without improvement [default: never]
    #[arg(long, value_name = "N", help_heading = "Run")]
    patience: Option<usize>,

    /// Passes through the training data [default: 3]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    epochs: Option<f64>,

    /// Optimiser steps, instead of epochs
    #[arg(long, value_name = "N", help_heading = "Optimisation", conflicts_with = "epochs")]
    steps: Option<usize>,

    /// Examples in a batch [default: 32]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    batch_size: Option<usize>,

    /// Batches whose gradients make one step [default: 1]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    accumulation: Option<usize>,

    /// The highest learning rate [default: 2e-5; 2e-4 with --lora; 1e-3 for models/deberta-tiny, 5e-4 from scratch]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    learning_rate: Option<f64>,

    /// Steps in which the learning rate rises
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    warmup_steps: Option<usize>,

    /// Share of all steps in which the learning rate rises [default: 0.1]
    #[arg(long, value_name = "X", help_heading = "Optimisation", conflicts_with = "warmup_steps")]
    warmup_ratio: Option<f64>,

    /// How the learning rate goes on after that: linear, cosine or constant [default: linear]
    #[arg(long, value_name = "KIND", help_heading = "Optimisation", value_parser = parse::<ScheduleKind>)]
    schedule: Option<ScheduleKind>,

    /// Weight decay, of all but biases and LayerNorms [default: 0.01]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    weight_decay: Option<f64>,

    /// Factor of the learning rate from each layer to the one below it [default: 1]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    layer_decay: Option<f64>,

    /// The largest norm of all gradients together, 0 for any [default: 1]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    clip_norm: Option<f64>,

    /// Scale-invariant fine-tuning: train against perturbed embeddings, too
    #[arg(long, help_heading = "SiFT")]
    sift: bool,

    /// Weight of the adversarial term [default: 5]
    #[arg(long, value_name = "X", help_heading = "SiFT")]
    sift_lambda: Option<f64>,

    /// Step along the gradient [default: 1e-4]
    #[arg(long, value_name = "X", help_heading = "SiFT")]
    sift_step_size: Option<f64>,

    /// Standard deviation of the noise that the step starts from [default: 1e-2]
    #[arg(long, value_name = "X", help_heading = "SiFT")]
    sift_noise: Option<f64>,

    /// What the step climbs: symmetric-kl, kl or mse; for numbers (regression, vectors, rankings) it is always mse [default: symmetric-kl]
    #[arg(long, value_name = "LOSS", help_heading = "SiFT", value_parser = parse::<SiftLoss>)]
    sift_loss: Option<SiftLoss>,
}

/// Reads a name as the settings file spells it.
fn parse<T: for<'a> Deserialize<'a>>(name: &str) -> std::result::Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

impl TrainingFlags {
    /// Lays the flags over the settings file, and both over the recipe. A model `from_scratch` stands for the flag --model.
    pub fn resolve(self, output: &str, from_scratch: bool) -> Result<Self> {
        let mut flags = match &self.settings {
            Some(path) => {
                let subject = path.display().to_string();
                let text = decode_text(&subject, fs::read(path).map_err(Error::io("read", path))?)?;
                let file: Self =
                    toml::from_str(&text).map_err(|error| Error::input(&subject, error.to_string().trim_end()))?;
                file.check_rivals(&subject)?;
                self.over(file)
            }
            None => self,
        };
        if from_scratch {
            flags.model = None;
        }
        flags.check_companions()?;
        if let Some(name) = &flags.recipe {
            let recipe = Recipe::find(name)?;
            let (warmup_steps, warmup_ratio) = match recipe.warmup {
                Warmup::Steps(steps) => (Some(steps), None),
                Warmup::Ratio(ratio) => (None, Some(ratio)),
            };
            let published = Self {
                epochs: Some(recipe.epochs),
                warmup_steps,
                warmup_ratio,
                learning_rate: Some(recipe.learning_rate),
                batch_size: Some(recipe.batch_size),
                task_dropout: Some(recipe.task_dropout),
                max_length: Some(recipe.max_length),
                sift_lambda: Some(recipe.sift_lambda),
                ..Self::default()
            };
            flags = flags.over(published);
        }
        if from_scratch {
            flags.learning_rate.get_or_insert(5e-4);
        } else if Path::new(flags.model()).ends_with(DEFAULT_MODEL) {
            // A model of a few million parameters learns at rates that a large one would not survive.
            flags.learning_rate.get_or_insert(1e-3);
        }
        flags.output.get_or_insert_with(|| output.into());
        Ok(flags)
    }

    /// What is said here, else what is said below. Of two that exclude each other, one of here leaves none of below.
    fn over(self, below: Self) -> Self {
        let has_length = self.epochs.is_some() || self.steps.is_some();
        let has_warmup = self.warmup_steps.is_some() || self.warmup_ratio.is_some();
        Self {
            settings: self.settings,
            resume: self.resume,
            recipe: self.recipe.or(below.recipe),
            model: self.model.or(below.model),
            device: self.device.or(below.device),
            devices: self.devices.or(below.devices),
            precision: self.precision.or(below.precision),
            max_length: self.max_length.or(below.max_length),
            truncation: self.truncation.or(below.truncation),
            task_dropout: self.task_dropout.or(below.task_dropout),
            freeze_embeddings: self.freeze_embeddings || below.freeze_embeddings,
            freeze_layers: self.freeze_layers.or(below.freeze_layers),
            lora: self.lora.or(below.lora),
            lora_alpha: self.lora_alpha.or(below.lora_alpha),
            lora_merge: self.lora_merge || below.lora_merge,
            lora_targets: self.lora_targets.or(below.lora_targets),
            train: self.train.or(below.train),
            valid: self.valid.or(below.valid),
            test: self.test.or(below.test),
            output: self.output.or(below.output),
            seed: self.seed.or(below.seed),
            report_every: self.report_every.or(below.report_every),
            evaluate_every: self.evaluate_every.or(below.evaluate_every),
            patience: self.patience.or(below.patience),
            epochs: self.epochs.or(below.epochs.filter(|_| !has_length)),
            steps: self.steps.or(below.steps.filter(|_| !has_length)),
            batch_size: self.batch_size.or(below.batch_size),
            accumulation: self.accumulation.or(below.accumulation),
            learning_rate: self.learning_rate.or(below.learning_rate),
            warmup_steps: self.warmup_steps.or(below.warmup_steps.filter(|_| !has_warmup)),
            warmup_ratio: self.warmup_ratio.or(below.warmup_ratio.filter(|_| !has_warmup)),
            schedule: self.schedule.or(below.schedule),
            weight_decay: self.weight_decay.or(below.weight_decay),
            layer_decay: self.layer_decay.or(below.layer_decay),
            clip_norm: self.clip_norm.or(below.clip_norm),
            sift: self.sift || below.sift,
            sift_lambda: self.sift_lambda.or(below.sift_lambda),
            sift_step_size: self.sift_step_size.or(below.sift_step_size),
            sift_noise: self.sift_noise.or(below.sift_noise),
            sift_loss: self.sift_loss.or(below.sift_loss),
        }
    }

    /// Refuses two that exclude each other, in a settings file as on the command line.
    fn check_rivals(&self, file: &str) -> Result<()> {
        let rivals = [
            ("epochs", self.epochs.is_some(), "steps", self.steps.is_some()),
            ("warmup-steps", self.warmup_steps.is_some(), "warmup-ratio", self.warmup_ratio.is_some()),
        ];
        match rivals.iter().find(|(_, first, _, second)| *first && *second) {
            Some((first, _, second, _)) => {
                Err(Error::input(file, format!("`{first}` and `{second}` exclude each other: remove one")))
            }
            None => Ok(()),
        }
    }

    /// Refuses what says how to do a thing that is not asked for.
    fn check_companions(&self) -> Result<()> {
        let (sift, lora) = ("scale-invariant fine-tuning only: add --sift", "low-rank adapters only: add --lora");
        let companions = [
            ("--sift-lambda", self.sift_lambda.is_some(), self.sift, sift),
            ("--sift-step-size", self.sift_step_size.is_some(), self.sift, sift),
            ("--sift-noise", self.sift_noise.is_some(), self.sift, sift),
            ("--sift-loss", self.sift_loss.is_some(), self.sift, sift),
            ("--lora-alpha", self.lora_alpha.is_some(), self.lora.is_some(), lora),
            ("--lora-merge", self.lora_merge, self.lora.is_some(), lora),
            ("--lora-targets", self.lora_targets.is_some(), self.lora.is_some(), lora),
        ];
        match companions.into_iter().find(|(_, is_given, has_leader, _)| *is_given && !has_leader) {
            Some((flag, _, _, purpose)) => Err(Error::setting(flag, format!("it is for {purpose}"))),
            None => Ok(()),
        }
    }
}
