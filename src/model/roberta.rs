//! The parts of RoBERTa, the baseline: absolute positions at the input, plain attention (`RobertaModel` in the reference).

use burn::tensor::Device;

use super::{
    attention::AttentionConfig,
    backbone::{Backbone, BackboneConfig},
    embeddings::{EmbeddingsConfig, PositionIds},
    encoder::EncoderConfig,
    layer::EncoderLayerConfig,
};
use crate::config::{PositionTerms, RobertaConfig};

impl RobertaConfig {
    /// A model with fresh parameters, which are drawn when they are first used.
    pub fn init(&self, device: &Device) -> Backbone {
        BackboneConfig::from(self).init(device)
    }
}

impl From<&RobertaConfig> for BackboneConfig {
    fn from(config: &RobertaConfig) -> Self {
        Self {
            embeddings: EmbeddingsConfig {
                vocab_size: config.vocab_size,
                embedding_size: config.hidden_size,
                hidden_size: config.hidden_size,
                positions: Some((config.max_position_embeddings, PositionIds::AfterPadding(config.pad_token_id))),
                token_types: config.type_vocab_size,
                dropout: config.hidden_dropout_prob,
            },
            encoder: EncoderConfig {
                layers: config.num_hidden_layers,
                layer: EncoderLayerConfig {
                    attention: config.into(),
                    intermediate_size: config.intermediate_size,
                    activation: config.hidden_act,
                    dropout: config.hidden_dropout_prob,
                    switch: config.switch.clone(),
                },
                positions: None,
                normalise_positions: false,
                conv: None,
            },
            initializer_range: config.initializer_range,
            layer_norm_eps: config.layer_norm_eps,
        }
    }
}

impl From<&RobertaConfig> for AttentionConfig {
    /// Plain attention: no position terms.
    fn from(config: &RobertaConfig) -> Self {
        Self {
            hidden_size: config.hidden_size,
            heads: config.num_attention_heads,
            terms: PositionTerms::default(),
            relative: false,
            share_projections: false,
            key_bias: true,
            talking_heads: false,
            dropout: config.attention_probs_dropout_prob,
            position_dropout: 0.0,
        }
    }
}
