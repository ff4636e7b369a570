//! The CPU kernels as a burn operation with a backward pass of its own.

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

use std::sync::Arc;

use super::{Geometry, Operands, backward, forward};
use crate::{
    config::PositionTerms,
    kernels::{
        QueryPositions, RelativeIndex, SequenceBounds,
        cpu::{dropout::DropoutMask, extension::*},
    },
};

/// What the operation knows beside its tensors.
#[derive(Clone, Debug)]
pub(crate) struct FusedPlan {
    pub heads: usize,
    pub scale: f64,
    pub sequences: Arc<[SequenceBounds]>,
    /// The positions of the queries, if not every token has one.
    pub queries: Option<QueryPositions>,
    /// The rows of each pair, where there are position terms.
    pub index: Option<Arc<RelativeIndex>>,
    /// The row of the position tables that the index counts from.
    pub first_row: usize,
    pub dropout: Option<DropoutMask>,
}

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
    plan: FusedPlan,
) -> Tensor<D> {
    let terms = PositionTerms { c2p: position_key.is_some(), p2c: position_query.is_some() };
    // Operations take a fixed number of tensors: an absent table is one that nobody reads.
    let device = query.device();
    let table = |table: Option<Tensor<2>>| table.unwrap_or_else(|| Tensor::zeros([1, 1], &device)).into_dispatch();
    let (position_key, position_query) = (table(position_key), table(position_query));
    let (query, key, value) = (query.into_dispatch(), key.into_dispatch(), value.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_attention(query, key, value, position_key, position_query, terms, plan))
}

/// The operation, for the host backends.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Autodiff)]
pub(crate) trait FusedAttention: Backend {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        position_key: FloatTensor<Self>,
        position_query: FloatTensor<Self>,
        terms: PositionTerms,
        plan: FusedPlan,
    ) -> FloatTensor<Self>;
}

/// A call: its tensors in the order of the operation, and what it knows beside them.
#[derive(Clone, Debug)]
struct Call<F> {
    tensors: [F; 5],
    terms: PositionTerms,
    plan: FusedPlan,
}

impl<F: TensorMetadata> Call<F> {
    fn geometry(&self) -> Geometry<'_> {
        let shape = self.tensors[0].shape();
        Geometry {
            heads: self.plan.heads,
            head_size: shape[shape.num_dims() - 1] / self.plan.heads,
            scale: self.plan.scale as f32,
            sequences: &self.plan.sequences,
            queries: self.plan.queries.as_ref(),
            index: self.plan.index.as_deref(),
            first_row: self.plan.first_row,
            dropout: self.plan.dropout,
        }
    }

    fn operands<'a, V: AsRef<[f32]>>(
        &self,
        [query, key, value, position_key, position_query]: &'a [V; 5],
    ) -> Operands<'a> {
        Operands {
            query: query.as_ref(),
            key: key.as_ref(),
            value: value.as_ref(),
            position_key: self.terms.c2p.then_some(position_key.as_ref()),
            position_query: self.terms.p2c.then_some(position_query.as_ref()),
        }
    }
}

fn run<B: HostBackend>(call: Call<FloatTensor<B>>) -> FloatTensor<B> {
    let shape = call.tensors[0].shape();
    let values = call.tensors.clone().map(B::values);
    let mut context = vec![0.0; shape.num_elements()];
    forward(&call.geometry(), call.operands(&values), &mut context);
    B::tensor(context, shape)
}

macro_rules! implement {
    ($backend:ty) => {
        impl FusedAttention for $backend {
            fn fused_attention(
                query: FloatTensor<Self>,
                key: FloatTensor<Self>,
                value: FloatTensor<Self>,
                position_key: FloatTensor<Self>,
                position_query: FloatTensor<Self>,
                terms: PositionTerms,
                plan: FusedPlan,
            ) -> FloatTensor<Self> {
                run::<Self>(Call { tensors: [query, key, value, position_key, position_query], terms, plan })
            }
        }
    };
}

#[cfg(feature = "flex")]
implement!(Flex);
#[cfg(feature = "ndarray")]
implement!(NdArray);

/// Keeps the operands; everything else is made again.
#[derive(Debug)]
struct FusedAttentionBackward;

impl<B: HostBackend> Backward<B, 5> for FusedAttentionBackward {
    type State = Call<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = B::values(grads.consume::<B>(&ops.node));
        let call = ops.state;
        let values = call.tensors.clone().map(B::values);
        let found = backward(&call.geometry(), call.operands(&values), gradient.as_ref());
        let found = [Some(found.query), Some(found.key), Some(found.value), found.position_key, found.position_query];
        for ((parent, gradient), tensor) in ops.parents.into_iter().zip(found).zip(&call.tensors) {
            if let (Some(node), Some(values)) = (parent, gradient) {
                grads.register::<B>(node.id, B::tensor(values, tensor.shape()));
            }
        }
    }
}

impl<B: FusedAttention + HostBackend, C: CheckpointStrategy> FusedAttention for Autodiff<B, C> {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        position_key: FloatTensor<Self>,
        position_query: FloatTensor<Self>,
        terms: PositionTerms,
        plan: FusedPlan,
    ) -> FloatTensor<Self> {
        let tensors = [query, key, value, position_key, position_query];
        let nodes = tensors.each_ref().map(|tensor| tensor.node());
        let call = Call { tensors: tensors.map(|tensor| tensor.into_primitive()), terms, plan };
        match FusedAttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(call.clone(), run::<B>(call)),
            OpsKind::UnTracked(prep) => prep.finish(run::<B>(call)),
        }
    }
}
