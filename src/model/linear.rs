//! The linear map of every layer and head.

use std::sync::Arc;

use burn::{
    Tensor,
    module::{Module, Param},
    tensor::{TensorData, module::linear},
};

use crate::kernels::{
    cpu::{self, packed, panels::Panels},
    host_serves,
};

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
    packed: Option<Arc<Panels>>,
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

    /// Lays the weight out for products, in the place of the plain one, where the device has use for that.
    pub(crate) fn pack(&mut self) {
        let device = self.weight.lazy_device();
        if self.packed.is_some() || device.is_autodiff() || !host_serves(&device, self.weight.val().dtype()) {
            return;
        }
        // The plain weight goes before its packed form is made, so that nobody else holds it and nothing is copied.
        let empty = Param::initialized(self.weight.id, Tensor::empty([0, 0], &device));
        let weight = std::mem::replace(&mut self.weight, empty).into_value();
        self.packed = Some(Arc::new(packed::pack(weight)));
    }

    /// Puts the plain weight back.
    pub(crate) fn unpack(&mut self) {
        if let Some(packed) = self.packed.take() {
            let device = self.weight.lazy_device();
            let data = TensorData::new(packed.unpack(), packed.shape());
            self.weight = Param::initialized(self.weight.id, Tensor::from_data(data, &device));
        }
    }
}
