//! RoBERTa, the baseline: absolute positions at the input, plain attention (`RobertaModel` in the reference).

use burn::{
    Tensor,
    module::Module,
    nn::{Embedding, LayerNorm},
    tensor::{Device, Int},
};

use crate::{
    config::{Activation, RobertaConfig},
    model::{
        ModelOutput,
        context::EncoderContext,
        dropout::Dropout,
        embeddings::EmbeddingSource,
        encoder::token_layout,
        init::Init,
        input::ModelInput,
        layer::{EncoderLayer, EncoderLayerConfig},
        linear::Linear,
        pooler::Pooler,
        token_layout::TokenLayout,
    },
};

/// Word + position + token type -> LayerNorm -> dropout.
#[derive(Module, Debug)]
pub struct RobertaEmbeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    padding: usize,
}

impl RobertaEmbeddings {
    fn new(config: &RobertaConfig, init: &Init<'_>) -> Self {
        Self {
            word_embeddings: init.embedding(config.vocab_size, config.hidden_size),
            position_embeddings: init.embedding(config.max_position_embeddings, config.hidden_size),
            token_type_embeddings: init.embedding(config.type_vocab_size, config.hidden_size),
            layer_norm: init.layer_norm(config.hidden_size),
            dropout: Dropout::new(config.hidden_dropout_prob),
            padding: config.pad_token_id,
        }
    }

    /// # Shapes
    /// - input_ids, token_type_ids: [batch, length]; token types default to 0
    /// - output: [batch, length, hidden] as the layout has them
    pub(crate) fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        token_type_ids: Option<Tensor<2, Int>>,
        source: &EmbeddingSource,
        layout: &TokenLayout,
    ) -> Tensor<3> {
        let states = source.resolve(|| {
            let types = token_type_ids.unwrap_or_else(|| input_ids.zeros_like());
            let positions = self.positions(input_ids.clone());
            self.word_embeddings.forward(layout.arrange_ids(input_ids))
                + self.token_type_embeddings.forward(layout.arrange_ids(types))
                + self.position_embeddings.forward(layout.arrange_ids(positions))
        });
        self.dropout.forward(self.layer_norm.forward(states))
    }

    /// Tokens count from padding + 1, padding stays at its own id's row.
    fn positions(&self, input_ids: Tensor<2, Int>) -> Tensor<2, Int> {
        let tokens = input_ids.not_equal_elem(self.padding as i64).int();
        tokens.clone().cumsum(1) * tokens + self.padding as i64
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
struct RobertaEncoder {
    layer: Vec<EncoderLayer>,
}

/// RoBERTa without a task's head.
#[derive(Module, Debug)]
pub struct RobertaModel {
    embeddings: RobertaEmbeddings,
    encoder: RobertaEncoder,
    pooler: Option<Pooler>,
}

impl RobertaConfig {
    /// A model with fresh parameters, drawn when first used.
    pub fn init(&self, device: &Device) -> RobertaModel {
        let init = self.layers(device);
        let layer = EncoderLayerConfig::from(self);
        RobertaModel {
            embeddings: RobertaEmbeddings::new(self, &init),
            encoder: RobertaEncoder { layer: (0..self.num_hidden_layers).map(|_| layer.init(&init)).collect() },
            pooler: None,
        }
    }

    /// The same with the pooler that published bare checkpoints carry (dense -> tanh on the first token).
    pub fn init_with_pooler(&self, device: &Device) -> RobertaModel {
        let pooler = Pooler::new(&self.layers(device), self.hidden_size, 0.0, Activation::Tanh);
        RobertaModel { pooler: Some(pooler), ..self.init(device) }
    }

    /// The maker of this model's layers.
    pub(crate) fn layers<'a>(&self, device: &'a Device) -> Init<'a> {
        Init { device, std: self.initializer_range, epsilon: self.layer_norm_eps }
    }
}

impl RobertaModel {
    /// Embeds and encodes.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden] a layer
    ///
    /// # Panics
    /// On ids outside the vocabulary and on lengths above [`RobertaConfig::max_length`].
    /// [`Batch::to_input`](crate::batch::Batch::to_input) checks both.
    pub fn forward(&self, input: ModelInput) -> ModelOutput {
        let mut record = input.record();
        let context = EncoderContext { layout: token_layout(&self.encoder.layer, &input), relative: None };
        let mut states =
            self.embeddings.forward(input.input_ids, input.token_type_ids, &input.embedding, &context.layout);
        record.keep_states(&states, &context.layout);
        for (number, layer) in self.encoder.layer.iter().enumerate() {
            let (output, weights) = layer.forward(states, number, &context, record.wants_weights());
            states = output;
            record.keep_states(&states, &context.layout);
            record.keep_weights(weights);
        }
        ModelOutput::new(context.layout.restore(states), record)
    }

    /// The linear maps that every token passes.
    pub(crate) fn linears(&mut self) -> Vec<&mut Linear> {
        self.encoder.layer.iter_mut().flat_map(EncoderLayer::linears).collect()
    }

    /// The pooled first token, [batch, hidden], if the model has a pooler.
    pub fn pool(&self, last_hidden_state: Tensor<3>) -> Option<Tensor<2>> {
        self.pooler.as_ref().map(|pooler| pooler.forward(last_hidden_state))
    }

    /// The token embeddings, [vocabulary, hidden].
    pub fn token_embeddings(&self) -> Tensor<2> {
        self.embeddings.word_embeddings.weight.val()
    }
}
