//! The linear map of inference: weights are laid out for products once. A plain product lays them out in every call, which for
//! a short text costs as much as the multiplications.

use std::sync::Arc;

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
};

use super::{
    backend::HostBackend,
    matrix::Matrix,
    operation::{Operation, apply},
    panels::{Panels, Start},
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
        let mut shape = tensors[0].shape();
        let [inputs, outputs] = self.weight.shape();
        let (rows, last) = (shape.num_elements() / inputs, shape.num_dims() - 1);
        shape[last] = outputs;
        let tensors = tensors.map(B::values);
        let x = Matrix::new(tensors[0].as_ref(), 0, rows, inputs, inputs);
        let start = tensors.get(1).map_or(Start::Zero, |bias| Start::Bias(bias.as_ref()));
        let mut output = vec![0.0; rows * outputs];
        self.weight.parallel_product(x, start, &mut output);
        B::tensor(output, shape)
    }

    fn forward_keeping<B: HostBackend>(&self, _: [FloatTensor<B>; N]) -> (FloatTensor<B>, ()) {
        unreachable!("weights are laid out on devices without gradients only")
    }

    fn backward<B: HostBackend>(&self, _: (), _: FloatTensor<B>, _: [bool; N]) -> [Option<FloatTensor<B>>; N] {
        unreachable!("there was no forward pass with gradients")
    }
}
