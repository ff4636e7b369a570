//! The backbone: embeddings and encoder (`DebertaV2Model` in the reference).

use burn::{Tensor, module::Module, tensor::Device};

use crate::{
    config::DebertaConfig,
    model::{
        context::EncoderContext,
        embeddings::DebertaEmbeddings,
        encoder::{DebertaEncoder, token_layout},
        init::Init,
        input::ModelInput,
        linear::{Linear, LinearRole},
        output::{LayerRecord, ModelOutput},
    },
};

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
        let (states, context) = self.forward_layers(input, self.encoder.layers().len(), &mut record);
        ModelOutput::new(context.layout.restore(states), record)
    }

    /// Embeds and runs the first `count` layers; also returns what further layers would need, and how the states lie.
    pub(crate) fn forward_layers(
        &self,
        input: ModelInput,
        count: usize,
        record: &mut LayerRecord,
    ) -> (Tensor<3>, EncoderContext) {
        let [_, length] = input.input_ids.dims();
        let layout = token_layout(self.encoder.layers(), &input);
        let context = self.encoder.context(length, layout, input.positions, &input.input_ids.device());
        let arrange = |ids| context.layout.arrange_ids(ids);
        let (ids, types) = (arrange(input.input_ids), input.token_type_ids.map(arrange));
        let embeddings = self.embeddings.forward(ids, types, &input.embedding, &context.layout);
        (self.encoder.forward(embeddings, 0..count, &context, record), context)
    }

    /// The embeddings' part.
    pub fn embeddings(&self) -> &DebertaEmbeddings {
        &self.embeddings
    }

    /// The same with other embeddings.
    pub(crate) fn map_embeddings(mut self, map: impl FnOnce(DebertaEmbeddings) -> DebertaEmbeddings) -> Self {
        self.embeddings = map(self.embeddings);
        self
    }

    /// The linear maps that every token passes.
    pub(crate) fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
        self.encoder.linears()
    }

    /// The encoder's part.
    pub fn encoder(&self) -> &DebertaEncoder {
        &self.encoder
    }
}
