//! What the flags say: settings, devices, files.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use deberta_burn::{
    Error, Result,
    device::{device, devices},
    training::{AdamWConfig, Frozen, LinearRole, Lora, Sift, TrainingSettings, Warmup},
};

use super::{DEFAULT_MODEL, TrainingFlags, parse};

/// The files of a run's data.
pub struct Parts {
    pub train: PathBuf,
    pub valid: Option<PathBuf>,
    pub test: Option<PathBuf>,
}

impl TrainingFlags {
    /// The model to start from.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(DEFAULT_MODEL)
    }

    /// Dropout in front of the classifier, if it is said.
    pub fn task_dropout(&self) -> Result<Option<f64>> {
        match self.task_dropout.filter(|dropout| !(0.0..1.0).contains(dropout)) {
            Some(dropout) => {
                let problem = format!("it is {dropout}, expected a number from 0 up to, but not including, 1");
                Err(Error::setting("--task-dropout", problem))
            }
            None => Ok(self.task_dropout),
        }
    }

    /// Low-rank adapters, if they are asked for.
    fn lora(&self) -> Result<Option<Lora>> {
        let Some(rank) = self.lora else { return Ok(None) };
        let default = Lora::new(self.model());
        let targets = match self.lora_targets.as_deref() {
            Some("all") => LinearRole::ALL.to_vec(),
            Some(names) => names
                .split(',')
                .map(|name| parse(name.trim()).map_err(|problem| Error::setting("--lora-targets", problem)))
                .collect::<Result<_>>()?,
            None => default.targets,
        };
        Ok(Some(Lora {
            rank,
            alpha: self.lora_alpha.unwrap_or(default.alpha),
            targets,
            merged: self.lora_merge,
            ..default
        }))
    }

    /// Where to train, at least one device.
    fn devices(&self) -> Result<Vec<Device>> {
        let name = self.device.as_deref().unwrap_or("flex");
        match self.devices.as_deref() {
            None | Some("one") => Ok(vec![device(name)?]),
            Some("all") => devices(name),
            Some(_) if self.device.is_some() => {
                Err(Error::setting("--devices", "it names the devices to train on: leave --device away"))
            }
            Some(names) => devices(names),
        }
    }

    /// The data files: those of the flags, or `train.tsv`, `valid.tsv` and `test.tsv` of the example's own folder.
    pub fn parts(&self, default: Option<&Path>) -> Result<Parts> {
        let (valid, test) = (self.valid.clone(), self.test.clone());
        let parts = match (&self.train, default) {
            (Some(train), _) => Parts { train: train.clone(), valid, test },
            (None, Some(folder)) => Parts {
                train: folder.join("train.tsv"),
                valid: valid.or_else(|| Some(folder.join("valid.tsv"))),
                test: test.or_else(|| Some(folder.join("test.tsv"))),
            },
            (None, None) => return Err(Error::setting("--train", "it is missing, expected a file to learn from")),
        };
        match self.patience {
            Some(_) if parts.valid.is_none() => {
                Err(Error::setting("--patience", "nothing can be judged without validation data: add --valid"))
            }
            _ => Ok(parts),
        }
    }

    /// The settings, and the devices with gradients to train on: all that can be checked before anything is read.
    pub fn check(&self) -> Result<(TrainingSettings, Vec<Device>)> {
        let (settings, devices) = (self.settings()?, self.devices()?);
        settings.validate()?;
        devices.iter().try_for_each(|device| settings.precision.compute_type(device).map(drop))?;
        Ok((settings, devices.into_iter().map(Device::autodiff).collect()))
    }

    fn settings(&self) -> Result<TrainingSettings> {
        let default = TrainingSettings::default();
        let sift = Sift::default();
        Ok(TrainingSettings {
            epochs: self.epochs.unwrap_or(default.epochs),
            steps: self.steps,
            batch_size: self.batch_size.unwrap_or(default.batch_size),
            accumulation: self.accumulation.unwrap_or(default.accumulation),
            learning_rate: self.learning_rate.unwrap_or(match self.lora {
                Some(_) => 2e-4,
                None => default.learning_rate,
            }),
            warmup: match (self.warmup_steps, self.warmup_ratio) {
                (Some(steps), _) => Warmup::Steps(steps),
                (None, Some(ratio)) => Warmup::Ratio(ratio),
                (None, None) => default.warmup,
            },
            schedule: self.schedule.unwrap_or(default.schedule),
            layer_decay: self.layer_decay.unwrap_or(default.layer_decay),
            precision: self.precision.map_or(default.precision, Into::into),
            optimizer: AdamWConfig {
                weight_decay: self.weight_decay.unwrap_or(default.optimizer.weight_decay),
                max_norm: self.clip_norm.unwrap_or(default.optimizer.max_norm),
                ..default.optimizer
            },
            frozen: Frozen { embeddings: self.freeze_embeddings, layers: self.freeze_layers.unwrap_or(0) },
            lora: self.lora()?,
            sift: self.sift.then_some(Sift {
                lambda: self.sift_lambda.unwrap_or(sift.lambda),
                step_size: self.sift_step_size.unwrap_or(sift.step_size),
                noise: self.sift_noise.unwrap_or(sift.noise),
                loss: self.sift_loss.unwrap_or(sift.loss),
            }),
            evaluate_every: self.evaluate_every,
            patience: self.patience,
            seed: self.seed.unwrap_or(default.seed),
        })
    }
}
