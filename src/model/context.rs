//! What the layers of one forward pass share: how the tokens lie, and the position table.

use burn::Tensor;

use super::{
    attention::{DisentangledAttention, PositionProjections, PreparedPositions, operands::PositionIndex},
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
}

/// The reached rows of the position table, normalised where the configuration says so.
#[derive(Clone, Debug)]
pub struct RelativeTable {
    /// R, or what each layer has made of it.
    pub rows: PositionRows,
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
    Projected(PreparedPositions),
}

impl RelativeTable {
    /// The rows as layer `number` sees them.
    pub(super) fn project(&self, number: usize, attention: &DisentangledAttention) -> PositionProjections {
        match &self.rows {
            PositionRows::Embeddings(rows) => attention.project_positions(rows.clone()),
            PositionRows::Projected(layers) => {
                let first_row = self.index.host().rows().start - layers.first_row;
                PositionProjections { first_row, ..layers.layers[number].clone() }
            }
        }
    }
}
