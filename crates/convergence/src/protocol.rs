//! By which numbers models are compared: presets, settings, and the specification of a run.

use std::path::PathBuf;

use clap::ValueEnum;
use deberta_burn::{
    DebertaConfig, Precision, RobertaConfig,
    config::{Activation, DebertaVersion, PositionTerms},
    training::{ScheduleKind, TrainingSettings, Warmup},
};
use serde::{Deserialize, Serialize};

use crate::variant::Variant;

/// Sizes and budgets that fit a machine and some patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Seven minutes on two idle cores
    Minutes,
    /// By estimate an hour on two idle cores with --ablation
    Hours,
    /// By estimate eight minutes for a pair of models on a large GPU; --minutes and --merge divide it up
    GpuMinutes,
    /// The published base models' sizes, for a GPU and texts of your own
    Gpu,
}

/// Everything that all runs of an experiment share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Tokens of the vocabulary, special ones included.
    pub vocabulary: usize,
    /// Tokens of a sequence.
    pub length: usize,
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    /// Of everything, in pretraining and fine-tuning.
    pub dropout: f64,
    /// Sequences a step.
    pub batch_size: usize,
    /// Optimiser steps of pretraining.
    pub steps: usize,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Sequences of the validation text that an evaluation reads.
    pub evaluated: usize,
    /// Passes through the downstream task's training data.
    pub downstream_epochs: f64,
    pub downstream_learning_rate: f64,
    /// Where models are trained.
    pub device: String,
    /// What their linear maps and attention compute in.
    pub precision: Precision,
}

/// How often a run is evaluated.
const EVALUATIONS: usize = 24;
/// How often it is fine-tuned.
const CHECKPOINTS: usize = 4;
/// The first seed of the runs that tune learning rates; no other run has this or a higher one.
pub const TUNING_SEED: u64 = 1000;
/// Epsilon of LayerNorms, in every variant.
pub const LAYER_NORM_EPSILON: f64 = 1e-7;
/// Sequences a step of fine-tuning.
pub const DOWNSTREAM_BATCH: usize = 32;

impl Preset {
    pub fn name(self) -> &'static str {
        match self {
            Self::Minutes => "minutes",
            Self::Hours => "hours",
            Self::GpuMinutes => "gpu-minutes",
            Self::Gpu => "gpu",
        }
    }

    pub fn settings(self) -> Settings {
        let minutes = Settings {
            vocabulary: 2000,
            // Short: with 64 places at a width of 64, RoBERTa hardly begins to use the context in the time that minutes allow.
            length: 16,
            layers: 4,
            hidden: 64,
            heads: 2,
            dropout: 0.0,
            batch_size: 64,
            steps: 1920,
            warmup: 0.1,
            evaluated: 1600,
            downstream_epochs: 2.0,
            downstream_learning_rate: 1e-3,
            device: "flex".to_owned(),
            precision: Precision::F32,
        };
        match self {
            Self::Minutes => minutes,
            Self::Hours => {
                Settings { length: 24, batch_size: 40, steps: 3840, evaluated: 2000, downstream_epochs: 3.0, ..minutes }
            }
            // About 7 million parameters, and 20 tokens for each.
            Self::GpuMinutes => Settings {
                vocabulary: 8000,
                length: 128,
                layers: 6,
                hidden: 256,
                heads: 4,
                dropout: 0.1,
                batch_size: 240,
                steps: 4600,
                warmup: 0.05,
                evaluated: 2000,
                downstream_epochs: 3.0,
                downstream_learning_rate: 1e-4,
                device: "cuda".to_owned(),
                precision: Precision::Bf16,
            },
            Self::Gpu => Settings {
                vocabulary: 32_000,
                length: 512,
                layers: 12,
                hidden: 768,
                heads: 12,
                dropout: 0.1,
                batch_size: 64,
                steps: 48_000,
                warmup: 0.02,
                evaluated: 2000,
                downstream_epochs: 3.0,
                downstream_learning_rate: 3e-5,
                device: "cuda".to_owned(),
                precision: Precision::F32,
            },
        }
    }

    /// The learning rate that suits this size, where none is given or tuned.
    pub fn learning_rate(self, variant: Variant) -> f64 {
        match self {
            // Where words are guessed at 2e-3, the discriminator hardly finds a replaced one; at 4e-3 it finds none.
            Self::Minutes | Self::Hours if variant == Variant::ReplacedToken => 5e-4,
            Self::Minutes | Self::Hours => 2e-3,
            Self::GpuMinutes => 1e-3,
            Self::Gpu => 2e-4,
        }
    }
}

impl Settings {
    /// Width of the feed-forward network, four times that of the model as in the published sizes.
    pub fn intermediate(&self) -> usize {
        4 * self.hidden
    }

    /// Standard deviation of fresh weights: the published base models' 0.02, for the width at hand, so that a sum over the width
    /// is as large as theirs.
    pub fn initializer_range(&self) -> f64 {
        0.02 * (768.0 / self.hidden as f64).sqrt()
    }

    /// Whether models are trained on the CPU.
    pub fn on_cpu(&self) -> bool {
        self.device.starts_with("flex") || self.device.starts_with("ndarray")
    }

    /// Steps between evaluations.
    pub fn evaluate_every(&self) -> usize {
        (self.steps / EVALUATIONS).max(1)
    }

    /// The steps whose models are fine-tuned, at even distances up to the last; each is evaluated, too.
    pub fn checkpoints(&self) -> Vec<usize> {
        let every = self.evaluate_every();
        let mut steps: Vec<_> = (1..CHECKPOINTS).map(|part| self.steps * part / CHECKPOINTS / every * every).collect();
        steps.push(self.steps);
        steps.retain(|step| *step > 0);
        steps.dedup();
        steps
    }

    /// How a model is pretrained.
    pub fn pretraining(&self, learning_rate: f64, seed: u64) -> TrainingSettings {
        TrainingSettings {
            steps: Some(self.steps),
            batch_size: self.batch_size,
            learning_rate,
            precision: self.precision,
            warmup: Warmup::Ratio(self.warmup),
            schedule: ScheduleKind::Linear,
            evaluate_every: Some(self.evaluate_every()),
            seed,
            ..TrainingSettings::default()
        }
    }

    /// How a model is fine-tuned.
    pub fn fine_tuning(&self, seed: u64) -> TrainingSettings {
        TrainingSettings {
            epochs: self.downstream_epochs,
            batch_size: DOWNSTREAM_BATCH,
            learning_rate: self.downstream_learning_rate,
            precision: self.precision,
            warmup: Warmup::Ratio(0.1),
            seed,
            ..TrainingSettings::default()
        }
    }

    /// RoBERTa of these sizes.
    pub fn roberta(&self) -> RobertaConfig {
        RobertaConfig {
            vocab_size: self.vocabulary,
            hidden_size: self.hidden,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            intermediate_size: self.intermediate(),
            hidden_dropout_prob: self.dropout,
            attention_probs_dropout_prob: self.dropout,
            // Positions start behind the padding's.
            max_position_embeddings: self.length + 1,
            pad_token_id: 0,
            type_vocab_size: 1,
            initializer_range: self.initializer_range(),
            layer_norm_eps: LAYER_NORM_EPSILON,
            ..RobertaConfig::default()
        }
    }

    /// As DeBERTa v2 and v3: positions share the content's projections, so that parameters are about as many as RoBERTa's,
    /// and the position table is normalised. All distances are told apart.
    pub fn deberta(&self, terms: PositionTerms) -> DebertaConfig {
        DebertaConfig {
            vocab_size: self.vocabulary,
            hidden_size: self.hidden,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            intermediate_size: self.intermediate(),
            hidden_dropout_prob: self.dropout,
            attention_probs_dropout_prob: self.dropout,
            max_position_embeddings: self.length,
            type_vocab_size: 0,
            initializer_range: self.initializer_range(),
            layer_norm_eps: LAYER_NORM_EPSILON,
            relative_attention: terms.count() > 0,
            pos_att_type: terms,
            share_att_key: true,
            norm_rel_ebd: if terms.count() > 0 { "layer_norm" } else { "none" }.to_owned(),
            position_biased_input: false,
            pooler_dropout: self.dropout,
            // RoBERTa's, for one head.
            pooler_hidden_act: Activation::Tanh,
            legacy: false,
            ..DebertaConfig::new(DebertaVersion::V2)
        }
    }
}

/// The text of an experiment, and what is made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// What is learnt from.
    pub train: PathBuf,
    /// What is predicted in evaluations.
    pub valid: PathBuf,
    /// The folder of the downstream task's `train.tsv`, `valid.tsv` and `test.tsv`.
    pub downstream: PathBuf,
    /// The folder of the tokenizer.
    pub tokenizer: PathBuf,
    /// The folder of the tokenised texts.
    pub cache: PathBuf,
    /// SHA-256 of the files, by which a changed text is noticed.
    pub digests: Vec<String>,
}

/// One run: what a worker has to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    pub variant: Variant,
    pub seed: u64,
    pub learning_rate: f64,
    /// The steps whose models are fine-tuned; none in runs that only tune the learning rate.
    pub checkpoints: Vec<usize>,
    pub settings: Settings,
    pub data: Data,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_evaluated() {
        for steps in [1, 2, 3, 5, 24, 100, 960, 1921] {
            let settings = Settings { steps, ..Preset::Minutes.settings() };
            let checkpoints = settings.checkpoints();
            let evaluated = |step: usize| step.is_multiple_of(settings.evaluate_every()) || step == steps;
            assert!(checkpoints.iter().all(|step| evaluated(*step)), "{steps}: {checkpoints:?}");
            assert!(checkpoints.is_sorted_by(|a, b| a < b) && checkpoints.last() == Some(&steps));
        }
        assert_eq!(Preset::Minutes.settings().checkpoints(), [480, 960, 1440, 1920]);
    }
}
