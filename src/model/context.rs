//! What the layers of one forward pass share: how the tokens lie, and the position table.

use std::sync::Arc;

use burn::{Tensor, tensor::FloatDType};

use super::{
    attention::{DisentangledAttention, PositionProjections, operands::PositionIndex},
    precision::round,
    switch::RoutingRecord,
    token_layout::TokenLayout,
};

/// What all layers of one forward pass share.
#[derive(Clone, Debug)]
pub struct EncoderContext {
    /// How the tokens lie in the states.
    pub layout: TokenLayout,
    /// The position table and the rows to use from it, if attention is relative.
    pub relative: Option<RelativeTable>,
    /// Where Switch layers leave their losses and figures, if someone wants them.
    pub routing: Option<RoutingRecord>,
    /// The type that linear maps and attention compute in; if none, that of the parameters.
    pub compute_type: Option<FloatDType>,
}

/// The states that run through the layers, [batch, length, hidden].
#[derive(Clone, Debug)]
pub struct Stream {
    /// As they are: what each block adds to.
    pub residual: Tensor<3>,
    /// In the type to compute in: what each block reads.
    pub input: Tensor<3>,
}

impl Stream {
    /// States of layers that compute in a type; if none, in that of the states.
    pub fn new(states: Tensor<3>, compute_type: Option<FloatDType>) -> Self {
        Self { input: round(states.clone(), compute_type), residual: states }
    }
}

impl EncoderContext {
    /// States that layers are to run on.
    pub fn stream(&self, states: Tensor<3>) -> Stream {
        Stream::new(states, self.compute_type)
    }
}

/// Rows of the position table, the reached ones among them, normalised where the configuration says so.
#[derive(Clone, Debug)]
pub struct RelativeTable {
    /// R, or what each layer has made of it.
    pub rows: PositionRows,
    /// The row of the position table that their first row is.
    pub first_row: usize,
    /// The row of each pair of tokens.
    pub index: PositionIndex,
}

/// The rows of the position table.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a forward pass")]
pub enum PositionRows {
    /// R, [rows, hidden], for the layers to project.
    Embeddings(Tensor<2>),
    /// Projected already, layer by layer.
    Projected(Arc<[PositionProjections]>),
}

impl RelativeTable {
    /// The rows as layer `number` sees them.
    pub(super) fn project(&self, number: usize, attention: &DisentangledAttention) -> PositionProjections {
        let rows = match &self.rows {
            PositionRows::Embeddings(rows) => attention.project_positions(rows.clone()),
            PositionRows::Projected(layers) => layers[number].clone(),
        };
        PositionProjections { first_row: self.index.host().rows().start - self.first_row, ..rows }
    }
}
