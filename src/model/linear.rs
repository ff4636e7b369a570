//! The linear map of every layer and head.

use std::sync::Arc;

use burn::{
    Tensor,
    module::{Module, Param},
    tensor::{DType, Device, TensorData},
};
use serde::{Deserialize, Serialize};

use super::lora::LowRank;
use crate::{
    config::Activation,
    kernels::{
        affine_of,
        cpu::{
            packed::{self, PackedWeight, WeightType},
            product::Finish,
        },
        host_serves,
    },
};

/// What a linear map does in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinearRole {
    /// Projects queries.
    Query,
    /// Projects keys.
    Key,
    /// Projects values.
    Value,
    /// Projects what attention puts together.
    AttentionOutput,
    /// Widens states to the inner width of the feed-forward network.
    Intermediate,
    /// Takes them back from there.
    Output,
}

impl LinearRole {
    /// All of them, in the order of a layer.
    pub const ALL: [Self; 6] =
        [Self::Query, Self::Key, Self::Value, Self::AttentionOutput, Self::Intermediate, Self::Output];

    /// Whether it belongs to attention, and not to the feed-forward network.
    pub fn is_attention(self) -> bool {
        !matches!(self, Self::Intermediate | Self::Output)
    }
}

/// x W + b, in the type of x: parameters of another type are cast to it; their gradients are of their own type.
///
/// burn's own [`Linear`](burn::nn::Linear), but for three things: inference on a CPU lays the weight out for products once
/// ([`Prepared`](crate::model::inference::Prepared)), where a plain product does so in every call; training on a CPU may multiply
/// in bf16; and the map may have a low-rank change, which is trained in the place of the weight.
#[derive(Module, Debug)]
pub struct Linear {
    /// W, \[inputs, outputs\]; empty while it is packed.
    pub weight: Param<Tensor<2>>,
    /// b, \[outputs\].
    pub bias: Option<Param<Tensor<1>>>,
    lora: Option<LowRank>,
    /// W, laid out for products.
    #[module(skip)]
    packed: Option<Arc<dyn PackedWeight>>,
    /// Whether a CPU rounds what it multiplies to bf16.
    #[module(skip)]
    rounds: bool,
}

impl Linear {
    /// Wraps the parameters.
    pub fn new(weight: Param<Tensor<2>>, bias: Option<Param<Tensor<1>>>) -> Self {
        Self { weight, bias, lora: None, packed: None, rounds: false }
    }

    /// # Shapes
    /// - x: [.., inputs]
    /// - output: [.., outputs]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        if let Some(weight) = &self.packed {
            return packed::linear(x, weight.clone(), bias, Finish::Sums);
        }
        let output = affine_of(x.clone(), self.weight.val(), bias, self.rounds);
        match &self.lora {
            Some(lora) => output + lora.forward(x),
            None => output,
        }
    }

    /// activation(x W + b). The exact GELU of a weight that is laid out costs no pass of its own.
    pub(crate) fn forward_activated<const D: usize>(&self, x: Tensor<D>, activation: Activation) -> Tensor<D> {
        match (&self.packed, activation) {
            (Some(weight), Activation::Gelu) => {
                packed::linear(x, weight.clone(), self.bias.as_ref().map(Param::val), Finish::Gelu)
            }
            _ => activation.forward(self.forward(x)),
        }
    }

    /// Puts a low-rank change beside the weight, or takes it away.
    pub(crate) fn set_lora(&mut self, lora: Option<LowRank>) {
        self.lora = lora;
    }

    /// Makes a low-rank change part of the weight.
    pub(crate) fn merge_lora(&mut self) {
        if let Some(lora) = self.lora.take() {
            self.weight = Param::initialized(self.weight.id, self.weight.val() + lora.product());
        }
    }

    /// Changes whether a CPU rounds what it multiplies to bf16, in training too.
    pub(crate) fn set_rounds(&mut self, rounds: bool) {
        self.rounds = rounds;
    }

    /// Whether attention may round what this made to bf16 where a CPU is faster then: that loses no more than this has lost.
    pub(crate) fn rounds_attention(&self) -> bool {
        self.rounds || self.packed.as_ref().is_some_and(|weight| weight.weight_type().rounds_attention())
    }

    /// Where its parameters are.
    pub(crate) fn device(&self) -> Device {
        self.weight.lazy_device()
    }

    /// The element type of its parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.weight.val().dtype()
    }

    /// Lays the weight out for products in a type, in the place of the plain one, where the device has use for that. A
    /// low-rank change becomes part of the weight.
    pub(crate) fn pack(&mut self, weight_type: WeightType) {
        let device = self.device();
        if self.packed.is_some() || device.is_autodiff() || !host_serves(&device, self.dtype()) {
            return;
        }
        self.merge_lora();
        // The plain weight goes before its packed form is made, so that nobody else holds it and nothing is copied.
        let empty = Param::initialized(self.weight.id, Tensor::empty([0, 0], &device));
        let weight = std::mem::replace(&mut self.weight, empty).into_value();
        self.packed = Some(packed::pack(weight, weight_type));
    }

    /// Puts the plain weight back, rounded to the type that it was laid out in.
    pub(crate) fn unpack(&mut self) {
        if let Some(packed) = self.packed.take() {
            let device = self.device();
            let data = TensorData::new(packed.unpack(), packed.shape());
            self.weight = Param::initialized(self.weight.id, Tensor::from_data(data, &device));
        }
    }
}
