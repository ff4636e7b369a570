//! Predicting masked tokens (paper section 3.2; `MaskedLanguageModel` in the original).

use burn::{
    Tensor,
    module::{Module, Param},
    nn::LayerNorm,
    tensor::{Device, Int},
};

use super::{HeadSettings, loss};
use crate::{
    Error, Result,
    config::{Activation, DebertaConfig, ModelConfig},
    kernels::scores_of_rows,
    model::{
        Backbone, decoder::EnhancedMaskDecoder, inference::Prepared, input::ModelInput, linear::Linear,
        masked_positions::MaskedPositions,
    },
};

/// `LayerNorm( act( dense(h) ) ) E^T + bias`, both products in the type of h, with E the token embeddings: they are passed in, never
/// copied, so that they stay one parameter.
#[derive(Module, Debug)]
pub struct LmHead {
    dense: Linear,
    layer_norm: LayerNorm,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl LmHead {
    fn new(settings: &HeadSettings, device: &Device) -> Self {
        let init = settings.init(device);
        Self {
            dense: init.linear(settings.hidden_size, settings.embedding_size),
            layer_norm: init.layer_norm(settings.embedding_size),
            bias: init.zeros(settings.vocab_size),
            activation: settings.lm_activation,
        }
    }

    /// # Shapes
    /// - states: [batch, length, hidden]
    /// - token_embeddings: [vocabulary, embedding]; a CPU may round what it multiplies with them to bf16
    /// - output: logits, [batch, length, vocabulary]
    fn forward(&self, states: Tensor<3>, token_embeddings: Tensor<2>, rounds: bool) -> Tensor<3> {
        let (dtype, norm) = (states.dtype(), &self.layer_norm);
        let states = self.activation.forward(self.dense.forward(states)).cast(norm.gamma.val().dtype());
        let states = norm.forward(states).cast(dtype);
        scores_of_rows(states, token_embeddings, self.bias.val(), rounds)
    }
}

/// Which language-model head a checkpoint has, and which states it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskedLmLayout {
    /// The original's `lm_predictions.*`, on the states of the enhanced mask decoder. The only right one for the published
    /// DeBERTa checkpoints. Models with absolute positions at the input (`position_biased_input`, RoBERTa) have no such decoder:
    /// their head reads the last layer.
    EnhancedMaskDecoder,
    /// The head on the last layer's states: transformers with `legacy` false, and RoBERTa's `lm_head.*`.
    LastLayer,
    /// transformers' own `cls.predictions.*`, on the last layer's states: `legacy` true.
    Legacy,
}

/// A language-model head: predicts the token at each position.
#[derive(Module, Debug)]
pub struct MaskedLm {
    pub(super) backbone: Backbone,
    lm_head: LmHead,
    decoder: Option<EnhancedMaskDecoder>,
}

impl MaskedLm {
    /// A fresh head on a fresh backbone.
    ///
    /// # Errors
    /// The enhanced mask decoder needs at least two layers, and token embeddings as wide as the hidden states.
    pub fn new(config: &ModelConfig, layout: MaskedLmLayout, device: &Device) -> Result<Self> {
        let settings = HeadSettings::from(config);
        let decoder = match config {
            ModelConfig::Deberta(config)
                if layout == MaskedLmLayout::EnhancedMaskDecoder && !config.position_biased_input =>
            {
                check_decoder(config)?;
                let (rows, width) = (config.max_position_embeddings, config.hidden_size);
                Some(EnhancedMaskDecoder::new(&settings.init(device), rows, width))
            }
            _ => None,
        };
        Ok(Self { backbone: Backbone::new(config, device), lm_head: LmHead::new(&settings, device), decoder })
    }

    /// The model below the head.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// # Shapes
    /// - output: logits, [batch, length, vocabulary]
    ///
    /// # Panics
    /// With the enhanced mask decoder, if the input is longer than [`max_length`](Self::max_length).
    pub fn forward(&self, input: ModelInput) -> Tensor<3> {
        self.predict(self.states(input, None))
    }

    /// The states that tokens are predicted from: all of them, or only those at the masked positions, which are the same and
    /// cost less.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden], or [1, masked, hidden]
    ///
    /// # Panics
    /// As [`forward`](Self::forward); also if no position is masked, or the positions belong to a batch of another shape. A masked
    /// position must not be padding.
    pub fn states(&self, input: ModelInput, masked: Option<&MaskedPositions>) -> Tensor<3> {
        check_positions(&input, masked);
        let encoder = self.backbone.encoder();
        let own_layers = encoder.layers().len() - usize::from(self.decoder.is_some());
        let (states, context) = self.backbone.forward_layers(input, own_layers, &mut Default::default());
        match (&self.decoder, masked) {
            (Some(decoder), Some(_)) => decoder.forward(states, masked, encoder, &context),
            (Some(decoder), None) => context.layout.restore(decoder.forward(states, None, encoder, &context)),
            (None, Some(masked)) => context.layout.select(states, masked),
            (None, None) => context.layout.restore(states),
        }
    }

    /// # Shapes
    /// - states: [batch, positions, hidden], from [`states`](Self::states)
    /// - output: logits, [batch, positions, vocabulary]
    pub fn predict(&self, states: Tensor<3>) -> Tensor<3> {
        let (backbone, table) = (&self.backbone, self.backbone.embeddings().token_embeddings());
        self.lm_head.forward(backbone.round(states), table, backbone.rounds())
    }

    /// Predicts tokens at the masked positions only: with a large vocabulary, the logits of all positions would be by far the
    /// largest tensor.
    ///
    /// # Shapes
    /// - output: logits, [masked, vocabulary]
    ///
    /// # Panics
    /// As [`states`](Self::states).
    pub fn predict_at(&self, input: ModelInput, masked: &MaskedPositions) -> Tensor<2> {
        self.predict(self.states(input, Some(masked))).squeeze_dim(0)
    }

    /// The longest input in tokens, if the decoder sets a limit.
    pub fn max_length(&self) -> Option<usize> {
        self.decoder.as_ref().map(EnhancedMaskDecoder::max_length)
    }

    /// Mean cross entropy over the positions whose label is not negative.
    ///
    /// # Shapes
    /// - logits: [batch, length, vocabulary]
    /// - labels: [batch, length]
    /// - output: \[1\]
    ///
    /// # Panics
    /// On CPUs, if a label is outside the vocabulary.
    pub fn loss(&self, logits: Tensor<3>, labels: Tensor<2, Int>) -> Tensor<1> {
        loss::cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))
    }
}

impl Prepared<MaskedLm> {
    /// [`MaskedLm::max_length`].
    pub fn max_length(&self) -> Option<usize> {
        self.model().max_length()
    }

    /// [`MaskedLm::predict_at`], with what was prepared.
    pub fn predict_at(&self, input: ModelInput, masked: &MaskedPositions) -> Tensor<2> {
        self.run(input, |model, input| model.predict_at(input, masked))
    }
}

/// What the enhanced mask decoder needs of a configuration.
fn check_decoder(config: &DebertaConfig) -> Result<()> {
    let (layers, hidden, embedding) = (config.num_hidden_layers, config.hidden_size, config.embedding_size());
    if layers < 2 {
        return Err(Error::config("num_hidden_layers", layers, "at least 2 for the enhanced mask decoder"));
    }
    if embedding != hidden {
        let expected = format!("hidden_size, {hidden}, for the enhanced mask decoder");
        return Err(Error::config("embedding_size", embedding, expected));
    }
    Ok(())
}

/// Masked positions of another batch would select the wrong states.
fn check_positions(input: &ModelInput, masked: Option<&MaskedPositions>) {
    let shape = input.input_ids.dims();
    assert!(masked.is_none_or(|masked| masked.fit(shape)), "masked positions of another batch than {shape:?}");
    assert!(masked.is_none_or(|masked| !masked.is_empty()), "a batch without a masked position");
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::config::{DebertaVersion, PositionTerms, SwitchConfig};

    fn model(switch: Option<SwitchConfig>, device: &Device) -> MaskedLm {
        let config = DebertaConfig {
            vocab_size: 20,
            hidden_size: 8,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 16,
            relative_attention: true,
            position_buckets: 4,
            pos_att_type: PositionTerms { c2p: true, p2c: true },
            position_biased_input: false,
            type_vocab_size: 0,
            switch,
            // Large enough for positions to matter.
            initializer_range: 0.5,
            ..DebertaConfig::new(DebertaVersion::V2)
        };
        device.seed(3);
        MaskedLm::new(&config.into(), MaskedLmLayout::EnhancedMaskDecoder, device).unwrap()
    }

    /// Two sequences of 10 positions: one padded in front, one behind.
    fn input(device: &Device) -> ModelInput {
        let ids: Vec<i32> = (0..20).map(|token| 1 + token * 7 % 19).collect();
        let mask: Vec<bool> = (0..20).map(|token| (3..17).contains(&token)).collect();
        ModelInput::new(Tensor::from_data(TensorData::new(ids, [2, 10]), device))
            .attention_mask(Tensor::from_data(TensorData::new(mask, [2, 10]), device))
    }

    #[test]
    fn states_at_masked_positions_are_those_among_all() {
        let device = Device::flex();
        // The last layer, which the decoder runs again on the masked positions, is a Switch layer too.
        let switch = SwitchConfig { sparse_step: 1, ..SwitchConfig::default() };
        for model in [None, Some(switch)].map(|switch| model(switch, &device)) {
            let masked = MaskedPositions::new(10, [vec![3, 5, 9], vec![0, 6]]);
            let all = model.states(input(&device), None).flatten::<2>(0, 1).select(0, masked.rows(&device));
            let some = model.states(input(&device), Some(&masked)).squeeze_dim::<2>(0);
            let difference = (all - some).abs().max().into_scalar::<f32>();
            // The same sums of numbers of size 1, in blocks of other sizes.
            assert!(difference < 1e-5, "{difference}");
        }
    }

    #[test]
    #[should_panic(expected = "masked positions of another batch than [2, 10]")]
    fn masked_positions_of_another_batch_are_refused() {
        let device = Device::flex();
        model(None, &device).states(input(&device), Some(&MaskedPositions::new(12, [vec![1], vec![2]])));
    }
}
