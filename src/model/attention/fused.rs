//! Which implementation of attention runs: the fused kernels of the device, or the definition, [`composed`].

use burn::Tensor;

use super::{
    composed,
    operands::{AttentionOperands, TalkingHeads},
};
use crate::{
    kernels::{self, AttentionPlan, SequenceBounds},
    model::token_layout::TokenLayout,
};

/// Computes the context, of the query's shape, and the attention weights [batch, heads, query, key] if `with_weights`. Rows
/// of padded queries are zero.
///
/// # Panics
/// On an unpadded batch that no fused kernel can serve.
pub fn attend(
    operands: AttentionOperands<'_>,
    talking_heads: Option<TalkingHeads<'_>>,
    with_weights: bool,
) -> (Tensor<3>, Option<Tensor<4>>) {
    let serves = kernels::attention_serves(&operands.query.device(), operands.query.dtype());
    let fused = serves && talking_heads.is_none() && !with_weights;
    let (sequences, queries) = match operands.layout {
        TokenLayout::Unpadded(unpadding) => {
            assert!(fused, "only fused attention, without weights and talking heads, takes an unpadded batch");
            let queries =
                operands.query_positions.map(|positions| positions.counted_from_first_token(unpadding.offsets()));
            (unpadding.sequence_bounds().clone(), queries)
        }
        TokenLayout::Padded(None) if fused => {
            let [batch, length, _] = operands.key.dims();
            let sequences = (0..batch).map(|sequence| SequenceBounds { start: sequence * length, length });
            (sequences.collect(), operands.query_positions.map(|positions| positions.queries().clone()))
        }
        TokenLayout::Padded(_) => {
            let (context, weights) = composed::attend(operands, talking_heads);
            return (context, with_weights.then_some(weights));
        }
    };
    let plan = AttentionPlan {
        heads: operands.heads,
        scale: operands.scale,
        sequences,
        queries,
        index: operands.relative.as_ref().map(|relative| relative.index.host().clone()),
        first_row: operands.relative.as_ref().map_or(0, |relative| relative.positions.first_row),
        dropout: operands.dropout.mask(&operands.query.device()),
        rounds: operands.rounds,
    };
    let positions = operands.relative.map(|relative| relative.positions);
    let (position_key, position_query) = positions.map_or((None, None), |tables| (tables.key, tables.query));
    let AttentionOperands { query, key, value, .. } = operands;
    (kernels::attend(query, key, value, position_key, position_query, plan), None)
}
