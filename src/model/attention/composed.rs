//! The definition of disentangled attention, from differentiable primitives: slow, plainly right, and the oracle of every
//! faster implementation.

use burn::{
    Tensor,
    tensor::{Int, activation::softmax},
};

use super::operands::{AttentionOperands, RelativeOperands, TalkingHeads};
use crate::{
    kernels::matmul,
    model::{linear::Linear, precision::in_f32},
};

/// A finite number that the softmax turns into zero beside any real score.
const LOWEST: f64 = -1e38;

/// Context, of the query's shape, and attention weights [batch, heads, query, key].
///
/// Scores of padded keys never count, and rows of padded queries are zero, as in the original code (transformers makes such
/// rows uniform; nothing reads them).
pub fn attend(operands: AttentionOperands<'_>, talking_heads: Option<TalkingHeads<'_>>) -> (Tensor<3>, Tensor<4>) {
    let AttentionOperands { query, key, value, heads, relative, layout, query_positions, scale, dropout, .. } =
        operands;
    let slots = query_positions.map(|positions| positions.slots(&query.device()));
    let query = match &slots {
        Some(slots) => slots.spread(query, key.dims()[0]),
        None => query,
    };
    let dtype = query.dtype();
    let [query, key, value] = [query, key, value].map(|states| split_heads(states, heads));

    let mut scores = matmul(query.clone(), key.clone().transpose()); // [batch, heads, query, key]
    if let Some(relative) = relative {
        let index = match &slots {
            // [batch, 1, slots, keys]
            Some(slots) => slots.rows_of(relative.index.table(), query.dims()[0]),
            None => relative.index.table().unsqueeze::<4>(),
        };
        for term in position_terms(query, key, relative, index) {
            scores = scores + term;
        }
    }
    // Whatever the type of the operands, the softmax is computed in f32 at least.
    scores = in_f32(scores) * scale;
    if let Some(mix) = talking_heads {
        scores = mix_heads(mix.logits, scores);
    }

    // A row whose keys are all padding gets equal scores here and so stays finite; its query is padding too, and zeroed.
    let padding = layout.mask().map(|mask| mask.clone().bool_not());
    if let Some(padding) = &padding {
        scores = scores.mask_fill(padding.clone().unsqueeze_dims(&[1, 1]), LOWEST);
    }
    let mut weights = softmax(scores, 3);
    // Queries with positions of their own are never padding.
    if let Some(padding) = padding.filter(|_| slots.is_none()) {
        weights = weights.mask_fill(padding.unsqueeze_dims(&[1, 3]), 0.0);
    }
    weights = dropout.forward(weights);
    if let Some(mix) = talking_heads {
        weights = mix_heads(mix.weights, weights);
    }
    let weights = weights.cast(dtype);
    let context = join_heads(matmul(weights.clone(), value));
    let context = match slots {
        Some(slots) => slots.collect(context),
        None => context,
    };
    (context, weights)
}

/// [batch, length, hidden] -> [batch, heads, length, head_size]
fn split_heads(states: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, hidden] = states.dims();
    states.reshape([batch, length, heads, hidden / heads]).swap_dims(1, 2)
}

/// [batch, heads, length, head_size] -> [batch, length, hidden]
fn join_heads(states: Tensor<4>) -> Tensor<3> {
    let [batch, heads, length, head_size] = states.dims();
    states.swap_dims(1, 2).reshape([batch, length, heads * head_size])
}

/// Qc[i] . Kr[idx(i, j)] and Qr[idx(i, j)] . Kc[j], each [batch, heads, query, key].
/// The index is [batch or 1, 1, query, key].
fn position_terms(
    query: Tensor<4>,
    key: Tensor<4>,
    relative: RelativeOperands,
    index: Tensor<4, Int>,
) -> impl Iterator<Item = Tensor<4>> {
    let [batch, heads, queries, _] = query.dims();
    let index = index.expand([batch, heads, queries, key.dims()[2]]);
    let first = relative.positions.first_row;
    let rows = first..first + relative.index.host().rows().len();
    let split = |table: Tensor<2>| split_heads(table.slice(rows.clone()).unsqueeze(), heads); // [1, heads, rows, head_size]
    let c2p = relative.positions.key.map(|position_key| {
        let every_row = matmul(query, split(position_key).transpose()); // [batch, heads, query, rows]
        every_row.gather(3, index.clone())
    });
    let p2c = relative.positions.query.map(|position_query| {
        let every_row = matmul(split(position_query), key.transpose()); // [batch, heads, rows, key]
        every_row.gather(2, index)
    });
    c2p.into_iter().chain(p2c)
}

/// A linear map over the heads' axis of [batch, heads, query, key].
fn mix_heads(projection: &Linear, scores: Tensor<4>) -> Tensor<4> {
    projection.forward(scores.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
}
