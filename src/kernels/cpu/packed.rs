//! The linear map of inference: weights are laid out for products once. A plain product lays them out in every call, which for
//! a short text costs as much as the multiplications.

use std::sync::Arc;

use burn::{Tensor, backend::tensor::FloatTensor};

use super::{
    backend::HostBackend,
    linear::map_rows,
    matrix::Matrix,
    operation::{Operation, apply},
    panels::Panels,
};
use crate::isa::Isa;

/// `x weight + bias` on a host device without gradients.
///
/// # Shapes
/// - x: [.., inputs]
/// - bias: [outputs]
/// - output: [.., outputs]
pub(crate) fn linear<const D: usize>(x: Tensor<D>, weight: Arc<Panels>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let x = x.into_dispatch();
    match bias {
        Some(bias) => apply(PackedLinear { weight }, [x, bias.into_dispatch()]),
        None => apply(PackedLinear { weight }, [x]),
    }
}

/// A weight on a host device, in f32, in panels.
pub(crate) fn pack(weight: Tensor<2>) -> Panels {
    let [inputs, outputs] = weight.dims();
    let data = weight.into_data();
    let values = data.as_slice().expect("a weight in f32");
    Panels::new(Isa::in_use(), Matrix::new(values, 0, inputs, outputs, outputs))
}

/// The product with x, and a bias where there is a second tensor.
#[derive(Clone, Debug)]
struct PackedLinear {
    weight: Arc<Panels>,
}

impl<const N: usize> Operation<N> for PackedLinear {
    type Kept<B: HostBackend> = ();

    fn forward<B: HostBackend>(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B> {
        map_rows::<B>(tensors[0].clone(), &self.weight, tensors.get(1).cloned())
    }

    fn forward_keeping<B: HostBackend>(&self, _: [FloatTensor<B>; N]) -> (FloatTensor<B>, ()) {
        unreachable!("weights are laid out on devices without gradients only")
    }

    fn backward<B: HostBackend>(&self, _: (), _: FloatTensor<B>, _: [bool; N]) -> [Option<FloatTensor<B>>; N] {
        unreachable!("there was no forward pass with gradients")
    }
}
