//! Words for masked positions (paper section 3.2; `MaskedLanguageModel` in the original).

use burn::{
    Tensor,
    module::{Module, Param},
    nn::LayerNorm,
    tensor::{Device, Int},
};

use super::{BackboneConfig, InferenceModel, loss};
use crate::{
    Error, Result,
    config::{Activation, DebertaConfig, RobertaConfig},
    model::{
        DebertaModel, attention::PreparedPositions, decoder::EnhancedMaskDecoder, inference::Prepared, init::Init,
        input::ModelInput, linear::Linear, masked_positions::MaskedPositions, roberta::RobertaModel,
    },
};

/// `LayerNorm( act( dense(h) ) ) E^T + bias`, with E the token embeddings: they are passed in, never copied, so that they stay
/// one parameter.
#[derive(Module, Debug)]
pub struct LmHead {
    dense: Linear,
    layer_norm: LayerNorm,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl LmHead {
    fn new(init: &Init<'_>, hidden: usize, embedding: usize, vocabulary: usize, activation: Activation) -> Self {
        Self {
            dense: init.linear(hidden, embedding),
            layer_norm: init.layer_norm(embedding),
            bias: init.zeros(vocabulary),
            activation,
        }
    }

    /// # Shapes
    /// - states: [batch, length, hidden]
    /// - token_embeddings: [vocabulary, embedding]
    /// - output: logits, [batch, length, vocabulary]
    pub fn forward(&self, states: Tensor<3>, token_embeddings: Tensor<2>) -> Tensor<3> {
        let states = self.layer_norm.forward(self.activation.forward(self.dense.forward(states)));
        states.matmul(token_embeddings.transpose().unsqueeze()) + self.bias.val().unsqueeze()
    }
}

/// Which masked-language-model head a DeBERTa checkpoint has, and what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskedLmLayout {
    /// The original's `lm_predictions.*`, on the enhanced mask decoder's states (on the last layer's with
    /// `position_biased_input`). The only right one for the published checkpoints.
    EnhancedMaskDecoder,
    /// The same weights on the last layer's states: transformers with `legacy` false.
    LastLayer,
    /// transformers' own `cls.predictions.*`, on the last layer's states: `legacy` true.
    Legacy,
}

/// DeBERTa with a language-model head.
#[derive(Module, Debug)]
pub struct DebertaForMaskedLm {
    backbone: DebertaModel,
    lm_head: LmHead,
    decoder: Option<EnhancedMaskDecoder>,
}

impl DebertaForMaskedLm {
    /// A fresh head on a fresh backbone.
    ///
    /// # Errors
    /// The enhanced mask decoder needs at least two layers, and word vectors as wide as the hidden states.
    pub fn new(config: &DebertaConfig, layout: MaskedLmLayout, device: &Device) -> Result<Self> {
        let (init, hidden) = (config.head_settings().init(device), config.hidden_size);
        let enhanced = layout == MaskedLmLayout::EnhancedMaskDecoder && !config.position_biased_input;
        if enhanced && config.num_hidden_layers < 2 {
            return Err(Error::config(
                "num_hidden_layers",
                config.num_hidden_layers,
                "at least 2 for the enhanced mask decoder",
            ));
        }
        if enhanced && config.embedding_size() != hidden {
            let expected = format!("hidden_size, {hidden}, for the enhanced mask decoder");
            return Err(Error::config("embedding_size", config.embedding_size(), expected));
        }
        Ok(Self {
            backbone: config.backbone(device),
            lm_head: LmHead::new(&init, hidden, config.embedding_size(), config.vocab_size, config.hidden_act),
            decoder: enhanced.then(|| EnhancedMaskDecoder::new(&init, config.max_position_embeddings, hidden)),
        })
    }

    /// The encoder.
    pub fn backbone(&self) -> &DebertaModel {
        &self.backbone
    }

    /// # Shapes
    /// - output: logits, [batch, length, vocabulary]
    ///
    /// # Panics
    /// With the enhanced mask decoder, on lengths above [`max_length`](Self::max_length).
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
        check(&input, masked);
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
        self.lm_head.forward(states, self.backbone.embeddings().token_embeddings())
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
    pub fn loss(&self, logits: Tensor<3>, labels: Tensor<2, Int>) -> Tensor<1> {
        loss::cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))
    }
}

/// RoBERTa with a language-model head on its last layer.
#[derive(Module, Debug)]
pub struct RobertaForMaskedLm {
    backbone: RobertaModel,
    lm_head: LmHead,
}

impl RobertaForMaskedLm {
    /// A fresh head on a fresh backbone.
    pub fn new(config: &RobertaConfig, device: &Device) -> Self {
        let (init, hidden) = (config.head_settings().init(device), config.hidden_size);
        Self {
            backbone: config.backbone(device),
            lm_head: LmHead::new(&init, hidden, hidden, config.vocab_size, Activation::Gelu),
        }
    }

    /// # Shapes
    /// - output: logits, [batch, length, vocabulary]
    pub fn forward(&self, input: ModelInput) -> Tensor<3> {
        self.predict(self.states(input, None))
    }

    /// The states that tokens are predicted from: all of them, or only those at the masked positions.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden], or [1, masked, hidden]
    ///
    /// # Panics
    /// If no position is masked, or the positions belong to a batch of another shape.
    pub fn states(&self, input: ModelInput, masked: Option<&MaskedPositions>) -> Tensor<3> {
        check(&input, masked);
        let states = self.backbone.forward(input).last_hidden_state;
        match masked {
            Some(masked) => {
                let rows = masked.rows(&states.device());
                states.flatten::<2>(0, 1).select(0, rows).unsqueeze()
            }
            None => states,
        }
    }

    /// # Shapes
    /// - states: [batch, positions, hidden], from [`states`](Self::states)
    /// - output: logits, [batch, positions, vocabulary]
    pub fn predict(&self, states: Tensor<3>) -> Tensor<3> {
        self.lm_head.forward(states, self.backbone.token_embeddings())
    }

    /// Mean cross entropy over the positions whose label is not negative.
    ///
    /// # Shapes
    /// - logits: [batch, length, vocabulary]
    /// - labels: [batch, length]
    /// - output: \[1\]
    pub fn loss(&self, logits: Tensor<3>, labels: Tensor<2, Int>) -> Tensor<1> {
        loss::cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))
    }
}

/// Masked positions of another batch would select the wrong states.
fn check(input: &ModelInput, masked: Option<&MaskedPositions>) {
    let shape = input.input_ids.dims();
    assert!(masked.is_none_or(|masked| masked.fit(shape)), "masked positions of another batch than {shape:?}");
    assert!(masked.is_none_or(|masked| !masked.is_empty()), "a batch without a masked position");
}

/// A model with a language-model head, of either family, plain or prepared for inference.
pub trait MaskedLm: InferenceModel<Output = Tensor<3>> {
    /// Predicts tokens at the masked positions only: with a large vocabulary, the logits of all positions would be by far the
    /// largest tensor.
    ///
    /// # Shapes
    /// - output: logits, [masked, vocabulary]
    ///
    /// # Panics
    /// If the input is longer than the model allows, no position is masked, or the positions belong to a batch of another shape.
    fn predict_at(&self, input: ModelInput, masked: &MaskedPositions) -> Tensor<2>;
}

impl MaskedLm for DebertaForMaskedLm {
    fn predict_at(&self, input: ModelInput, masked: &MaskedPositions) -> Tensor<2> {
        self.predict(self.states(input, Some(masked))).squeeze_dim(0)
    }
}

impl MaskedLm for RobertaForMaskedLm {
    fn predict_at(&self, input: ModelInput, masked: &MaskedPositions) -> Tensor<2> {
        self.predict(self.states(input, Some(masked))).squeeze_dim(0)
    }
}

impl<M: MaskedLm> MaskedLm for Prepared<M> {
    fn predict_at(&self, input: ModelInput, masked: &MaskedPositions) -> Tensor<2> {
        self.run(input, |model, input| model.predict_at(input, masked))
    }
}

impl InferenceModel for DebertaForMaskedLm {
    type Output = Tensor<3>;

    fn forward(&self, input: ModelInput) -> Tensor<3> {
        DebertaForMaskedLm::forward(self, input)
    }

    fn prepare_positions(&self, length: usize) -> Option<PreparedPositions> {
        self.backbone.encoder().prepare_positions(length)
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        self.backbone.linears()
    }
}

impl InferenceModel for RobertaForMaskedLm {
    type Output = Tensor<3>;

    fn forward(&self, input: ModelInput) -> Tensor<3> {
        RobertaForMaskedLm::forward(self, input)
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        self.backbone.linears()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::config::{DebertaVersion, PositionTerms};

    fn model(device: &Device) -> DebertaForMaskedLm {
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
            // Large enough for positions to matter.
            initializer_range: 0.5,
            ..DebertaConfig::new(DebertaVersion::V2)
        };
        device.seed(3);
        DebertaForMaskedLm::new(&config, MaskedLmLayout::EnhancedMaskDecoder, device).unwrap()
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
        let model = model(&device);
        let masked = MaskedPositions::new(10, [vec![3, 5, 9], vec![0, 6]]);
        let all = model.states(input(&device), None).flatten::<2>(0, 1).select(0, masked.rows(&device));
        let some = model.states(input(&device), Some(&masked)).squeeze_dim::<2>(0);
        let difference = (all - some).abs().max().into_scalar::<f32>();
        // The same sums of numbers of size 1, in blocks of other sizes.
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    #[should_panic(expected = "masked positions of another batch than [2, 10]")]
    fn masked_positions_of_another_batch_are_refused() {
        let device = Device::flex();
        model(&device).states(input(&device), Some(&MaskedPositions::new(12, [vec![1], vec![2]])));
    }
}
