//! Two linear maps with an activation between: a feed-forward network, or one expert of a Switch layer.

use burn::{Tensor, module::Module, tensor::DType};

use super::linear::{Linear, LinearRole};
use crate::config::Activation;

/// Two linear maps with an activation between.
#[derive(Module, Debug)]
pub struct Mlp {
    widen: Linear,
    narrow: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// Puts the maps to the inner width and back together.
    pub(crate) fn new(widen: Linear, narrow: Linear, activation: Activation) -> Self {
        Self { widen, narrow, activation }
    }

    /// The linear maps.
    pub(crate) fn linears(&mut self) -> [(LinearRole, &mut Linear); 2] {
        [(LinearRole::Intermediate, &mut self.widen), (LinearRole::Output, &mut self.narrow)]
    }

    /// The element type of its parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.widen.dtype()
    }

    /// The first map and the activation.
    ///
    /// # Shapes
    /// - states: [.., hidden]
    /// - output: [.., inner]
    pub fn inner<const D: usize>(&self, states: Tensor<D>) -> Tensor<D> {
        self.widen.forward_activated(states, self.activation)
    }

    /// The second map.
    ///
    /// # Shapes
    /// - inner: [.., inner]
    /// - output: [.., hidden]
    pub fn outer<const D: usize>(&self, inner: Tensor<D>) -> Tensor<D> {
        self.narrow.forward(inner)
    }
}
