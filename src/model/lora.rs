//! A low-rank change of a linear map (LoRA, Hu and others, ICLR 2022, section 4.1).

use burn::{
    Tensor,
    module::{Module, Param},
    tensor::{DType, Device, TensorData},
};

use crate::kernels::{affine, matmul};

/// s (x A) B beside x W + b, so that A and B can be trained while W stays as it is.
///
/// The two narrow products cost little, and W needs no gradient: it is never composed with A B. burn's own adapters
/// (`burn::module::reparam`) compose it in every pass.
#[derive(Module, Debug)]
pub struct LowRank {
    /// A, [inputs, rank].
    down: Param<Tensor<2>>,
    /// B, [rank, outputs].
    up: Param<Tensor<2>>,
    /// s.
    scale: f64,
}

impl LowRank {
    /// A change of a map of `[inputs, outputs]`, in a type on a device. It is none at first: B is zero.
    ///
    /// # Panics
    /// If `down` has not `inputs * rank` values, A row by row.
    pub(crate) fn new(
        [inputs, outputs]: [usize; 2],
        (device, dtype): (&Device, DType),
        down: Vec<f32>,
        rank: usize,
        scale: f64,
    ) -> Self {
        let parameter = |values: Vec<f32>, shape: [usize; 2]| {
            let data = TensorData::new(values, shape).convert_dtype(dtype);
            Param::from_tensor(Tensor::from_data(data, (device, dtype)))
        };
        let (down, up) = (parameter(down, [inputs, rank]), parameter(vec![0.0; rank * outputs], [rank, outputs]));
        Self { down, up, scale }
    }

    /// # Shapes
    /// - x: [.., inputs]
    /// - output: [.., outputs]
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        affine(affine(x, self.down.val(), None) * self.scale, self.up.val(), None)
    }

    /// s A B, [inputs, outputs].
    pub(super) fn product(&self) -> Tensor<2> {
        matmul(self.down.val(), self.up.val()) * self.scale
    }
}
