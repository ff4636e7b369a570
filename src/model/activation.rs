//! The arithmetic of activation functions.

use burn::tensor::{Tensor, activation};

use crate::{
    config::Activation,
    kernels::{can_fuse, cpu},
};

impl Activation {
    /// Applies the function to each element.
    ///
    /// # Shapes
    /// - input, output: any, the same
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluNew => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
            Self::Tanh => x.tanh(),
        }
    }
}

/// x/2 (1 + erf(x / sqrt 2)). Not burn's own `gelu`, whose derivative is that of the tanh approximation on some backends (off
/// by up to 9e-4) while its forward pass is exact.
fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if can_fuse(&x.device(), x.dtype()) {
        return cpu::gelu::gelu(x);
    }
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
    x * phi
}
