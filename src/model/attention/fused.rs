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

/// Computes the context, of the query's shape, and the probabilities [batch, heads, query, key] if `maps` asks for them. Rows
/// of padded queries are zero.
///
/// # Panics
/// On a packed layout that no fused kernel can serve.
pub fn attend(
    operands: AttentionOperands<'_>,
    talking_heads: Option<TalkingHeads<'_>>,
    maps: bool,
) -> (Tensor<3>, Option<Tensor<4>>) {
    let fused = kernels::attention_serves(&operands.query.device(), operands.query.dtype()) && talking_heads.is_none() && !maps;
    let (sequences, queries) = match operands.layout {
        TokenLayout::Packed(packing) => {
            assert!(fused, "a packed layout needs fused attention, without maps and talking heads");
            let queries = operands.places.map(|places| places.counted_from_first_token(packing.offsets()));
            (packing.sequences().clone(), queries)
        }
        TokenLayout::Padded(None) if fused => {
            let [batch, length, _] = operands.key.dims();
            let sequences = (0..batch).map(|sequence| SequenceBounds { start: sequence * length, length });
            (sequences.collect(), operands.places.map(|places| places.queries().clone()))
        }
        TokenLayout::Padded(_) => {
            let (context, probabilities) = composed::attend(operands, talking_heads);
            return (context, maps.then_some(probabilities));
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
    };
    let positions = operands.relative.map(|relative| relative.positions);
    let (position_key, position_query) = positions.map_or((None, None), |tables| (tables.key, tables.query));
    let AttentionOperands { query, key, value, .. } = operands;
    (kernels::attend(query, key, value, position_key, position_query, plan), None)
}
