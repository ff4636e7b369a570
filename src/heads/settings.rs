//! What heads take from a configuration.

use burn::tensor::Device;

use crate::{
    config::{Activation, ModelConfig},
    model::{Pooler, init::Init, linear::Linear},
};

/// Sizes, dropouts and activations of heads. The families differ in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadSettings {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Dropout in front of the pooler's projection.
    pub pooler_dropout: f64,
    /// The pooler's activation.
    pub pooler_activation: Activation,
    /// Dropout in front of a classifier, over the pooled text or over tokens. (The original's tagger has this one, too; that of
    /// transformers passes over `cls_dropout`, which matters in training alone.)
    pub classifier_dropout: f64,
    /// The activation of the language-model head.
    pub lm_activation: Activation,
    /// Number of tokens that the language-model head tells apart.
    pub vocab_size: usize,
    /// Width of the token embeddings.
    pub embedding_size: usize,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Epsilon of LayerNorms.
    pub layer_norm_eps: f64,
}

impl From<&ModelConfig> for HeadSettings {
    fn from(config: &ModelConfig) -> Self {
        match config {
            ModelConfig::Deberta(config) => Self {
                hidden_size: config.hidden_size,
                pooler_dropout: config.pooler_dropout,
                pooler_activation: config.pooler_hidden_act,
                classifier_dropout: config.classifier_dropout(),
                lm_activation: config.hidden_act,
                vocab_size: config.vocab_size,
                embedding_size: config.embedding_size(),
                initializer_range: config.initializer_range,
                layer_norm_eps: config.layer_norm_eps,
            },
            ModelConfig::Roberta(config) => Self {
                hidden_size: config.hidden_size,
                // `RobertaClassificationHead` drops out on both sides of its projection.
                pooler_dropout: config.classifier_dropout(),
                pooler_activation: Activation::Tanh,
                classifier_dropout: config.classifier_dropout(),
                lm_activation: Activation::Gelu,
                vocab_size: config.vocab_size,
                embedding_size: config.hidden_size,
                initializer_range: config.initializer_range,
                layer_norm_eps: config.layer_norm_eps,
            },
        }
    }
}

impl HeadSettings {
    /// The settings of multiple choice. `RobertaForMultipleChoice` has the pooler of the bare model, which drops nothing out.
    pub fn of_multiple_choice(config: &ModelConfig) -> Self {
        let settings = Self::from(config);
        match config {
            ModelConfig::Deberta(_) => settings,
            ModelConfig::Roberta(_) => Self { pooler_dropout: 0.0, ..settings },
        }
    }

    /// The maker of a head's layers.
    pub fn init<'a>(&self, device: &'a Device) -> Init<'a> {
        Init { device, std: self.initializer_range, epsilon: self.layer_norm_eps }
    }

    /// A fresh pooler.
    pub fn pooler(&self, device: &Device) -> Pooler {
        Pooler::new(&self.init(device), self.hidden_size, self.pooler_dropout, self.pooler_activation)
    }

    /// A fresh linear map from a hidden state to `outputs` logits.
    pub fn classifier(&self, outputs: usize, device: &Device) -> Linear {
        self.init(device).linear(self.hidden_size, outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DebertaConfig, DebertaVersion, RobertaConfig};

    #[test]
    fn multiple_choice_of_roberta_has_the_bare_pooler() {
        let roberta = RobertaConfig { classifier_dropout: Some(0.3), ..RobertaConfig::default() }.into();
        let (text, choice) = (HeadSettings::from(&roberta), HeadSettings::of_multiple_choice(&roberta));
        assert_eq!((text.pooler_dropout, choice.pooler_dropout), (0.3, 0.0));
        assert_eq!(choice.classifier_dropout, 0.3);
        let deberta = DebertaConfig { pooler_dropout: 0.2, ..DebertaConfig::new(DebertaVersion::V2) }.into();
        assert_eq!(HeadSettings::of_multiple_choice(&deberta).pooler_dropout, 0.2);
    }
}
