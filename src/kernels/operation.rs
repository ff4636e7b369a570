//! Operations with a backward pass of their own: the seam to burn's gradients, which kernels know nothing of.

use std::{fmt::Debug, marker::PhantomData};

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

/// An operation on `N` tensors of a backend. Its value holds whatever it knows beside them.
pub(crate) trait Operation<B: Backend, const N: usize>: Clone + Debug + Send + 'static {
    /// What the forward pass leaves for the backward pass.
    type Kept: Clone + Debug + Send + 'static;

    /// The output.
    fn forward(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B>;

    /// The output, and what the backward pass needs for the gradients of those that are `wanted`.
    fn forward_keeping(&self, tensors: [FloatTensor<B>; N], wanted: [bool; N]) -> (FloatTensor<B>, Self::Kept);

    /// The gradients of the tensors from that of the output: at least of those that are `wanted`.
    fn backward(&self, kept: Self::Kept, gradient: FloatTensor<B>, wanted: [bool; N]) -> [Option<FloatTensor<B>>; N];
}

/// Runs an operation on tensors that may want gradients.
pub(crate) fn differentiable<B: Backend, C: CheckpointStrategy, O: Operation<B, N>, const N: usize>(
    operation: O,
    tensors: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let wanted = tensors.each_ref().map(|tensor| tensor.is_tracked());
    let nodes = tensors.each_ref().map(|tensor| tensor.node());
    let tensors = tensors.map(|tensor| tensor.into_primitive());
    match OperationBackward::<O, N>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (output, kept) = operation.forward_keeping(tensors, wanted);
            prep.finish((operation, kept), output)
        }
        OpsKind::UnTracked(prep) => prep.finish(operation.forward(tensors)),
    }
}

/// The backward pass of an operation as burn sees it.
#[derive(Debug)]
struct OperationBackward<O, const N: usize>(PhantomData<O>);

impl<B: Backend, O: Operation<B, N>, const N: usize> Backward<B, N> for OperationBackward<O, N> {
    type State = (O, O::Kept);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (operation, kept) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = operation.backward(kept, gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
