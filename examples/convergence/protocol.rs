//! What is compared, and by which numbers: variants, presets, and the specification of a run.

use std::path::PathBuf;

use burn::{module::Module, tensor::Device};
use clap::ValueEnum;
use deberta_burn::{
    DebertaConfig, Result, RobertaConfig,
    activation::Activation,
    config::{DebertaVersion, PositionTerms},
    heads::{DebertaForMaskedLm, MaskedLmLayout, RobertaForMaskedLm},
    training::{
        ScheduleKind, TrainingSettings, Warmup,
        replaced_token::{ReplacedToken, ReplacedTokenPretraining},
    },
};
use serde::{Deserialize, Serialize};

/// The models that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The baseline: absolute positions at the input.
    Roberta,
    /// Disentangled attention and the enhanced mask decoder.
    Deberta,
    /// Without the enhanced mask decoder, and so without absolute positions.
    NoEmd,
    /// Attention without the content-to-position term.
    NoC2p,
    /// Attention without the position-to-content term.
    NoP2c,
    /// Attention of contents alone; what is left of positions is in the enhanced mask decoder.
    NoC2pP2c,
    /// DeBERTa that learns to find the tokens that a generator replaced, as v3, instead of masked ones.
    ReplacedToken,
}

impl Variant {
    /// The two that are always compared.
    pub const PAIR: [Self; 2] = [Self::Roberta, Self::Deberta];
    /// What `--ablation` adds: parts taken away from DeBERTa, and another objective.
    pub const ABLATIONS: [Self; 5] = [Self::NoEmd, Self::NoC2p, Self::NoP2c, Self::NoC2pP2c, Self::ReplacedToken];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Roberta => "roberta",
            Self::Deberta => "deberta",
            Self::NoEmd => "no-emd",
            Self::NoC2p => "no-c2p",
            Self::NoP2c => "no-p2c",
            Self::NoC2pP2c => "no-c2p-p2c",
            Self::ReplacedToken => "replaced-token",
        }
    }

    /// The name in tables and pictures.
    pub fn label(self) -> &'static str {
        match self {
            Self::Roberta => "RoBERTa",
            Self::Deberta => "DeBERTa",
            Self::NoEmd => "\u{2212} EMD",
            Self::NoC2p => "\u{2212} c2p",
            Self::NoP2c => "\u{2212} p2c",
            Self::NoC2pP2c => "\u{2212} (c2p + p2c)",
            Self::ReplacedToken => "RTD",
        }
    }

    /// The position terms of its attention.
    pub fn terms(self) -> PositionTerms {
        PositionTerms {
            c2p: !matches!(self, Self::Roberta | Self::NoC2p | Self::NoC2pP2c),
            p2c: !matches!(self, Self::Roberta | Self::NoP2c | Self::NoC2pP2c),
        }
    }

    /// Whether masked words are predicted by the enhanced mask decoder.
    pub fn has_decoder(self) -> bool {
        !matches!(self, Self::Roberta | Self::NoEmd)
    }

    /// Whether it predicts masked tokens; what else it does has a loss of another kind.
    pub fn is_masked_lm(self) -> bool {
        self != Self::ReplacedToken
    }

    /// Its configuration.
    pub fn architecture(self, settings: &Settings) -> Architecture {
        let deberta = || settings.deberta(self.terms());
        match self {
            Self::Roberta => Architecture::Roberta(settings.roberta()),
            Self::NoEmd => Architecture::Deberta(deberta(), MaskedLmLayout::LastLayer),
            Self::ReplacedToken => Architecture::ReplacedToken(deberta()),
            _ => Architecture::Deberta(deberta(), MaskedLmLayout::EnhancedMaskDecoder),
        }
    }

    /// The number of its parameters in pretraining.
    ///
    /// # Errors
    /// Settings that no model can have.
    pub fn parameters(self, settings: &Settings) -> Result<usize> {
        let device = Device::flex();
        Ok(match self.architecture(settings) {
            Architecture::Roberta(config) => {
                config.validate()?;
                RobertaForMaskedLm::new(&config, &device).num_params()
            }
            Architecture::Deberta(config, layout) => {
                config.validate()?;
                DebertaForMaskedLm::new(&config, layout, &device)?.num_params()
            }
            Architecture::ReplacedToken(config) => {
                config.validate()?;
                ReplacedTokenPretraining::new(&config, ReplacedToken::default(), &device)?.num_params()
            }
        })
    }
}

/// A model's configuration, by family.
pub enum Architecture {
    Roberta(RobertaConfig),
    Deberta(DebertaConfig, MaskedLmLayout),
    /// The discriminator, whose generator follows from it.
    ReplacedToken(DebertaConfig),
}

/// Sizes and budgets that fit a machine and some patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Under a quarter of an hour on two cores
    Minutes,
    /// About an hour on two cores with --ablation
    Hours,
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
}

/// How often a run is evaluated.
const EVALUATIONS: usize = 24;
/// How often it is fine-tuned.
const CHECKPOINTS: usize = 4;
/// Epsilon of LayerNorms, in every variant.
pub const LAYER_NORM_EPSILON: f64 = 1e-7;
/// Sequences a step of fine-tuning.
pub const DOWNSTREAM_BATCH: usize = 32;

impl Preset {
    pub fn name(self) -> &'static str {
        match self {
            Self::Minutes => "minutes",
            Self::Hours => "hours",
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
        };
        match self {
            Self::Minutes => minutes,
            Self::Hours => {
                Settings { length: 24, batch_size: 40, steps: 3840, evaluated: 2000, downstream_epochs: 3.0, ..minutes }
            }
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
            },
        }
    }

    /// The learning rate that suits this size, where none is given or tuned.
    pub fn learning_rate(self) -> f64 {
        match self {
            Self::Minutes | Self::Hours => 2e-3,
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
            warmup: Warmup::Ratio(0.1),
            seed,
            ..TrainingSettings::default()
        }
    }

    fn roberta(&self) -> RobertaConfig {
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
    fn deberta(&self, terms: PositionTerms) -> DebertaConfig {
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

    #[test]
    fn parameters_are_those_of_the_formula() {
        let settings =
            Settings { vocabulary: 100, length: 16, layers: 2, hidden: 8, heads: 2, ..Preset::Minutes.settings() };
        // Four projections with biases, two of the feed-forward network of 32, two LayerNorms.
        let layer = 4 * (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8) + 2 * 16;
        // Word table, LayerNorm of the embeddings, language-model head with its LayerNorm and bias.
        let shared = 100 * 8 + 16 + 2 * layer + (8 * 8 + 8) + 16 + 100;
        let parameters = |variant: Variant| variant.parameters(&settings).unwrap();
        // 17 positions, one token type.
        assert_eq!(parameters(Variant::Roberta), shared + 17 * 8 + 8);
        // 32 relative positions with a LayerNorm, 16 absolute ones.
        assert_eq!(parameters(Variant::Deberta), shared + 32 * 8 + 16 + 16 * 8);
        assert_eq!(parameters(Variant::NoEmd), shared + 32 * 8 + 16);
        assert_eq!(parameters(Variant::NoC2p), parameters(Variant::Deberta));
        assert_eq!(parameters(Variant::NoC2pP2c), shared + 16 * 8);
    }
}
