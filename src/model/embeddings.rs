//! From token ids to vectors (`DebertaV2Embeddings` in the reference).

use std::sync::{Arc, OnceLock};

use burn::{
    Tensor,
    module::{Module, Param, ParamId},
    nn::{Embedding, LayerNorm},
    tensor::{Int, module::embedding},
};

use crate::{
    config::DebertaConfig,
    model::{dropout::Dropout, init::Init, linear::Linear, token_layout::TokenLayout},
};

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
            dropout: Dropout::new(config.hidden_dropout_prob),
        }
    }

    /// The token embeddings, [vocabulary, embedding]; the language-model head uses them again as its output layer.
    pub fn token_embeddings(&self) -> Tensor<2> {
        self.word_embeddings.weight.val()
    }

    /// The tables that another model may share.
    pub(crate) fn shareable(&self) -> EmbeddingTables {
        EmbeddingTables {
            tokens: self.token_embeddings(),
            positions: self.position_embeddings.as_ref().map(|table| table.weight.val()),
        }
    }

    /// The ids of the parameters in them.
    pub(crate) fn shareable_ids(&self) -> impl Iterator<Item = ParamId> {
        [Some(&self.word_embeddings), self.position_embeddings.as_ref()]
            .into_iter()
            .flatten()
            .map(|table| table.weight.id)
    }

    /// The same with other such tables.
    pub(crate) fn with_tables(mut self, tables: EmbeddingTables) -> Self {
        self.word_embeddings.weight = Param::from_tensor(tables.tokens.detach());
        if let (Some(own), Some(table)) = (&mut self.position_embeddings, tables.positions) {
            own.weight = Param::from_tensor(table.detach());
        }
        self
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
        let states = source.resolve(|| self.tables(input_ids, token_type_ids, source, layout));
        self.dropout.forward(layout.zero_padding(self.layer_norm.forward(states)))
    }

    /// The sum of the tables' rows, in the model's width.
    fn tables(
        &self,
        input_ids: Tensor<2, Int>,
        token_type_ids: Option<Tensor<2, Int>>,
        source: &EmbeddingSource,
        layout: &TokenLayout,
    ) -> Tensor<3> {
        // Of two models' tables the rows are added, never the whole tables.
        let tables = match source {
            EmbeddingSource::Shared(tables) => vec![tables.clone()],
            EmbeddingSource::Based(tables) => vec![self.shareable(), tables.clone()],
            _ => vec![self.shareable()],
        };
        let words = tables.iter().map(|tables| embedding(tables.tokens.clone(), input_ids.clone()));
        let words = words.reduce(|own, base| own + base).expect("one table at least");
        let positions = tables.into_iter().filter_map(|tables| tables.positions);
        let positions = positions.map(|table| layout.absolute_positions(table, &words)).reduce(|own, base| own + base);
        let mut states = match positions {
            Some(positions) => words + positions,
            None => words,
        };
        if let Some(table) = &self.token_type_embeddings {
            states = states + table.forward(token_type_ids.unwrap_or_else(|| input_ids.zeros_like()));
        }
        match &self.embed_proj {
            Some(projection) => projection.forward(states),
            None => states,
        }
    }
}

/// The tables that two models may share (for [`replaced_token`](crate::training::replaced_token)): words, and absolute
/// positions where the input is biased by them.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddingTables {
    /// [vocabulary, embedding]
    pub tokens: Tensor<2>,
    /// [positions, embedding]
    pub positions: Option<Tensor<2>>,
}

impl EmbeddingTables {
    pub fn map(self, map: impl Fn(Tensor<2>) -> Tensor<2>) -> Self {
        Self { tokens: map(self.tokens), positions: self.positions.map(map) }
    }

    /// Joins two models' tables; a table that one of them lacks is left out.
    pub fn zip(self, other: Self, join: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>) -> Self {
        let positions = self.positions.zip(other.positions).map(|(own, other)| join(own, other));
        Self { tokens: join(self.tokens, other.tokens), positions }
    }
}

/// What stands in front of the embeddings' LayerNorm.
#[derive(Clone, Debug, Default)]
#[allow(clippy::large_enum_variant, reason = "there is one in a forward pass")]
pub(crate) enum EmbeddingSource {
    /// The sum of the tables' rows.
    #[default]
    Tables,
    /// That sum, with these tables instead of the own ones.
    Shared(EmbeddingTables),
    /// That sum, and these tables' rows beside the own ones.
    Based(EmbeddingTables),
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
            Self::Tables | Self::Shared(_) | Self::Based(_) => tables(),
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
