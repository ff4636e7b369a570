//! One vector a text (`ContextPooler` in the reference).

use burn::{Tensor, module::Module};

use crate::{
    config::Activation,
    model::{dropout::Dropout, init::Init, linear::Linear},
};

/// act( dense( dropout( state of the first token ) ) )
#[derive(Module, Debug)]
pub struct Pooler {
    dense: Linear,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Pooler {
    pub(crate) fn new(init: &Init<'_>, width: usize, dropout: f64, activation: Activation) -> Self {
        Self { dense: init.linear(width, width), dropout: Dropout::new(dropout), activation }
    }

    /// # Shapes
    /// - hidden_states: [batch, length, hidden]
    /// - output: [batch, hidden]
    pub fn forward(&self, hidden_states: Tensor<3>) -> Tensor<2> {
        let first = hidden_states.narrow(1, 0, 1).squeeze_dim(1);
        self.activation.forward(self.dense.forward(self.dropout.forward(first)))
    }
}
