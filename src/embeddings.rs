//! From token ids to vectors (`DebertaV2Embeddings` in the reference).

use burn::{
    Tensor,
    module::Module,
    nn::{Dropout, DropoutConfig, Embedding, LayerNorm},
    tensor::Int,
};

use crate::{config::DebertaConfig, init::Init, linear::Linear, packing::TokenLayout};

/// Word (+ absolute position, where the input is biased by it) (+ token type) -> projection where the tables are narrower than
/// the model -> LayerNorm -> zero at padding -> dropout.
#[derive(Module, Debug)]
pub struct DebertaEmbeddings {
    word_embeddings: Embedding,
    position_embeddings: Option<Embedding>,
    token_type_embeddings: Option<Embedding>,
    embed_proj: Option<Linear>,
    layer_norm: LayerNorm,
    dropout: Dropout,
}

impl DebertaEmbeddings {
    pub(crate) fn new(config: &DebertaConfig, init: &Init<'_>) -> Self {
        let width = config.embedding_size();
        Self {
            word_embeddings: init.embedding(config.vocab_size, width),
            position_embeddings: config
                .position_biased_input
                .then(|| init.embedding(config.max_position_embeddings, width)),
            token_type_embeddings: (config.type_vocab_size > 0).then(|| init.embedding(config.type_vocab_size, width)),
            embed_proj: (width != config.hidden_size).then(|| init.linear_without_bias(width, config.hidden_size)),
            layer_norm: init.layer_norm(config.hidden_size),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
        }
    }

    /// The word table, [vocabulary, embedding], which the language-model head uses again.
    pub fn word_table(&self) -> Tensor<2> {
        self.word_embeddings.weight.val()
    }

    /// # Shapes
    /// - input_ids, token_type_ids: [batch, length] as the layout has them; token types default to 0
    /// - output: [batch, length, hidden]
    ///
    /// # Panics
    /// With absolute positions at the input, a length above their number.
    pub fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        token_type_ids: Option<Tensor<2, Int>>,
        layout: &TokenLayout,
    ) -> Tensor<3> {
        let mut states = self.word_embeddings.forward(input_ids.clone());
        if let Some(table) = &self.position_embeddings {
            let positions = layout.absolute_positions(table.weight.val(), &states);
            states = states + positions;
        }
        if let Some(table) = &self.token_type_embeddings {
            states = states + table.forward(token_type_ids.unwrap_or_else(|| input_ids.zeros_like()));
        }
        if let Some(projection) = &self.embed_proj {
            states = projection.forward(states);
        }
        self.dropout.forward(layout.zero_padding(self.layer_norm.forward(states)))
    }
}
