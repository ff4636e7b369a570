//! From token ids to vectors (`DebertaV2Embeddings`, `RobertaEmbeddings` in the reference).

use std::sync::{Arc, OnceLock};

use burn::{
    Tensor,
    module::{Module, Param, ParamId},
    nn::{Embedding, LayerNorm},
    tensor::Int,
};

use crate::{
    kernels::embedding,
    model::{dropout::Dropout, init::Init, linear::Linear, parameter::with_value, token_layout::TokenLayout},
};

/// Token (+ absolute position) (+ token type) -> projection, where the tables are narrower than the model -> LayerNorm -> zero
/// at padding -> dropout.
#[derive(Module, Debug)]
pub struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Option<Embedding>,
    token_type_embeddings: Option<Embedding>,
    embed_proj: Option<Linear>,
    layer_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    position_ids: PositionIds,
}

/// Which row of the table of absolute positions a token gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PositionIds {
    /// Its position, from 0 (DeBERTa).
    FromZero,
    /// Tokens count from the id of the padding token + 1, padding itself gets the row of that id (RoBERTa).
    AfterPadding(usize),
}

/// What embeddings are made of, whichever family they belong to.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddingsConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the tables.
    pub embedding_size: usize,
    /// Width of the model.
    pub hidden_size: usize,
    /// Number of absolute positions and how they are numbered, if they are added at the input.
    pub positions: Option<(usize, PositionIds)>,
    /// Number of token types; 0 for none.
    pub token_types: usize,
    /// Dropout of the result.
    pub dropout: f64,
}

impl EmbeddingsConfig {
    /// Fresh embeddings.
    pub fn init(&self, init: &Init<'_>) -> Embeddings {
        let width = self.embedding_size;
        Embeddings {
            word_embeddings: init.embedding(self.vocab_size, width),
            position_embeddings: self.positions.map(|(rows, _)| init.embedding(rows, width)),
            token_type_embeddings: (self.token_types > 0).then(|| init.embedding(self.token_types, width)),
            embed_proj: (width != self.hidden_size).then(|| init.linear_without_bias(width, self.hidden_size)),
            layer_norm: init.layer_norm(self.hidden_size),
            dropout: Dropout::new(self.dropout),
            position_ids: self.positions.map_or(PositionIds::FromZero, |(_, ids)| ids),
        }
    }
}

impl Embeddings {
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

    /// The same with as many tokens as are said: rows beyond them go, and further rows are drawn anew.
    pub(crate) fn with_vocabulary(mut self, tokens: usize, init: &Init<'_>) -> Self {
        let weight = self.word_embeddings.weight;
        let [rows, width] = weight.lazy_shape().dims();
        self.word_embeddings.weight = if rows == tokens {
            weight
        } else {
            let table = weight.val().inner();
            let table = match tokens.checked_sub(rows) {
                Some(more) => {
                    let fresh = init.embedding(more, width).weight.val().inner().cast(table.dtype());
                    Tensor::cat(vec![table, fresh], 0)
                }
                None => table.narrow(0, 0, tokens),
            };
            with_value(weight, table)
        };
        self
    }

    /// # Shapes
    /// - input_ids, token_type_ids: [batch, length]; token types are 0 where absent
    /// - source, where it is given: [batch, length, hidden] in the layout
    /// - output: [batch, length, hidden] in the layout
    ///
    /// # Panics
    /// With absolute positions at the input, if the input is longer than their table.
    pub(crate) fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        token_type_ids: Option<Tensor<2, Int>>,
        source: &EmbeddingSource,
        layout: &TokenLayout,
    ) -> Tensor<3> {
        let states = source.resolve(|| self.look_up(input_ids, token_type_ids, source, layout));
        self.dropout.forward(layout.zero_padding(self.layer_norm.forward(states)))
    }

    /// The sum of the tables' rows, in the width of the model.
    fn look_up(
        &self,
        input_ids: Tensor<2, Int>,
        token_type_ids: Option<Tensor<2, Int>>,
        source: &EmbeddingSource,
        layout: &TokenLayout,
    ) -> Tensor<3> {
        let tables = match source {
            EmbeddingSource::Shared(tables) => vec![tables.clone()],
            EmbeddingSource::Based(tables) => vec![self.shareable(), tables.clone()],
            _ => vec![self.shareable()],
        };
        let sum = |own: Tensor<3>, base: Tensor<3>| own + base;
        let ids = layout.arrange_ids(input_ids.clone());
        // With two models' tables, the rows that are looked up are added, not the tables.
        let tokens = tables.iter().map(|tables| embedding(tables.tokens.clone(), ids.clone())).reduce(sum);
        let mut states = tokens.expect("one table at least");
        if let Some(table) = &self.token_type_embeddings {
            let types = token_type_ids.map(|types| layout.arrange_ids(types));
            let types = types.unwrap_or_else(|| ids.zeros_like());
            states = states + embedding(table.weight.val(), types);
        }
        let positions = tables.into_iter().filter_map(|tables| tables.positions);
        let positions = positions.map(|table| self.positions(table, &input_ids, &states, layout));
        if let Some(positions) = positions.reduce(sum) {
            states = states + positions;
        }
        match &self.embed_proj {
            Some(projection) => projection.forward(states),
            None => states,
        }
    }

    /// The rows of a table of absolute positions, in a shape that can be added to `states`.
    fn positions(
        &self,
        table: Tensor<2>,
        input_ids: &Tensor<2, Int>,
        states: &Tensor<3>,
        layout: &TokenLayout,
    ) -> Tensor<3> {
        match self.position_ids {
            PositionIds::FromZero => layout.absolute_positions(table, states),
            PositionIds::AfterPadding(padding) => {
                let tokens = input_ids.clone().not_equal_elem(padding as i64).int();
                let ids = tokens.clone().cumsum(1) * tokens + padding as i64;
                embedding(table, layout.arrange_ids(ids))
            }
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
