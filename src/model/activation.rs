//! The arithmetic of activation functions.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::tensor::{DType, Tensor, activation};

use super::precision::in_f32;
use crate::{
    config::Activation,
    kernels::{self, host_widens, kernels_serve},
};

impl Activation {
    /// Applies the function to each element.
    ///
    /// # Shapes
    /// - input, output: any, the same
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::Gelu10 => gelu(x).clamp(-10.0, 10.0),
            Self::GeluNew => activation::gelu_approximate(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Relu => activation::relu(x),
            Self::Relu2 => activation::relu(x).square(),
            Self::Relu6 => activation::relu6(x),
            Self::LeakyRelu => activation::leaky_relu(x, 0.01),
            Self::Silu => activation::silu(x),
            Self::Mish => activation::mish(x),
            Self::Hardswish => activation::hard_swish(x),
            Self::Sigmoid => activation::sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Linear => x,
        }
    }
}

/// x/2 (1 + erf(x / sqrt 2)). Not burn's own `gelu`, whose derivative is that of the tanh approximation on some backends (off
/// by up to 9e-4) while its forward pass is exact.
fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (device, dtype) = (x.device(), x.dtype());
    if host_widens(&device, dtype) {
        return gelu(x.cast(DType::F32)).cast(dtype);
    }
    if kernels_serve(&device, dtype) {
        return kernels::gelu(x);
    }
    if !device.is_autodiff() {
        return gelu_and_slope(in_f32(x)).0.cast(dtype);
    }
    // The slope is computed with the value, and is all that the backward pass keeps; of the formula's primitives each would
    // keep a tensor of its own. What it is multiplied with is zero, and has the gradient of x.
    let (value, slope) = gelu_and_slope(in_f32(x.clone().inner()));
    let [value, slope] = [value, slope].map(|values| Tensor::from_inner(values.cast(dtype)));
    value + (x.clone() - x.detach()) * slope
}

/// x P(x) and its derivative P(x) + x p(x), with the normal distribution P and its density p.
fn gelu_and_slope<const D: usize>(x: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let phi = (x.clone() * FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
    let density = (x.clone().square() * -0.5).exp() * (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
    (x.clone() * phi.clone(), phi + x * density)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::device;

    /// From the formulas of transformers' `activations.py`, in f64.
    const EXPECTED: [(&str, [f64; 4]); 20] = [
        ("gelu", [-0.004049694095, -0.1542687694, 0.3457312306, 11.0]),
        ("gelu_python", [-0.004049694095, -0.1542687694, 0.3457312306, 11.0]),
        ("gelu_10", [-0.004049694095, -0.1542687694, 0.3457312306, 10.0]),
        ("gelu_new", [-0.003637392082, -0.1542859902, 0.3457140098, 11.0]),
        ("gelu_pytorch_tanh", [-0.003637392082, -0.1542859902, 0.3457140098, 11.0]),
        ("gelu_python_tanh", [-0.003637392082, -0.1542859902, 0.3457140098, 11.0]),
        ("gelu_fast", [-0.003637392082, -0.1542859902, 0.3457140098, 11.0]),
        ("gelu_accurate", [-0.003637392082, -0.1542859902, 0.3457140098, 11.0]),
        ("quick_gelu", [-0.01807130971, -0.1496115634, 0.3503884366, 10.99999992]),
        ("relu", [0.0, 0.0, 0.5, 11.0]),
        ("relu2", [0.0, 0.0, 0.25, 121.0]),
        ("relu6", [0.0, 0.0, 0.5, 6.0]),
        ("leaky_relu", [-0.03, -0.005, 0.5, 11.0]),
        ("silu", [-0.1422776195, -0.1887703344, 0.3112296656, 10.99981628]),
        ("swish", [-0.1422776195, -0.1887703344, 0.3112296656, 10.99981628]),
        ("mish", [-0.1456474613, -0.2207437747, 0.3752452113, 10.99999999]),
        ("hardswish", [-0.0, -0.2083333333, 0.2916666667, 11.0]),
        ("sigmoid", [0.04742587318, 0.3775406688, 0.6224593312, 0.9999832986]),
        ("tanh", [-0.9950547537, -0.4621171573, 0.4621171573, 0.9999999994]),
        ("linear", [-3.0, -0.5, 0.5, 11.0]),
    ];

    #[test]
    fn every_name_has_the_reference_values() {
        for (name, expected) in EXPECTED {
            let function: Activation = serde_json::from_value(name.into()).expect(name);
            for device in ["flex", "ndarray"].map(|name| device(name).unwrap()) {
                let found = function.forward(Tensor::<1>::from_floats([-3.0, -0.5, 0.5, 11.0], &device));
                for (found, expected) in found.into_data().try_to_vec::<f32>().unwrap().into_iter().zip(expected) {
                    // A few roundings of f32, and of the approximation of erf and tanh, of values up to 11.
                    assert!((f64::from(found) - expected).abs() < 2e-6 * expected.abs().max(1.0), "{name}: {found}");
                }
            }
        }
    }

    #[test]
    fn slopes_are_those_of_the_values() {
        let device = device("flex").unwrap().autodiff();
        // In f64 no kernel of the CPU serves, so that the primitives of other devices do.
        for ((name, _), dtype) in
            EXPECTED.into_iter().flat_map(|case| [DType::F32, DType::F64].map(|dtype| (case, dtype)))
        {
            let function: Activation = serde_json::from_value(name.into()).unwrap();
            // Away from the kinks.
            let x = Tensor::<1>::from_floats([-2.5, -0.7, 0.4, 1.9], &device).cast(dtype).detach().require_grad();
            let slopes = x.grad(&function.forward(x.clone()).sum().backward()).unwrap();
            let at = |shift: f64| function.forward(x.clone().inner() + shift);
            let step = 1e-2;
            let expected = (at(step) - at(-step)) / (2.0 * step);
            // The central difference errs by step^2/6 times the third derivative, which stays below 6 for these functions.
            let difference = (slopes - expected).abs().max().into_scalar::<f32>();
            assert!(difference < 1.5e-4, "{name} in {dtype:?}: {difference}");
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        let error = serde_json::from_value::<Activation>("prelu".into()).unwrap_err().to_string();
        assert!(
            error.contains("`prelu`") && error.contains("`quick_gelu`") && error.contains("`gelu_python`"),
            "{error}"
        );
    }
}
