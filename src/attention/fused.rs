//! The CPU kernels as a burn operation with a backward pass of its own.

use std::sync::Arc;

use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
};

use super::cpu::{self, DropoutMask, Geometry, Operands, Span};
use crate::{cpu::backend::HostBackend, position::RelativeIndex};

/// What the operation knows beside its tensors.
#[derive(Clone, Debug)]
pub(crate) struct FusedPlan {
    pub heads: usize,
    pub scale: f64,
    pub spans: Arc<[Span]>,
    pub index: Option<Arc<RelativeIndex>>,
    pub dropout: Option<DropoutMask>,
}

/// Attention over sequences that lie end to end.
///
/// # Shapes
/// - query, key, value, output: [.., tokens, hidden]; leading axes of any size count as more tokens
/// - position_key, position_query: [rows, hidden], of the rows that the plan's index reaches
pub(crate) fn attend<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    value: Tensor<D>,
    position_key: Option<Tensor<2>>,
    position_query: Option<Tensor<2>>,
    plan: FusedPlan,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        position_key.map(Tensor::into_dispatch),
        position_query.map(Tensor::into_dispatch),
        plan,
    ))
}

/// The operation, for the backends that [`super::op`] calls it on.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Autodiff)]
pub(crate) trait FusedAttention: Backend {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        position_key: Option<FloatTensor<Self>>,
        position_query: Option<FloatTensor<Self>>,
        plan: FusedPlan,
    ) -> FloatTensor<Self>;
}

/// Tensors of a call, in memory.
struct Host<B: HostBackend> {
    query: B::Values,
    key: B::Values,
    value: B::Values,
    position_key: Option<B::Values>,
    position_query: Option<B::Values>,
}

impl<B: HostBackend> Host<B> {
    fn new(
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        value: FloatTensor<B>,
        position_key: Option<FloatTensor<B>>,
        position_query: Option<FloatTensor<B>>,
    ) -> Self {
        Self {
            query: B::values(query),
            key: B::values(key),
            value: B::values(value),
            position_key: position_key.map(B::values),
            position_query: position_query.map(B::values),
        }
    }

    fn operands(&self) -> Operands<'_> {
        Operands {
            query: self.query.as_ref(),
            key: self.key.as_ref(),
            value: self.value.as_ref(),
            position_key: self.position_key.as_ref().map(AsRef::as_ref),
            position_query: self.position_query.as_ref().map(AsRef::as_ref),
        }
    }
}

impl FusedPlan {
    fn geometry(&self, hidden: usize) -> Geometry<'_> {
        Geometry {
            heads: self.heads,
            head_size: hidden / self.heads,
            scale: self.scale as f32,
            spans: &self.spans,
            index: self.index.as_deref(),
            dropout: self.dropout,
        }
    }
}

fn forward<B: HostBackend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    position_key: Option<FloatTensor<B>>,
    position_query: Option<FloatTensor<B>>,
    plan: FusedPlan,
) -> FloatTensor<B> {
    let shape = query.shape();
    let host = Host::<B>::new(query, key, value, position_key, position_query);
    let mut context = vec![0.0; shape.num_elements()];
    cpu::forward(&plan.geometry(shape[shape.num_dims() - 1]), host.operands(), &mut context);
    B::tensor(context, shape)
}

macro_rules! implement {
    ($backend:ty) => {
        impl FusedAttention for $backend {
            fn fused_attention(
                query: FloatTensor<Self>,
                key: FloatTensor<Self>,
                value: FloatTensor<Self>,
                position_key: Option<FloatTensor<Self>>,
                position_query: Option<FloatTensor<Self>>,
                plan: FusedPlan,
            ) -> FloatTensor<Self> {
                forward::<Self>(query, key, value, position_key, position_query, plan)
            }
        }
    };
}

#[cfg(feature = "flex")]
implement!(Flex);
#[cfg(feature = "ndarray")]
#[allow(deprecated)]
mod ndarray {
    use burn::backend::NdArray;

    use super::*;

    implement!(NdArray);
}

#[derive(Debug)]
struct FusedAttentionBackward;

/// The operands, kept for the backward pass, which makes everything else again.
#[derive(Clone, Debug)]
struct State<F> {
    query: F,
    key: F,
    value: F,
    position_key: Option<F>,
    position_query: Option<F>,
    plan: FusedPlan,
}

impl<B: HostBackend> Backward<B, 5> for FusedAttentionBackward {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = B::values(grads.consume::<B>(&ops.node));
        let State { query, key, value, position_key, position_query, plan } = ops.state;
        let shape = query.shape();
        let position_shape = position_key.as_ref().or(position_query.as_ref()).map(|table| table.shape());
        let host = Host::<B>::new(query, key, value, position_key, position_query);
        let found = cpu::backward(&plan.geometry(shape[shape.num_dims() - 1]), host.operands(), gradient.as_ref());

        let content = [found.query, found.key, found.value].map(|values| Some((values, shape.clone())));
        let position = [found.position_key, found.position_query].map(|values| values.zip(position_shape.clone()));
        for (parent, gradient) in ops.parents.into_iter().zip(content.into_iter().chain(position)) {
            if let (Some(node), Some((values, shape))) = (parent, gradient) {
                grads.register::<B>(node.id, B::tensor(values, shape));
            }
        }
    }
}

impl<B: FusedAttention + HostBackend, C: CheckpointStrategy> FusedAttention for Autodiff<B, C> {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        position_key: Option<FloatTensor<Self>>,
        position_query: Option<FloatTensor<Self>>,
        plan: FusedPlan,
    ) -> FloatTensor<Self> {
        // A missing table stands in as a parent that nobody asks the gradient of: the query, for which that slot stays empty.
        let table_node = |table: &Option<FloatTensor<Self>>| table.as_ref().unwrap_or(&query).node();
        let nodes = [query.node(), key.node(), value.node(), table_node(&position_key), table_node(&position_query)];
        let [query, key, value] = [query, key, value].map(|tensor| tensor.into_primitive());
        let [position_key, position_query] =
            [position_key, position_query].map(|table| table.map(|t| t.into_primitive()));
        let run = |state: State<FloatTensor<B>>| {
            let State { query, key, value, position_key, position_query, plan } = state;
            B::fused_attention(query, key, value, position_key, position_query, plan)
        };
        let state = State { query, key, value, position_key, position_query, plan };
        match FusedAttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state.clone(), run(state)),
            OpsKind::UnTracked(prep) => prep.finish(run(state)),
        }
    }
}
