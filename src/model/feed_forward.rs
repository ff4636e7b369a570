//! The blocks every encoder layer shares, DeBERTa's and RoBERTa's: feed-forward network and residual output.

use burn::{Tensor, module::Module, nn::LayerNorm, tensor::DType};

use crate::{
    config::Activation,
    kernels::{
        cpu::residual::{ResidualNorm, residual_norm},
        host_serves,
    },
    model::{dropout::Dropout, init::Init, linear::Linear},
};

/// LayerNorm( dropout(W x + b) + residual ): how attention and feed-forward rejoin the stream (post-LayerNorm).
#[derive(Module, Debug)]
pub struct ResidualOutput {
    dense: Linear,
    layer_norm: LayerNorm,
    dropout: Dropout,
    /// Of the LayerNorm, which keeps it to itself.
    #[module(skip)]
    epsilon: f64,
}

impl ResidualOutput {
    pub(crate) fn new(init: &Init<'_>, input: usize, output: usize, dropout: f64) -> Self {
        Self {
            dense: init.linear(input, output),
            layer_norm: init.layer_norm(output),
            dropout: Dropout::new(dropout),
            epsilon: init.epsilon,
        }
    }

    pub(crate) fn linear(&mut self) -> &mut Linear {
        &mut self.dense
    }

    /// # Shapes
    /// - states: [batch, length, input]
    /// - residual, output: [batch, length, output]
    pub fn forward(&self, states: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let states = self.dense.forward(states);
        let (device, LayerNorm { gamma, beta, .. }) = (states.device(), &self.layer_norm);
        match beta {
            Some(beta) if host_serves(&device, states.dtype()) => {
                let plan = ResidualNorm { epsilon: self.epsilon as f32, dropout: self.dropout.mask(&device) };
                residual_norm(states, residual, gamma.val(), beta.val(), plan)
            }
            _ => self.layer_norm.forward(self.dropout.forward(states) + residual),
        }
    }
}

/// Two linear maps with an activation between, and the residual around them.
#[derive(Module, Debug)]
pub struct FeedForward {
    intermediate: Linear,
    output: ResidualOutput,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    pub(crate) fn new(init: &Init<'_>, hidden: usize, inner: usize, activation: Activation, dropout: f64) -> Self {
        Self {
            intermediate: init.linear(hidden, inner),
            output: ResidualOutput::new(init, inner, hidden, dropout),
            activation,
        }
    }

    /// The linear maps: to the inner width and back.
    pub(crate) fn linears(&mut self) -> [&mut Linear; 2] {
        [&mut self.intermediate, &mut self.output.dense]
    }

    /// The element type of its parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.intermediate.dtype()
    }

    /// # Shapes
    /// - states, output: [batch, length, hidden]
    pub fn forward(&self, states: Tensor<3>) -> Tensor<3> {
        let inner = self.intermediate.forward_activated(states.clone(), self.activation);
        self.output.forward(inner, states)
    }
}
