//! A linear map behind the pooling, as sentence-transformers' module `Dense`.

use burn::{Tensor, module::Module, nn::Initializer, tensor::Device};

use crate::{config::Activation, model::linear::Linear};

/// act(x W + b), over vectors of texts.
#[derive(Module, Debug)]
pub(crate) struct Dense {
    linear: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Dense {
    /// A map from `inputs` numbers to `outputs`, of zeros.
    pub fn new([inputs, outputs]: [usize; 2], bias: bool, activation: Activation, device: &Device) -> Self {
        let zeros = Initializer::Zeros;
        let bias = bias.then(|| zeros.init([outputs], device));
        Self { linear: Linear::new(zeros.init([inputs, outputs], device), bias), activation }
    }

    /// Numbers of the vectors that it takes, and of those that it makes.
    pub fn widths(&self) -> [usize; 2] {
        self.linear.weight.lazy_shape().dims()
    }

    /// # Shapes
    /// - vectors: [batch, inputs]
    /// - output: [batch, outputs]
    pub fn forward(&self, vectors: Tensor<2>) -> Tensor<2> {
        self.activation.forward(self.linear.forward(vectors))
    }
}
