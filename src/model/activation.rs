//! The arithmetic of activation functions.

use burn::tensor::{Tensor, activation};

use crate::{
    config::Activation,
    kernels::{cpu, host_serves},
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
    if host_serves(&x.device(), x.dtype()) {
        return cpu::gelu::gelu(x);
    }
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
    x * phi
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
        let device = device("flex").unwrap();
        for (name, _) in EXPECTED {
            let function: Activation = serde_json::from_value(name.into()).unwrap();
            // Away from the kinks.
            let x = Tensor::<1>::from_floats([-2.5, -0.7, 0.4, 1.9], &device.clone().autodiff()).require_grad();
            let slopes = x.grad(&function.forward(x.clone()).sum().backward()).unwrap();
            let at = |shift: f64| function.forward(x.clone().inner() + shift);
            let step = 1e-2;
            let expected = (at(step) - at(-step)) / (2.0 * step);
            // The central difference errs by step^2/6 times the third derivative, which stays below 6 for these functions.
            let difference = (slopes - expected).abs().max().into_scalar::<f32>();
            assert!(difference < 1.5e-4, "{name}: {difference}");
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
