//! Activation functions, as `hidden_act` names them.

use serde::{Deserialize, Serialize};

/// An activation function of `config.json`, by its names in transformers (`ACT2FN` in `activations.py`). Functions with
/// parameters of their own (`prelu`, `xielu`) are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x Phi(x), with the exact Gaussian distribution function.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// GELU, no less than -10 and no more than 10.
    #[serde(rename = "gelu_10")]
    Gelu10,
    /// GELU's tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_python_tanh", alias = "gelu_fast", alias = "gelu_accurate")]
    GeluNew,
    /// GELU's sigmoid approximation, x sigmoid(1.702 x).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)^2.
    Relu2,
    /// max(x, 0), no more than 6.
    Relu6,
    /// x, or x/100 below 0.
    LeakyRelu,
    /// x sigmoid(x).
    #[serde(alias = "swish")]
    Silu,
    /// x tanh(ln(1 + e^x)).
    Mish,
    /// x clamp(x/6 + 1/2, 0, 1).
    Hardswish,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// x itself.
    Linear,
}
