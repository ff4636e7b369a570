//! The seam to burn's CPU backends: operations on their tensors.
//!
//! burn wants a trait of the backends for operations that are not its own, and an implementation for each backend and for its
//! gradients. All kernels share one such trait; a kernel is an [`Operation`] and knows none of it.

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

use std::fmt::Debug;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;
use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, DispatchTensor, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
};

pub(crate) use crate::kernels::operation::{Operation, differentiable};

/// Most tensors of an operation.
const MOST: usize = 5;

/// Runs an operation. All tensors are on one device, and that is one of the CPU's.
pub(crate) fn apply<const N: usize, const D: usize>(
    operation: impl HostOperation<N>,
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
    fn run<O: HostOperation<N>, const N: usize>(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        e: FloatTensor<Self>,
        operation: O,
    ) -> FloatTensor<Self>;
}

macro_rules! run {
    ($tensors:ident, $operation:ident => $result:expr) => {
        fn run<O: HostOperation<N>, const N: usize>(
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            c: FloatTensor<Self>,
            d: FloatTensor<Self>,
            e: FloatTensor<Self>,
            $operation: O,
        ) -> FloatTensor<Self> {
            let $tensors = first(&[a, b, c, d, e]);
            $result
        }
    };
}

macro_rules! implement {
    ($($backend:ty),*) => {
        /// An operation of every CPU backend, in f32.
        pub(crate) trait HostOperation<const N: usize>:
            $(Operation<$backend, N> +)* Clone + Debug + Send + 'static
        {
        }

        impl<const N: usize, O: $(Operation<$backend, N> +)* Clone + Debug + Send + 'static> HostOperation<N> for O {}

        $(
            impl HostOperations for $backend {
                run!(tensors, operation => Operation::<Self, N>::forward(&operation, tensors));
            }

            impl<C: CheckpointStrategy> HostOperations for Autodiff<$backend, C> {
                run!(tensors, operation => differentiable::<$backend, C, O, N>(operation, tensors));
            }
        )*
    };
}

#[cfg(all(feature = "flex", feature = "ndarray"))]
implement!(Flex, NdArray);
#[cfg(all(feature = "flex", not(feature = "ndarray")))]
implement!(Flex);
#[cfg(all(feature = "ndarray", not(feature = "flex")))]
implement!(NdArray);
#[cfg(not(any(feature = "flex", feature = "ndarray")))]
implement!();
