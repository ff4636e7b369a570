//! The CPU kernels as a burn operation with a backward pass of its own.

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
};

use super::{Geometry, Operands, backward, forward};
use crate::{
    config::PositionTerms,
    isa::Isa,
    kernels::{
        AttentionPlan,
        cpu::{
            backend::HostBackend,
            floats::{F32, in_bf16},
            operation::{Operation, apply},
        },
    },
};

/// Attention over sequences that lie end to end.
///
/// # Shapes
/// - key, value: [.., tokens, hidden]; leading axes of any size count as more tokens
/// - query, output: the same, or [1, places, hidden]
/// - position_key, position_query: [rows, hidden], from the plan's first row on at least those that its index reaches
pub(crate) fn attend<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    value: Tensor<D>,
    position_key: Option<Tensor<2>>,
    position_query: Option<Tensor<2>>,
    plan: AttentionPlan,
) -> Tensor<D> {
    let terms = PositionTerms { c2p: position_key.is_some(), p2c: position_query.is_some() };
    let operation = FusedAttention { terms, plan };
    let (query, key, value) = (query.into_dispatch(), key.into_dispatch(), value.into_dispatch());
    match (position_key.map(Tensor::into_dispatch), position_query.map(Tensor::into_dispatch)) {
        (None, None) => apply(operation, [query, key, value]),
        (Some(table), None) | (None, Some(table)) => apply(operation, [query, key, value, table]),
        (Some(by_key), Some(by_query)) => apply(operation, [query, key, value, by_key, by_query]),
    }
}

/// Attention of a query, key and value, and the position tables of the terms in use.
#[derive(Clone, Debug)]
struct FusedAttention {
    terms: PositionTerms,
    plan: AttentionPlan,
}

impl FusedAttention {
    fn geometry(&self, hidden: usize) -> Geometry<'_> {
        let AttentionPlan { heads, scale, sequences, queries, index, first_row, dropout, .. } = &self.plan;
        Geometry {
            isa: Isa::in_use(),
            heads: *heads,
            head_size: hidden / heads,
            scale: *scale as f32,
            sequences,
            queries: queries.as_ref(),
            index: index.as_deref(),
            first_row: *first_row,
            dropout: *dropout,
        }
    }

    fn operands<'a, V: AsRef<[f32]>, const N: usize>(&self, tensors: &'a [V; N]) -> Operands<'a> {
        let [query, key, value] = [0, 1, 2].map(|index| tensors[index].as_ref());
        let mut tables = tensors[3..].iter().map(AsRef::as_ref);
        let mut table = |in_use: bool| if in_use { tables.next() } else { None };
        Operands { query, key, value, position_key: table(self.terms.c2p), position_query: table(self.terms.p2c) }
    }
}

impl<B: HostBackend, const N: usize> Operation<B, N> for FusedAttention {
    /// The operands: everything else is made again.
    type Kept = [FloatTensor<B>; N];

    fn forward(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B> {
        let shape = tensors[0].shape();
        let values = tensors.map(B::values);
        let mut context = vec![0.0; shape.num_elements()];
        let geometry = self.geometry(shape[shape.num_dims() - 1]);
        let operands = self.operands(&values);
        match self.plan.rounds {
            true => in_bf16!(geometry.isa, F => forward::<F>(&geometry, operands, &mut context), otherwise F32),
            false => forward::<F32>(&geometry, operands, &mut context),
        }
        B::tensor(context, shape)
    }

    fn forward_keeping(&self, tensors: [FloatTensor<B>; N], _: [bool; N]) -> (FloatTensor<B>, [FloatTensor<B>; N]) {
        (Operation::<B, N>::forward(self, tensors.clone()), tensors)
    }

    fn backward(
        &self,
        kept: [FloatTensor<B>; N],
        gradient: FloatTensor<B>,
        _: [bool; N],
    ) -> [Option<FloatTensor<B>>; N] {
        let shapes = kept.each_ref().map(TensorMetadata::shape);
        let values = kept.map(B::values);
        let gradient = B::values(gradient);
        let geometry = self.geometry(shapes[0][shapes[0].num_dims() - 1]);
        let (operands, gradient) = (self.operands(&values), gradient.as_ref());
        let found = match self.plan.rounds {
            true => in_bf16!(geometry.isa, F => backward::<F>(&geometry, operands, gradient), otherwise F32),
            false => backward::<F32>(&geometry, operands, gradient),
        };
        let content = [found.query, found.key, found.value].into_iter();
        let mut found = content.chain(found.position_key).chain(found.position_query);
        shapes.map(|shape| found.next().map(|values| B::tensor(values, shape)))
    }
}
