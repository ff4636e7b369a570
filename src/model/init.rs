//! Fresh parameters as the reference draws them: weights from N(0, initializer_range), biases zero, if nothing else is said.

use burn::{
    module::Param,
    nn::{Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig},
    tensor::{Device, Tensor},
};

use crate::model::linear::Linear;

/// Makes the layers of one model on one device. Parameters are lazy: what a checkpoint fills is never drawn.
pub(crate) struct Init<'a> {
    pub device: &'a Device,
    /// Standard deviation of weights (`initializer_range`).
    pub std: f64,
    /// Epsilon of LayerNorms (`layer_norm_eps`).
    pub epsilon: f64,
}

impl Init<'_> {
    fn normal(&self) -> Initializer {
        Initializer::Normal { mean: 0.0, std: self.std }
    }

    pub fn linear(&self, input: usize, output: usize) -> Linear {
        Linear::new(self.weight(input, output), Some(self.zeros(output)))
    }

    pub fn linear_without_bias(&self, input: usize, output: usize) -> Linear {
        Linear::new(self.weight(input, output), None)
    }

    /// A map as torch draws it: weights and biases from U(-1 / sqrt(width), 1 / sqrt(width)).
    pub fn uniform_linear(&self, input: usize, output: usize, width: usize) -> Linear {
        let bound = 1.0 / (width as f64).sqrt();
        let uniform = Initializer::Uniform { min: -bound, max: bound };
        Linear::new(uniform.init([input, output], self.device), Some(uniform.init([output], self.device)))
    }

    fn weight(&self, input: usize, output: usize) -> Param<Tensor<2>> {
        self.normal().init([input, output], self.device)
    }

    pub fn embedding(&self, rows: usize, width: usize) -> Embedding {
        EmbeddingConfig::new(rows, width).with_initializer(self.normal()).init(self.device)
    }

    pub fn layer_norm(&self, width: usize) -> LayerNorm {
        LayerNormConfig::new(width).with_epsilon(self.epsilon).init(self.device)
    }

    /// A bias of its own.
    pub fn zeros(&self, width: usize) -> Param<Tensor<1>> {
        Initializer::Zeros.init([width], self.device)
    }
}
