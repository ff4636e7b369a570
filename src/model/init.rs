//! Fresh parameters as the reference draws them: weights from N(0, initializer_range), biases zero, if nothing else is said.

use burn::{
    module::{Param, ParamId},
    nn::{Embedding, Initializer, LayerNorm, LayerNormConfig},
    tensor::{Device, Distribution, Tensor},
};

use crate::{device::drawing, model::linear::Linear};

/// Makes the layers of one model on one device. Parameters are lazy: what a checkpoint fills is never drawn.
pub(crate) struct Init<'a> {
    pub device: &'a Device,
    /// Standard deviation of weights (`initializer_range`).
    pub std: f64,
    /// Epsilon of LayerNorms (`layer_norm_eps`).
    pub epsilon: f64,
}

impl Init<'_> {
    /// Weights from N(0, std).
    pub fn normal<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        self.drawn(shape, Distribution::Normal(0.0, self.std))
    }

    /// Values of a [generator](drawing) that the devices share: the same seed gives the same model on all of them.
    fn drawn<const D: usize>(&self, shape: [usize; D], distribution: Distribution) -> Param<Tensor<D>> {
        let draw = move |device: &Device, requires_gradient: bool| {
            let values = Tensor::<D>::random(shape, distribution, &drawing(device)).into_data();
            device.memory_persistent_allocations(values, |values| {
                let tensor = Tensor::from_data(values, device);
                if requires_gradient { tensor.require_grad() } else { tensor }
            })
        };
        Param::uninitialized(ParamId::new(), draw, self.device.clone(), true, shape.into())
    }

    pub fn linear(&self, input: usize, output: usize) -> Linear {
        Linear::new(self.normal([input, output]), Some(self.zeros(output)))
    }

    pub fn linear_without_bias(&self, input: usize, output: usize) -> Linear {
        Linear::new(self.normal([input, output]), None)
    }

    /// A map as torch draws it: weights and biases from U(-1 / sqrt(width), 1 / sqrt(width)).
    pub fn uniform_linear(&self, input: usize, output: usize, width: usize) -> Linear {
        let bound = 1.0 / (width as f64).sqrt();
        let uniform = Distribution::Uniform(-bound, bound);
        Linear::new(self.drawn([input, output], uniform), Some(self.drawn([output], uniform)))
    }

    pub fn embedding(&self, rows: usize, width: usize) -> Embedding {
        Embedding { weight: self.normal([rows, width]) }
    }

    pub fn layer_norm(&self, width: usize) -> LayerNorm {
        LayerNormConfig::new(width).with_epsilon(self.epsilon).init(self.device)
    }

    /// A bias of its own.
    pub fn zeros(&self, width: usize) -> Param<Tensor<1>> {
        Initializer::Zeros.init([width], self.device)
    }
}
