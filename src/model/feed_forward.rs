//! The blocks every encoder layer shares, DeBERTa's and RoBERTa's: feed-forward network and residual output.

use burn::{Tensor, module::Module, nn::LayerNorm, tensor::DType};

use crate::{
    config::{Activation, SwitchConfig},
    kernels::{ResidualNorm, kernels_serve, residual_norm},
    model::{
        context::Stream,
        dropout::Dropout,
        init::Init,
        linear::{Linear, LinearRole},
        mlp::Mlp,
        switch::{RoutedTokens, SwitchNetwork},
    },
};

/// LayerNorm( dropout(x) + residual ), in the type of the residual: how a block rejoins the stream (post-LayerNorm).
#[derive(Module, Debug)]
pub struct Residual {
    layer_norm: LayerNorm,
    dropout: Dropout,
    /// Of the LayerNorm, which keeps it to itself.
    #[module(skip)]
    epsilon: f64,
}

impl Residual {
    fn new(init: &Init<'_>, width: usize, dropout: f64) -> Self {
        Self { layer_norm: init.layer_norm(width), dropout: Dropout::new(dropout), epsilon: init.epsilon }
    }

    /// # Shapes
    /// - states, residual, output: [batch, length, width]
    pub fn forward(&self, states: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let (device, dtype) = (states.device(), residual.dtype());
        let LayerNorm { gamma, beta, .. } = &self.layer_norm;
        match beta {
            Some(beta) if kernels_serve(&device, dtype) => {
                let plan = ResidualNorm { epsilon: self.epsilon as f32, dropout: self.dropout.mask(&device) };
                residual_norm(states, residual, gamma.val(), beta.val(), plan)
            }
            _ => self.layer_norm.forward(self.dropout.forward(states.cast(dtype)) + residual),
        }
    }
}

/// A linear map and the residual around its block: how attention ends.
#[derive(Module, Debug)]
pub struct ResidualOutput {
    dense: Linear,
    residual: Residual,
}

impl ResidualOutput {
    pub(crate) fn new(init: &Init<'_>, input: usize, output: usize, dropout: f64) -> Self {
        Self { dense: init.linear(input, output), residual: Residual::new(init, output, dropout) }
    }

    pub(crate) fn linear(&mut self) -> &mut Linear {
        &mut self.dense
    }

    /// # Shapes
    /// - states: [batch, length, input]
    /// - residual, output: [batch, length, output]
    pub fn forward(&self, states: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.residual.forward(self.dense.forward(states), residual)
    }
}

/// What a feed-forward block computes from the stream.
#[allow(clippy::large_enum_variant, reason = "a layer has one, and most are the larger one")]
#[derive(Module, Debug)]
pub enum Network {
    /// One network for all tokens.
    Dense(Mlp),
    /// Several, of which each token passes one.
    Switch(SwitchNetwork),
}

/// A network, or a choice among several, and the residual around it.
#[derive(Module, Debug)]
pub struct FeedForward {
    network: Network,
    residual: Residual,
}

impl FeedForward {
    pub(crate) fn new(
        init: &Init<'_>,
        [hidden, inner]: [usize; 2],
        activation: Activation,
        dropout: f64,
        switch: Option<&SwitchConfig>,
    ) -> Self {
        let network = match switch {
            None => Network::Dense(Mlp::new(init.linear(hidden, inner), init.linear(inner, hidden), activation)),
            Some(switch) => Network::Switch(SwitchNetwork::new(init, [hidden, inner], activation, switch)),
        };
        Self::of(network, init, hidden, dropout)
    }

    /// Puts a residual around a network.
    pub(super) fn of(network: Network, init: &Init<'_>, hidden: usize, dropout: f64) -> Self {
        Self { network, residual: Residual::new(init, hidden, dropout) }
    }

    /// The linear maps that tokens pass: to the inner width and back, of each expert.
    pub(crate) fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
        match &mut self.network {
            Network::Dense(network) => network.linears().into(),
            Network::Switch(network) => network.linears(),
        }
    }

    /// The element type of its parameters.
    pub(crate) fn dtype(&self) -> DType {
        match &self.network {
            Network::Dense(network) => network.dtype(),
            Network::Switch(network) => network.dtype(),
        }
    }

    /// # Shapes
    /// - output: [batch, length, hidden]
    pub(crate) fn forward(&self, states: Stream, tokens: RoutedTokens<'_>) -> Tensor<3> {
        let residual = states.residual.clone();
        let output = match &self.network {
            Network::Dense(network) => network.outer(network.inner(states.input)),
            Network::Switch(network) => network.forward(states, tokens),
        };
        self.residual.forward(output, residual)
    }
}
