//! The parts of DeBERTa v1, v2 and v3 (`DebertaModel`, `DebertaV2Model` in the reference).

use burn::tensor::Device;

use super::{
    attention::{AttentionConfig, relative_position::RelativePositions},
    backbone::{Backbone, BackboneConfig},
    conv::ConvConfig,
    embeddings::{EmbeddingsConfig, PositionIds},
    encoder::EncoderConfig,
    layer::EncoderLayerConfig,
};
use crate::config::DebertaConfig;

impl DebertaConfig {
    /// A model with fresh parameters, which are drawn when they are first used.
    pub fn init(&self, device: &Device) -> Backbone {
        BackboneConfig::from(self).init(device)
    }
}

impl From<&DebertaConfig> for BackboneConfig {
    fn from(config: &DebertaConfig) -> Self {
        Self {
            embeddings: config.into(),
            encoder: config.into(),
            initializer_range: config.initializer_range,
            layer_norm_eps: config.layer_norm_eps,
        }
    }
}

impl From<&DebertaConfig> for EmbeddingsConfig {
    fn from(config: &DebertaConfig) -> Self {
        let positions = (config.max_position_embeddings, PositionIds::FromZero);
        Self {
            vocab_size: config.vocab_size,
            embedding_size: config.embedding_size(),
            hidden_size: config.hidden_size,
            positions: config.position_biased_input.then_some(positions),
            token_types: config.type_vocab_size,
            dropout: config.hidden_dropout_prob,
        }
    }
}

impl From<&DebertaConfig> for EncoderConfig {
    fn from(config: &DebertaConfig) -> Self {
        let conv = |kernel_size| ConvConfig {
            hidden_size: config.hidden_size,
            kernel_size,
            groups: config.conv_groups,
            activation: config.conv_act,
            dropout: config.hidden_dropout_prob,
        };
        Self {
            layers: config.num_hidden_layers,
            layer: EncoderLayerConfig {
                attention: config.into(),
                intermediate_size: config.intermediate_size,
                activation: config.hidden_act,
                dropout: config.hidden_dropout_prob,
                switch: config.switch.clone(),
            },
            positions: config.relative_attention.then(|| RelativePositions::new(config)),
            normalise_positions: config.norm_relative_embeddings(),
            conv: config.conv_kernel_size().map(conv),
        }
    }
}

impl From<&DebertaConfig> for AttentionConfig {
    fn from(config: &DebertaConfig) -> Self {
        Self {
            hidden_size: config.hidden_size,
            heads: config.num_attention_heads,
            terms: config.pos_att_type,
            relative: config.relative_attention,
            share_projections: config.share_projections(),
            key_bias: config.key_bias(),
            talking_heads: config.talking_heads(),
            dropout: config.attention_probs_dropout_prob,
            position_dropout: config.hidden_dropout_prob,
        }
    }
}
