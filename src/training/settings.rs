//! How a model is trained, as plain data.

use serde::{Deserialize, Serialize};

use super::{
    bounds::{count, not_negative, number, positive},
    lora::Lora,
    optimizer::{AdamWConfig, Frozen, ScheduleKind, Warmup},
    sift::Sift,
};
use crate::{Error, Precision, Result};

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingSettings {
    /// Passes through the training data; fractions are allowed.
    pub epochs: f64,
    /// Number of optimiser steps; if given, it replaces `epochs`.
    pub steps: Option<usize>,
    /// Examples in a batch of one device.
    pub batch_size: usize,
    /// Batches of each device in one step: their gradients are averaged.
    pub accumulation: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How long the learning rate rises.
    pub warmup: Warmup,
    /// How the learning rate falls.
    pub schedule: ScheduleKind,
    /// Each layer has the learning rate of the layer above it, times this factor.
    pub layer_decay: f64,
    /// What linear maps and attention compute in: f32, bf16 or f16. Parameters and files are in f32.
    pub precision: Precision,
    /// The optimiser's numbers.
    pub optimizer: AdamWConfig,
    /// The part of the model that is not trained.
    pub frozen: Frozen,
    /// Low-rank adapters in the place of the backbone's weights, if wanted. The run then leaves an adapter, not a whole
    /// checkpoint.
    pub lora: Option<Lora>,
    /// Scale-invariant fine-tuning, if wanted.
    pub sift: Option<Sift>,
    /// Steps between evaluations; if none, the model is evaluated after each epoch.
    pub evaluate_every: Option<usize>,
    /// Training stops after this many evaluations without improvement; never, if none. It needs validation data.
    pub patience: Option<usize>,
    /// Seed of the order of examples, of dropout and of noise.
    pub seed: u64,
}

impl Default for TrainingSettings {
    /// The published recipe of MNLI on a base model, but with warmup as a share of all steps.
    fn default() -> Self {
        Self {
            epochs: 3.0,
            steps: None,
            batch_size: 32,
            accumulation: 1,
            learning_rate: 2e-5,
            warmup: Warmup::Ratio(0.1),
            schedule: ScheduleKind::Linear,
            layer_decay: 1.0,
            precision: Precision::F32,
            optimizer: AdamWConfig::default(),
            frozen: Frozen::default(),
            lora: None,
            sift: None,
            evaluate_every: None,
            patience: None,
            seed: 0,
        }
    }
}

impl TrainingSettings {
    /// Checks every number.
    ///
    /// # Errors
    /// A number that is not finite or out of its range. The error names the command line flag that sets it in the
    /// examples.
    pub fn validate(&self) -> Result<()> {
        let Self { epochs, learning_rate, layer_decay, .. } = *self;
        number("--epochs", epochs, epochs > 0.0 && epochs <= 1e6, "above 0, and at most 1000000")?;
        count("--steps", self.steps.unwrap_or(1), 1..=1 << 40)?;
        count("--batch-size", self.batch_size, 1..=1 << 20)?;
        count("--accumulation", self.accumulation, 1..=1 << 20)?;
        positive("--learning-rate", learning_rate)?;
        if let Warmup::Ratio(ratio) = self.warmup {
            number("--warmup-ratio", ratio, (0.0..=1.0).contains(&ratio), "from 0 to 1")?;
        }
        number("--layer-decay", layer_decay, layer_decay > 0.0 && layer_decay <= 1.0, "above 0, and at most 1")?;
        count("--evaluate-every", self.evaluate_every.unwrap_or(1), 1..=usize::MAX)?;
        count("--patience", self.patience.unwrap_or(1), 1..=usize::MAX)?;
        self.optimizer.validate()?;
        if let Some(lora) = &self.lora {
            lora.validate()?;
            if self.frozen != Frozen::default() {
                return Err(Error::setting(
                    "--lora",
                    "it freezes the backbone: leave --freeze-embeddings and --freeze-layers away",
                ));
            }
        }
        self.sift.map_or(Ok(()), |sift| sift.validate())
    }
}

impl AdamWConfig {
    /// Checks every number, as [`TrainingSettings::validate`] does.
    ///
    /// # Errors
    /// As there.
    pub fn validate(&self) -> Result<()> {
        for (name, beta) in [("--beta-1", self.beta_1), ("--beta-2", self.beta_2)] {
            number(name, beta, (0.0..1.0).contains(&beta), "from 0 up to, but not including, 1")?;
        }
        positive("--epsilon", self.epsilon)?;
        not_negative("--weight-decay", self.weight_decay)?;
        not_negative("--clip-norm", self.max_norm)
    }
}

impl Sift {
    /// Checks every number, as [`TrainingSettings::validate`] does.
    ///
    /// # Errors
    /// As there.
    pub fn validate(&self) -> Result<()> {
        positive("--sift-lambda", self.lambda)?;
        not_negative("--sift-step-size", self.step_size)?;
        not_negative("--sift-noise", self.noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_numbers_are_valid() {
        let sift = Some(Sift::default());
        TrainingSettings { sift, ..TrainingSettings::default() }.validate().unwrap();
        // No clipping, no decay, no warmup.
        let optimizer = AdamWConfig { max_norm: 0.0, weight_decay: 0.0, ..AdamWConfig::default() };
        TrainingSettings { optimizer, warmup: Warmup::Ratio(0.0), ..TrainingSettings::default() }.validate().unwrap();
    }

    #[test]
    fn each_number_is_refused_by_its_flag() {
        type Change = fn(&mut TrainingSettings, f64);
        type Zero = fn(&mut TrainingSettings);
        let numbers: [(&str, f64, Change); 12] = [
            ("--epochs", 0.0, |settings, value| settings.epochs = value),
            ("--learning-rate", 0.0, |settings, value| settings.learning_rate = value),
            ("--warmup-ratio", 1.1, |settings, value| settings.warmup = Warmup::Ratio(value)),
            ("--layer-decay", 1.5, |settings, value| settings.layer_decay = value),
            ("--beta-1", 1.0, |settings, value| settings.optimizer.beta_1 = value),
            ("--beta-2", -0.1, |settings, value| settings.optimizer.beta_2 = value),
            ("--epsilon", 0.0, |settings, value| settings.optimizer.epsilon = value),
            ("--weight-decay", -0.1, |settings, value| settings.optimizer.weight_decay = value),
            ("--clip-norm", -1.0, |settings, value| settings.optimizer.max_norm = value),
            ("--sift-lambda", 0.0, |settings, value| settings.sift.as_mut().unwrap().lambda = value),
            ("--sift-step-size", -1.0, |settings, value| settings.sift.as_mut().unwrap().step_size = value),
            ("--sift-noise", -1.0, |settings, value| settings.sift.as_mut().unwrap().noise = value),
        ];
        let valid = TrainingSettings { sift: Some(Sift::default()), ..TrainingSettings::default() };
        let refused = |flag: &str, value: &dyn std::fmt::Display, settings: &TrainingSettings| {
            let error = settings.validate().expect_err(flag).to_string();
            assert!(error.starts_with(&format!("{flag}: it is {value}, expected ")), "{error}");
        };
        for (flag, out_of_range, change) in numbers {
            for value in [out_of_range, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut settings = valid.clone();
                change(&mut settings, value);
                refused(flag, &value, &settings);
            }
        }
        let counts: [(&str, Zero); 5] = [
            ("--steps", |settings| settings.steps = Some(0)),
            ("--batch-size", |settings| settings.batch_size = 0),
            ("--accumulation", |settings| settings.accumulation = 0),
            ("--evaluate-every", |settings| settings.evaluate_every = Some(0)),
            ("--patience", |settings| settings.patience = Some(0)),
        ];
        for (flag, change) in counts {
            let mut settings = valid.clone();
            change(&mut settings);
            refused(flag, &0, &settings);
        }
        // The product with the number of devices must not overflow.
        refused("--accumulation", &usize::MAX, &TrainingSettings { accumulation: usize::MAX, ..valid });
    }
}
