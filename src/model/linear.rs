//! The linear map of every layer and head.

use std::sync::Arc;

use burn::{
    Tensor,
    module::{Module, Param},
    tensor::{DType, Device, TensorData, module::linear},
};

use crate::kernels::{
    cpu::{
        self,
        packed::{self, PackedWeight, WeightType},
    },
    host_serves,
};

/// Where in a layer a linear map stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearRole {
    /// Projects queries, keys, values, or the context.
    Attention,
    /// Belongs to the feed-forward network.
    FeedForward,
}

/// x W + b.
///
/// burn's own [`Linear`](burn::nn::Linear), but for one thing: inference on a CPU lays the weight out for products once
/// ([`Prepared`](crate::model::inference::Prepared)), where a plain product does so in every call.
#[derive(Module, Debug)]
pub struct Linear {
    /// W, \[inputs, outputs\]; empty while it is packed.
    pub weight: Param<Tensor<2>>,
    /// b, \[outputs\].
    pub bias: Option<Param<Tensor<1>>>,
    /// W, laid out for products.
    #[module(skip)]
    packed: Option<Arc<dyn PackedWeight>>,
}

impl Linear {
    /// Wraps the parameters.
    pub fn new(weight: Param<Tensor<2>>, bias: Option<Param<Tensor<1>>>) -> Self {
        Self { weight, bias, packed: None }
    }

    /// # Shapes
    /// - x: [.., inputs]
    /// - output: [.., outputs]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        if let Some(weight) = &self.packed {
            return packed::linear(x, weight.clone(), bias);
        }
        let weight = self.weight.val();
        match host_serves(&x.device(), weight.dtype()) {
            true => cpu::linear::linear(x, weight, bias),
            false => linear(x, weight, bias),
        }
    }

    /// Where its parameters are.
    pub(crate) fn device(&self) -> Device {
        self.weight.lazy_device()
    }

    /// The element type of its parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.weight.val().dtype()
    }

    /// Lays the weight out for products in a type, in the place of the plain one, where the device has use for that.
    pub(crate) fn pack(&mut self, weight_type: WeightType) {
        let device = self.device();
        if self.packed.is_some() || device.is_autodiff() || !host_serves(&device, self.dtype()) {
            return;
        }
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
