//! The seam to burn: operations on the tensors of the CPU backends, with backward passes of their own.
//!
//! burn wants a trait of the backends for operations that are not its own, and an implementation for each backend and for its
//! gradients. All kernels share one such trait; a kernel is an [`Operation`] and knows none of it.

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

use std::{fmt::Debug, marker::PhantomData};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, DispatchTensor,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
};

use super::backend::HostBackend;

/// An operation on `N` tensors in host memory, in f32. Its value holds whatever it knows beside them.
pub(crate) trait Operation<const N: usize>: Clone + Debug + Send + 'static {
    /// What the forward pass leaves for the backward pass.
    type Kept<B: HostBackend>: Clone + Debug + Send + 'static;

    /// The output.
    fn forward<B: HostBackend>(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B>;

    /// The output, and what the backward pass needs for the gradients of those that are `wanted`.
    fn forward_keeping<B: HostBackend>(
        &self,
        tensors: [FloatTensor<B>; N],
        wanted: [bool; N],
    ) -> (FloatTensor<B>, Self::Kept<B>);

    /// The gradients of the tensors from that of the output: at least of those that are `wanted`.
    fn backward<B: HostBackend>(
        &self,
        kept: Self::Kept<B>,
        gradient: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N];
}

/// Most tensors of an operation.
const MOST: usize = 5;

/// Runs an operation. All tensors are on one device, and that is one of the CPU's.
pub(crate) fn apply<const N: usize, const D: usize>(
    operation: impl Operation<N>,
    tensors: [DispatchTensor; N],
) -> Tensor<D> {
    const { assert!(N > 0 && N <= MOST) };
    // The trait takes a fixed number of tensors: those beyond `N` are the first again, and nobody reads them.
    let [a, b, c, d, e] = std::array::from_fn(|index| tensors.get(index).unwrap_or(&tensors[0]).clone());
    Tensor::from_dispatch(Dispatch::run(a, b, c, d, e, operation))
}

/// The tensors that an operation reads.
fn first<F: Clone, const N: usize>(tensors: &[F; MOST]) -> [F; N] {
    std::array::from_fn(|index| tensors[index].clone())
}

/// The one operation that burn knows.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Autodiff)]
trait HostOperations: Backend {
    fn run<O: Operation<N>, const N: usize>(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        e: FloatTensor<Self>,
        operation: O,
    ) -> FloatTensor<Self>;
}

macro_rules! implement {
    ($backend:ty) => {
        impl HostOperations for $backend {
            fn run<O: Operation<N>, const N: usize>(
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                c: FloatTensor<Self>,
                d: FloatTensor<Self>,
                e: FloatTensor<Self>,
                operation: O,
            ) -> FloatTensor<Self> {
                operation.forward::<Self>(first(&[a, b, c, d, e]))
            }
        }
    };
}

#[cfg(feature = "flex")]
implement!(Flex);
#[cfg(feature = "ndarray")]
implement!(NdArray);

impl<B: HostBackend + HostOperations, C: CheckpointStrategy> HostOperations for Autodiff<B, C> {
    fn run<O: Operation<N>, const N: usize>(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        e: FloatTensor<Self>,
        operation: O,
    ) -> FloatTensor<Self> {
        let tensors: [_; N] = first(&[a, b, c, d, e]);
        let wanted = tensors.each_ref().map(|tensor| tensor.is_tracked());
        let nodes = tensors.each_ref().map(|tensor| tensor.node());
        let tensors = tensors.map(|tensor| tensor.into_primitive());
        match OperationBackward::<O, N>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (output, kept) = operation.forward_keeping::<B>(tensors, wanted);
                prep.finish((operation, kept), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(operation.forward::<B>(tensors)),
        }
    }
}

/// The backward pass of an operation as burn sees it.
#[derive(Debug)]
struct OperationBackward<O, const N: usize>(PhantomData<O>);

impl<B: HostBackend, O: Operation<N>, const N: usize> Backward<B, N> for OperationBackward<O, N> {
    type State = (O, O::Kept<B>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (operation, kept) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = operation.backward::<B>(kept, gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
