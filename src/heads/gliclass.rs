//! Classes that are part of the input (`GLiClassUniEncoder` with the scorer `simple` in the package gliclass).

use std::ops::Range;

use burn::{Tensor, module::Module, tensor::Device};

use super::means::means;
use crate::{
    config::{Activation, GliClassConfig},
    kernels::matmul,
    model::{Backbone, dropout::Dropout, init::Init, input::ModelInput, linear::Linear},
};

/// The dot products of a text's vector and those of labels, each through a network of its own.
#[derive(Module, Debug)]
pub struct GliClass {
    pub(super) backbone: Backbone,
    text: Projector,
    labels: Projector,
}

/// Linear -> activation -> dropout -> linear.
#[derive(Module, Debug)]
struct Projector {
    inner: Linear,
    outer: Linear,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl GliClass {
    /// A fresh model.
    pub fn new(config: &GliClassConfig, device: &Device) -> Self {
        let encoder = &config.encoder_config;
        let init = Init { device, std: config.initializer_range, epsilon: encoder.layer_norm_eps };
        let projector = || Projector {
            inner: init.linear(encoder.hidden_size, config.hidden_size),
            outer: init.linear(config.hidden_size, encoder.hidden_size),
            dropout: Dropout::new(config.dropout),
            activation: config.projector_hidden_act,
        };
        Self { backbone: Backbone::new(&encoder.clone().into(), device), text: projector(), labels: projector() }
    }

    /// The states of all tokens.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden]
    pub fn states(&self, input: ModelInput) -> Tensor<3> {
        self.backbone.forward(input).last_hidden_state
    }

    /// Logits of the labels. For each sequence, `tokens` says whose mean is the text's vector, and then whose is each label's.
    ///
    /// # Shapes
    /// - states: [batch, length, hidden]
    /// - output: [batch, labels]; any numbers where a text has fewer labels
    pub fn score(&self, states: Tensor<3>, tokens: &[Vec<Range<usize>>]) -> Tensor<2> {
        let [_, length, _] = states.dims();
        let parts = means(tokens, length, &states.device()).cast(states.dtype());
        let count = parts.dims()[1] - 1;
        let vectors = matmul(parts, states);
        let text = self.text.forward(vectors.clone().narrow(1, 0, 1));
        let labels = self.labels.forward(vectors.narrow(1, 1, count));
        matmul(labels, text.swap_dims(1, 2)).squeeze_dim(2)
    }

    /// Both steps: [`states`](Self::states), [`score`](Self::score).
    pub fn forward(&self, input: ModelInput, tokens: &[Vec<Range<usize>>]) -> Tensor<2> {
        self.score(self.states(input), tokens)
    }
}

impl Projector {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.outer.forward(self.dropout.forward(self.activation.forward(self.inner.forward(x))))
    }
}
