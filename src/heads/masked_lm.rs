//! Words for masked positions (paper section 3.2; `MaskedLanguageModel` in the original).

use burn::{
    Tensor,
    module::{Module, Param},
    nn::LayerNorm,
    tensor::{Device, Int},
};

use super::{BackboneConfig, Head, loss};
use crate::{
    Error, Result,
    config::{Activation, DebertaConfig, RobertaConfig},
    model::{
        DebertaModel,
        attention::PreparedPositions,
        decoder::EnhancedMaskDecoder,
        inference::Prepared,
        init::Init,
        input::ModelInput,
        linear::{Linear, LinearRole},
        masked_positions::Places,
        roberta::RobertaModel,
    },
};

/// `LayerNorm( act( dense(h) ) ) E^T + bias`, with E the word table of the embeddings: it is passed in, never copied, so that
/// it stays one parameter.
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
    /// - word_table: [vocabulary, embedding]
    /// - output: logits, [batch, length, vocabulary]
    pub fn forward(&self, states: Tensor<3>, word_table: Tensor<2>) -> Tensor<3> {
        let states = self.layer_norm.forward(self.activation.forward(self.dense.forward(states)));
        states.matmul(word_table.transpose().unsqueeze()) + self.bias.val().unsqueeze()
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

    /// The states that words are predicted from: all, or those at a few places, which cost less and are the same.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden], or [1, places, hidden]
    ///
    /// # Panics
    /// As [`forward`](Self::forward), on places of a batch of another shape, and on none at all. At padding there must be none.
    pub fn states(&self, input: ModelInput, places: Option<&Places>) -> Tensor<3> {
        check(&input, places);
        let encoder = self.backbone.encoder();
        let own_layers = encoder.layers().len() - usize::from(self.decoder.is_some());
        let (states, context) = self.backbone.forward_layers(input, own_layers, &mut Default::default());
        match (&self.decoder, places) {
            (Some(decoder), Some(_)) => decoder.forward(states, places, encoder, &context),
            (Some(decoder), None) => context.layout.restore(decoder.forward(states, None, encoder, &context)),
            (None, Some(places)) => context.layout.select(states, places),
            (None, None) => context.layout.restore(states),
        }
    }

    /// # Shapes
    /// - states: [batch, positions, hidden], from [`states`](Self::states)
    /// - output: logits, [batch, positions, vocabulary]
    pub fn predict(&self, states: Tensor<3>) -> Tensor<3> {
        self.lm_head.forward(states, self.backbone.embeddings().word_table())
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

    /// The states that words are predicted from: all, or those at a few places.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden], or [1, places, hidden]
    ///
    /// # Panics
    /// On places of a batch of another shape, and on none at all.
    pub fn states(&self, input: ModelInput, places: Option<&Places>) -> Tensor<3> {
        check(&input, places);
        let states = self.backbone.forward(input).last_hidden_state;
        match places {
            Some(places) => {
                let rows = places.rows(&states.device());
                states.flatten::<2>(0, 1).select(0, rows).unsqueeze()
            }
            None => states,
        }
    }

    /// # Shapes
    /// - states: [batch, positions, hidden], from [`states`](Self::states)
    /// - output: logits, [batch, positions, vocabulary]
    pub fn predict(&self, states: Tensor<3>) -> Tensor<3> {
        self.lm_head.forward(states, self.backbone.word_table())
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

/// Places of another batch would select other states than are meant.
fn check(input: &ModelInput, places: Option<&Places>) {
    let shape = input.input_ids.dims();
    assert!(places.is_none_or(|places| places.fit(shape)), "places that are not of a batch of {shape:?}");
    assert!(places.is_none_or(|places| !places.is_empty()), "a batch without a place");
}

/// A model with a language-model head, of either family, plain or prepared for inference.
pub trait MaskedLm: Head<Output = Tensor<3>> {
    /// Predicts words at some places only: the logits of all places of a large vocabulary would be the largest tensor by far.
    ///
    /// # Shapes
    /// - output: logits, [places, vocabulary]
    ///
    /// # Panics
    /// On lengths that the model does not reach, on places of a batch of another shape, and on none at all.
    fn predict_at(&self, input: ModelInput, places: &Places) -> Tensor<2>;
}

impl MaskedLm for DebertaForMaskedLm {
    fn predict_at(&self, input: ModelInput, places: &Places) -> Tensor<2> {
        self.predict(self.states(input, Some(places))).squeeze_dim(0)
    }
}

impl MaskedLm for RobertaForMaskedLm {
    fn predict_at(&self, input: ModelInput, places: &Places) -> Tensor<2> {
        self.predict(self.states(input, Some(places))).squeeze_dim(0)
    }
}

impl<M: MaskedLm> MaskedLm for Prepared<M> {
    fn predict_at(&self, input: ModelInput, places: &Places) -> Tensor<2> {
        self.run(input, |model, input| model.predict_at(input, places))
    }
}

impl Head for DebertaForMaskedLm {
    type Output = Tensor<3>;

    fn forward(&self, input: ModelInput) -> Tensor<3> {
        DebertaForMaskedLm::forward(self, input)
    }

    fn prepare_positions(&self, length: Option<usize>) -> Option<PreparedPositions> {
        self.backbone.encoder().prepare_positions(length)
    }

    fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
        self.backbone.linears()
    }
}

impl Head for RobertaForMaskedLm {
    type Output = Tensor<3>;

    fn forward(&self, input: ModelInput) -> Tensor<3> {
        RobertaForMaskedLm::forward(self, input)
    }

    fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
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

    /// Two sequences of 10 places: one padded in front, one behind.
    fn input(device: &Device) -> ModelInput {
        let ids: Vec<i32> = (0..20).map(|token| 1 + token * 7 % 19).collect();
        let mask: Vec<bool> = (0..20).map(|token| (3..17).contains(&token)).collect();
        ModelInput::new(Tensor::from_data(TensorData::new(ids, [2, 10]), device))
            .attention_mask(Tensor::from_data(TensorData::new(mask, [2, 10]), device))
    }

    #[test]
    fn states_at_places_are_those_among_all() {
        let device = Device::flex();
        let model = model(&device);
        let places = Places::new(10, [vec![3, 5, 9], vec![0, 6]]);
        let all = model.states(input(&device), None).flatten::<2>(0, 1).select(0, places.rows(&device));
        let some = model.states(input(&device), Some(&places)).squeeze_dim::<2>(0);
        let difference = (all - some).abs().max().into_scalar::<f32>();
        // The same sums of numbers of size 1, in blocks of other sizes.
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    #[should_panic(expected = "places that are not of a batch of [2, 10]")]
    fn places_of_another_batch_are_refused() {
        let device = Device::flex();
        model(&device).states(input(&device), Some(&Places::new(12, [vec![1], vec![2]])));
    }
}
