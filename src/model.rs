//! The backbone: embeddings and encoder (`DebertaV2Model` in the reference).

use burn::{
    Tensor,
    module::Module,
    tensor::{Bool, Device, Int},
};

use crate::{
    config::DebertaConfig,
    embeddings::DebertaEmbeddings,
    encoder::{DebertaEncoder, EncoderContext, LayerRecord},
    init::Init,
};

/// A batch on the device.
#[derive(Clone, Debug)]
pub struct ModelInput {
    /// Token ids, [batch, length].
    pub input_ids: Tensor<2, Int>,
    /// Tokens are true, padding is false, [batch, length]; none where nothing is padded.
    pub attention_mask: Option<Tensor<2, Bool>>,
    /// Which text of a pair a token belongs to, [batch, length]; all 0 where absent.
    pub token_type_ids: Option<Tensor<2, Int>>,
    /// Whether to return the states of every layer.
    pub output_hidden_states: bool,
    /// Whether to return the attention maps of every layer.
    pub output_attentions: bool,
}

impl ModelInput {
    /// Token ids alone, [batch, length], nothing padded.
    pub fn new(input_ids: Tensor<2, Int>) -> Self {
        Self {
            input_ids,
            attention_mask: None,
            token_type_ids: None,
            output_hidden_states: false,
            output_attentions: false,
        }
    }

    /// Marks tokens true and padding false, [batch, length].
    pub fn attention_mask(mut self, mask: Tensor<2, Bool>) -> Self {
        self.attention_mask = Some(mask);
        self
    }

    /// Says which text of a pair a token belongs to, [batch, length].
    pub fn token_type_ids(mut self, types: Tensor<2, Int>) -> Self {
        self.token_type_ids = Some(types);
        self
    }

    /// Returns the states of every layer too.
    pub fn with_hidden_states(mut self) -> Self {
        self.output_hidden_states = true;
        self
    }

    /// Returns the attention maps of every layer too.
    pub fn with_attentions(mut self) -> Self {
        self.output_attentions = true;
        self
    }

    /// An empty record of what this input asks for.
    pub(crate) fn record(&self) -> LayerRecord {
        LayerRecord::new(self.output_hidden_states, self.output_attentions)
    }
}

/// What a backbone returns.
#[derive(Clone, Debug)]
pub struct ModelOutput {
    /// The last layer's states, [batch, length, hidden].
    pub last_hidden_state: Tensor<3>,
    /// The embeddings' output and each layer's, if asked for.
    pub hidden_states: Option<Vec<Tensor<3>>>,
    /// Each layer's attention probabilities, [batch, heads, query, key], if asked for.
    pub attentions: Option<Vec<Tensor<4>>>,
}

impl ModelOutput {
    pub(crate) fn new(last_hidden_state: Tensor<3>, record: LayerRecord) -> Self {
        Self { last_hidden_state, hidden_states: record.hidden_states, attentions: record.attentions }
    }
}

/// DeBERTa without a head.
#[derive(Module, Debug)]
pub struct DebertaModel {
    embeddings: DebertaEmbeddings,
    encoder: DebertaEncoder,
}

impl DebertaConfig {
    /// A model with fresh parameters, drawn when first used.
    pub fn init(&self, device: &Device) -> DebertaModel {
        let init = self.layers(device);
        DebertaModel { embeddings: DebertaEmbeddings::new(self, &init), encoder: DebertaEncoder::new(self, &init) }
    }

    /// The maker of this model's layers.
    pub(crate) fn layers<'a>(&self, device: &'a Device) -> Init<'a> {
        Init { device, std: self.initializer_range, epsilon: self.layer_norm_eps }
    }
}

impl DebertaModel {
    /// Embeds and encodes.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden] a layer
    ///
    /// # Panics
    /// On ids outside the vocabulary, and with `position_biased_input` on lengths above `max_position_embeddings`.
    /// [`Batch::to_input`](crate::batch::Batch::to_input) checks both.
    pub fn forward(&self, input: ModelInput) -> ModelOutput {
        let mut record = input.record();
        let (last_hidden_state, _) = self.forward_layers(input, self.encoder.layers().len(), &mut record);
        ModelOutput::new(last_hidden_state, record)
    }

    /// Embeds and runs the first `count` layers; also returns what further layers would need.
    pub(crate) fn forward_layers(
        &self,
        input: ModelInput,
        count: usize,
        record: &mut LayerRecord,
    ) -> (Tensor<3>, EncoderContext) {
        let [_, length] = input.input_ids.dims();
        let context = self.encoder.context(length, input.attention_mask.clone(), &input.input_ids.device());
        let embeddings = self.embeddings.forward(input.input_ids, input.token_type_ids, input.attention_mask);
        (self.encoder.forward(embeddings, 0..count, &context, record), context)
    }

    /// The embeddings' part.
    pub fn embeddings(&self) -> &DebertaEmbeddings {
        &self.embeddings
    }

    /// The encoder's part.
    pub fn encoder(&self) -> &DebertaEncoder {
        &self.encoder
    }
}
