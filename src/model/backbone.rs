//! A model without a head: embeddings and encoder. DeBERTa v1, v2, v3 and RoBERTa are one model with different parts;
//! `deberta.rs` and `roberta.rs` say which parts each family has.

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, FloatDType},
};

use crate::{
    config::ModelConfig,
    model::{
        attention::PreparedPositions,
        context::EncoderContext,
        embeddings::{Embeddings, EmbeddingsConfig},
        encoder::{Encoder, EncoderConfig, token_layout},
        inference::InferenceModel,
        init::Init,
        input::ModelInput,
        linear::{Linear, LinearRole},
        output::{LayerRecord, ModelOutput},
        precision::round,
    },
};

/// DeBERTa or RoBERTa without a head (`DebertaV2Model`, `RobertaModel` in the reference).
#[derive(Module, Debug)]
pub struct Backbone {
    embeddings: Embeddings,
    encoder: Encoder,
}

/// The parts of a backbone, whichever family it belongs to.
#[derive(Clone, Debug)]
pub(super) struct BackboneConfig {
    pub embeddings: EmbeddingsConfig,
    pub encoder: EncoderConfig,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Epsilon of LayerNorms.
    pub layer_norm_eps: f64,
}

impl BackboneConfig {
    /// A fresh backbone.
    pub fn init(&self, device: &Device) -> Backbone {
        let init = Init { device, std: self.initializer_range, epsilon: self.layer_norm_eps };
        Backbone { embeddings: self.embeddings.init(&init), encoder: self.encoder.init(&init) }
    }
}

impl Backbone {
    /// A backbone with fresh parameters, which are drawn when they are first used.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        match config {
            ModelConfig::Deberta(config) => config.init(device),
            ModelConfig::Roberta(config) => config.init(device),
        }
    }

    /// Embeds the tokens and runs all layers.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden] for each layer
    ///
    /// # Panics
    /// If an id is outside the vocabulary, or the input is longer than [`ModelConfig::max_length`].
    /// [`Batch::to_input`](crate::batch::Batch::to_input) checks both.
    pub fn forward(&self, input: ModelInput) -> ModelOutput {
        let mut record = input.record();
        let (states, context) = self.forward_layers(input, self.encoder.layers().len(), &mut record);
        ModelOutput::new(context.layout.restore(states), record)
    }

    /// Embeds the tokens and runs the first `count` layers. Also returns the context that further layers need; the states are
    /// in its layout.
    pub(crate) fn forward_layers(
        &self,
        input: ModelInput,
        count: usize,
        record: &mut LayerRecord,
    ) -> (Tensor<3>, EncoderContext) {
        let [_, length] = input.input_ids.dims();
        let layout = token_layout(self.encoder.layers(), &input);
        let context = self.encoder.context(length, layout, input.positions, input.routing, &input.input_ids.device());
        let states = self.embeddings.forward(input.input_ids, input.token_type_ids, &input.embedding, &context.layout);
        (self.encoder.forward(states, 0..count, &context, record), context)
    }

    /// The embeddings.
    pub fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// The same backbone with other embeddings.
    pub(crate) fn map_embeddings(mut self, map: impl FnOnce(Embeddings) -> Embeddings) -> Self {
        self.embeddings = map(self.embeddings);
        self
    }

    /// The linear maps that every token passes.
    pub(crate) fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
        self.encoder.linears()
    }

    /// The relative positions for inputs of up to `length` tokens, or of any length if it is none, projected for every layer, if
    /// attention is relative.
    pub(crate) fn prepare_positions(&self, length: Option<usize>) -> Option<PreparedPositions> {
        self.encoder.prepare_positions(length)
    }

    /// The type that linear maps and attention compute in; if none, that of the parameters.
    pub fn compute_type(&self) -> Option<FloatDType> {
        self.encoder.compute_type()
    }

    /// Changes the type that linear maps and attention compute in (mixed precision). Their inputs and parameters are cast to
    /// it, and gradients back; states, LayerNorms, the softmax, losses, and the gradients of parameters stay in f32.
    ///
    /// On a CPU bf16 is the type of what attention, the linear maps that every token passes and the scores of all words multiply,
    /// forward and backward. All else is in f32, projections of position tables by weights of their own, talking heads and heads
    /// included; the [`compute_type`](Self::compute_type) then is none.
    pub fn set_compute_type(&mut self, dtype: Option<FloatDType>) {
        self.encoder.set_compute_type(dtype);
    }

    /// Whether a CPU rounds what it multiplies to bf16.
    pub(crate) fn rounds(&self) -> bool {
        self.encoder.rounds()
    }

    /// States in the type to compute in, for the linear map of a head.
    pub(crate) fn round<const D: usize>(&self, states: Tensor<D>) -> Tensor<D> {
        round(states, self.compute_type())
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

impl InferenceModel for Backbone {
    type Output = ModelOutput;

    fn forward(&self, input: ModelInput) -> ModelOutput {
        self.forward(input)
    }

    fn backbone(&self) -> &Backbone {
        self
    }

    fn backbone_mut(&mut self) -> &mut Backbone {
        self
    }
}
