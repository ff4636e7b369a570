//! From token ids to vectors (`DebertaV2Embeddings` in the reference).

use std::sync::{Arc, OnceLock};

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
    /// - source, where it is given: [batch, length, hidden] as the layout has it
    /// - output: [batch, length, hidden]
    ///
    /// # Panics
    /// With absolute positions at the input, a length above their number.
    pub(crate) fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        token_type_ids: Option<Tensor<2, Int>>,
        source: &EmbeddingSource,
        layout: &TokenLayout,
    ) -> Tensor<3> {
        let states = source.resolve(|| self.tables(input_ids, token_type_ids, layout));
        self.dropout.forward(layout.zero_padding(self.layer_norm.forward(states)))
    }

    /// The sum of the tables' rows, in the model's width.
    fn tables(
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
        match &self.embed_proj {
            Some(projection) => projection.forward(states),
            None => states,
        }
    }
}

/// What stands in front of the embeddings' LayerNorm.
#[derive(Clone, Debug, Default)]
#[allow(clippy::large_enum_variant, reason = "there is one in a forward pass")]
pub(crate) enum EmbeddingSource {
    /// The sum of the tables' rows.
    #[default]
    Tables,
    /// That sum, normalised without parameters, which is left in the cell for [`sift`](crate::training::sift).
    Normalised(Arc<OnceLock<Tensor<3>>>),
    /// These states instead.
    Given(Tensor<3>),
}

impl EmbeddingSource {
    /// The epsilon of the norm without parameters (`PerturbLayer` in the reference).
    const EPSILON: f64 = 1e-7;

    /// The states, [batch, length, hidden] as the layout has them.
    pub fn resolve(&self, tables: impl FnOnce() -> Tensor<3>) -> Tensor<3> {
        match self {
            Self::Tables => tables(),
            Self::Normalised(cell) => {
                let states = tables();
                let centred = states.clone() - states.mean_dim(2);
                let variance = centred.clone().square().mean_dim(2);
                let states = centred / (variance + Self::EPSILON).sqrt();
                cell.get_or_init(|| states).clone()
            }
            Self::Given(states) => states.clone(),
        }
    }
}
