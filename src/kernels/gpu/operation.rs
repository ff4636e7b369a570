//! The kernels as a burn operation: lazy under fusion, with a backward pass of its own.

use burn::{
    Tensor,
    backend::{
        Autodiff, Dispatch, DispatchDevice, TensorMetadata, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::{Device, Shape},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous};

use super::{
    launch,
    plan::Plan,
    product::{Factor, Form, GpuProduct, Product},
    sums::GpuSums,
};
use crate::{
    config::PositionTerms,
    kernels::{
        AttentionPlan,
        cpu::dropout::DropoutMask,
        operation::{Operation, differentiable},
    },
};

/// Attention over sequences that lie end to end. Shapes as the CPU kernels'.
///
/// The scores of the position tables' rows are a [heads, tokens, rows] tensor. Where the device has no buffer of that size, some
/// heads are computed at a time.
pub(crate) fn attend<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    value: Tensor<D>,
    position_key: Option<Tensor<2>>,
    position_query: Option<Tensor<2>>,
    mut plan: AttentionPlan,
) -> Tensor<D> {
    let tables = [position_key, position_query];
    let count = tables.iter().flatten().next().map_or(0, |table| table.dims()[0]);
    let rows = plan.index.as_ref().map_or(0..0, |index| index.whole_rows(plan.first_row, count));
    let tables =
        tables.map(|table| table.map(|table| if rows.len() == count { table } else { table.slice(rows.clone()) }));
    plan.first_row -= rows.start;

    let tokens = |states: &Tensor<D>| states.shape().num_elements() / states.dims()[D - 1];
    let of_head = tokens(&query).max(tokens(&key)) * rows.len();
    // Kernels count the scores of a launch in 32 bits.
    let most = u32::MAX as usize;
    assert!(
        of_head <= most,
        "attention of {of_head} scores of positions a head, expected at most {most}: use smaller batches"
    );
    let at_once = (largest_buffer(&query.device()) / query.dtype().size()).min(most) / of_head.max(1);
    Attention { states: [query, key, value], tables, plan }.by_heads(at_once.max(1))
}

/// The bytes of the largest buffer that a device has.
fn largest_buffer(device: &Device) -> usize {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Cube(device) => device.client().properties().memory.max_page_size as usize,
        _ => usize::MAX,
    }
}

/// What is to be computed.
struct Attention<const D: usize> {
    /// Query, key and value.
    states: [Tensor<D>; 3],
    /// The rows to multiply of the projected position tables of key and query, of the terms in use.
    tables: [Option<Tensor<2>>; 2],
    plan: AttentionPlan,
}

impl<const D: usize> Attention<D> {
    /// The context, so many heads at a time.
    fn by_heads(self, at_once: usize) -> Tensor<D> {
        let heads = self.plan.heads;
        if at_once >= heads {
            return self.context();
        }
        let parts = (0..heads).step_by(at_once).map(|first| self.heads(first, at_once.min(heads - first)).context());
        Tensor::cat(parts.collect(), D - 1)
    }

    /// Some of the heads.
    fn heads(&self, first: usize, heads: usize) -> Self {
        let size = self.states[0].dims()[D - 1] / self.plan.heads;
        let part = |states: &Tensor<D>| states.clone().narrow(D - 1, first * size, heads * size);
        let table = |table: &Option<Tensor<2>>| table.clone().map(|table| table.narrow(1, first * size, heads * size));
        let dropout = self.plan.dropout.map(|mask| DropoutMask { first_part: mask.first_part + first, ..mask });
        Self {
            states: self.states.each_ref().map(part),
            tables: self.tables.each_ref().map(table),
            plan: AttentionPlan { heads, dropout, ..self.plan.clone() },
        }
    }

    /// The context of all heads at once.
    fn context(self) -> Tensor<D> {
        let Self { states, tables, plan: attention } = self;
        let terms = PositionTerms { c2p: tables[0].is_some(), p2c: tables[1].is_some() };
        let [query, key, value] = states.map(Tensor::into_dispatch);
        // A term that is not in use is stood in for by a tensor that nobody reads.
        let [by_key, by_query] = tables.map(|table| table.map_or_else(|| query.clone(), Tensor::into_dispatch));
        let plan = Plan { terms, attention };
        Tensor::from_dispatch(<Dispatch as GpuAttention>::attend(query, key, value, by_key, by_query, plan))
    }
}

/// The operation.
#[backend_extension(Cube: cfg(feature = "gpu"), Autodiff, Fusion: cfg(feature = "gpu"))]
pub trait GpuAttention: GpuProduct {
    /// Context of query, key, value and the projected position tables.
    #[fusion(dtype = query, shape = query)]
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        position_key: FloatTensor<Self>,
        position_query: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;
}

/// The kernels that it is made of.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait AttentionPasses: GpuProduct {
    /// Context, and the logarithm of each softmax's sum, from the scores of all rows of the position tables.
    #[fusion(meta = |query, _key, _value, _c2p, _p2c, plan| (query.clone(), plan.lse(query)))]
    fn attention_forward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        c2p: FloatTensor<Self>,
        p2c: FloatTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of the five.
    #[allow(
        clippy::too_many_arguments,
        clippy::type_complexity,
        reason = "burn's operations take and give tensors one by one"
    )]
    #[fusion(meta = |query, key, value, c2p, p2c, _gradient, _lse, _delta, plan|
        (query.clone(), key.clone(), value.clone(), Plan::d_term(c2p, plan.terms.c2p), Plan::d_term(p2c, plan.terms.p2c)))]
    fn attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        c2p: FloatTensor<Self>,
        p2c: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl GpuAttention for CubeBackend {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        position_key: FloatTensor<Self>,
        position_query: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        let (c2p, p2c) = every_row::<Self>([&query, &key], [position_key, position_query], &plan);
        Self::attention_forward(query, key, value, c2p, p2c, plan).0
    }
}

impl AttentionPasses for CubeBackend {
    fn attention_forward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        c2p: FloatTensor<Self>,
        p2c: FloatTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [query, key, value, c2p, p2c] = [query, key, value, c2p, p2c].map(into_contiguous);
        launch::forward(launch::Operands { query, key, value, c2p, p2c }, &plan)
    }

    fn attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        c2p: FloatTensor<Self>,
        p2c: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [query, key, value, c2p, p2c] = [query, key, value, c2p, p2c].map(into_contiguous);
        let [gradient, lse, delta] = [gradient, lse, delta].map(into_contiguous);
        let operands = launch::Operands { query, key, value, c2p, p2c };
        launch::backward(operands, gradient, lse, delta, &plan).into()
    }
}

impl<B: GpuAttention + AttentionPasses + GpuSums, C: CheckpointStrategy> GpuAttention for Autodiff<B, C> {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        position_key: FloatTensor<Self>,
        position_query: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 5>(plan, [query, key, value, position_key, position_query])
    }
}

/// What the backward pass needs: the scores of the position tables' rows are made again.
#[derive(Clone, Debug)]
pub struct Kept<F> {
    operands: [F; 5],
    context: F,
    lse: F,
}

impl<B: GpuAttention + AttentionPasses + GpuSums> Operation<B, 5> for Plan {
    type Kept = Kept<FloatTensor<B>>;

    fn forward(&self, [query, key, value, position_key, position_query]: [FloatTensor<B>; 5]) -> FloatTensor<B> {
        B::attend(query, key, value, position_key, position_query, self.clone())
    }

    fn forward_keeping(&self, operands: [FloatTensor<B>; 5], _: [bool; 5]) -> (FloatTensor<B>, Self::Kept) {
        let [query, key, value, position_key, position_query] = operands.clone();
        let (c2p, p2c) = every_row::<B>([&query, &key], [position_key, position_query], self);
        let (context, lse) = B::attention_forward(query, key, value, c2p, p2c, self.clone());
        (context.clone(), Kept { operands, context, lse })
    }

    fn backward(&self, kept: Self::Kept, gradient: FloatTensor<B>, _: [bool; 5]) -> [Option<FloatTensor<B>>; 5] {
        let Kept { operands: [query, key, value, position_key, position_query], context, lse } = kept;
        let (terms, heads) = (self.terms, self.attention.heads);
        let (c2p, p2c) = every_row::<B>([&query, &key], [position_key.clone(), position_query.clone()], self);
        let delta = B::dots(context, gradient.clone(), heads);
        let (d_query, d_key, d_value, d_c2p, d_p2c) =
            B::attention_backward(query.clone(), key.clone(), value, c2p, p2c, gradient, lse, delta, self.clone());
        let through = |states, d_states, table, d_term, in_use: bool| match in_use {
            true => {
                let (d_states, d_table) = through_table::<B>(states, d_states, table, d_term, heads);
                (d_states, Some(d_table))
            }
            false => (d_states, None),
        };
        let (d_query, d_position_key) = through(query, d_query, position_key, d_c2p, terms.c2p);
        let (d_key, d_position_query) = through(key, d_key, position_query, d_p2c, terms.p2c);
        [Some(d_query), Some(d_key), Some(d_value), d_position_key, d_position_query]
    }
}

/// Qc Kr^T and Kc Qr^T for every row of the position tables, [heads, tokens, rows]; the states where a term is not in use.
fn every_row<B: GpuProduct>(
    states: [&FloatTensor<B>; 2],
    tables: [FloatTensor<B>; 2],
    plan: &Plan,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let heads = plan.attention.heads;
    let by_head = Factor::new(Form::ByHead(heads));
    let scores = |states: &FloatTensor<B>, table: FloatTensor<B>, in_use| match in_use {
        true => {
            let shape = Shape::new([heads, launch::rows(&states.shape()), table.shape()[0]]);
            let dtype = states.dtype();
            let product = Product { lhs: by_head, rhs: by_head.transposed(), output: Form::Stack, shape, dtype };
            B::product(states.clone(), table, product)
        }
        false => states.clone(),
    };
    let [position_key, position_query] = tables;
    (scores(states[0], position_key, plan.terms.c2p), scores(states[1], position_query, plan.terms.p2c))
}

/// The gradients of states and table through their scores, scores = states table^T: that of the states is added to what they
/// have, that of the table is [rows, heads * head_size].
fn through_table<B: GpuProduct>(
    states: FloatTensor<B>,
    d_states: FloatTensor<B>,
    table: FloatTensor<B>,
    d_scores: FloatTensor<B>,
    heads: usize,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (by_head, stack) = (Form::ByHead(heads), Factor::new(Form::Stack));
    let dtype = states.dtype();
    let product = |lhs, shape| Product { lhs, rhs: Factor::new(by_head), output: by_head, shape, dtype };
    let (of_states, of_table) = (product(stack, states.shape()), product(stack.transposed(), table.shape()));
    let d_table = B::product(d_scores.clone(), states, of_table);
    (B::float_add(d_states, B::product(d_scores, table, of_states)), d_table)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::TensorData;

    use super::*;
    use crate::kernels::{RelativeIndex, SequenceBounds, gpu};

    /// In parts of 2, 2 and 1 heads: the same context and the same gradients, and dropout drops the same.
    #[test]
    fn some_heads_at_a_time_are_all_heads() {
        let (heads, size, lengths) = (5, 16, [70, 33]);
        let (tokens, hidden) = (lengths.iter().sum::<usize>(), heads * size);
        let device = gpu::any_device().autodiff();
        let values = |part: usize, rows: usize| {
            let value = |at: usize| ((at * 7919 + part * 104_729) % 2003) as f32 / 1001.0 - 1.0;
            let data = TensorData::new((0..rows * hidden).map(value).collect(), [rows, hidden]);
            Tensor::<2>::from_data(data, &device)
        };
        let index = RelativeIndex::new(|distance| (distance + 16).clamp(0, 31) as usize, 70, 70);
        let plan = AttentionPlan {
            heads,
            scale: 0.1,
            sequences: [(0, 70), (70, 33)].map(|(start, length)| SequenceBounds { start, length }).into(),
            queries: None,
            first_row: 0,
            index: Some(Arc::new(index)),
            dropout: Some(DropoutMask::new(0.2, 7)),
            rounds: false,
        };
        let run = |at_once: usize| {
            let all = [0, 1, 2].map(|part| values(part, tokens)).into_iter().chain([3, 4].map(|part| values(part, 32)));
            let all: Vec<Tensor<2>> = all.map(Tensor::require_grad).collect();
            let states = [0, 1, 2].map(|number: usize| all[number].clone());
            let tables = [3, 4].map(|number: usize| Some(all[number].clone()));
            let context = Attention { states, tables, plan: plan.clone() }.by_heads(at_once);
            let gradients = (context.clone() * values(5, tokens)).sum().backward();
            let found = all.iter().map(|tensor| tensor.grad(&gradients).expect("a gradient"));
            let found = std::iter::once(context.inner()).chain(found);
            found.map(|tensor| tensor.into_data().try_to_vec::<f32>().expect("numbers in f32")).collect::<Vec<_>>()
        };
        for (number, (parts, whole)) in run(2).into_iter().zip(run(heads)).enumerate() {
            let largest = whole.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let difference = parts.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            // The same sums, by products of another shape.
            assert!(difference <= 1e-6 * largest, "tensor {number} is off by {difference:e} of {largest:e}");
        }
    }
}
