//! A training step as a user of the crate writes it: forward, loss, backward, clipping of the global norm, AdamW.

use burn::{
    Tensor,
    module::{Module, ModuleVisitor, Param, ParamGroup},
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::Int,
};
use deberta_burn::{
    DebertaModel, ModelInput,
    heads::{SequenceClassification, SequenceLabels},
};

const LEARNING_RATE: f64 = 1e-5;
const MAX_GRADIENT_NORM: f32 = 1.0;

/// A text classifier in training.
pub struct Trainer {
    /// None during a step only: the optimiser updates in place what nobody else holds.
    model: Option<SequenceClassification<DebertaModel>>,
    optimizer: ModuleOptimizer,
}

impl Trainer {
    /// Weight decay 0.01, but none of biases and LayerNorms.
    pub fn new(model: SequenceClassification<DebertaModel>) -> Self {
        let decayed = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01);
        let free = decayed.clone().with_weight_decay(0.0);
        let group = ParamGroup::from_any_regexes(vec![r"bias$", r"(gamma|beta)$"]).expect("valid patterns");
        let optimizer = decayed.init().with_group(group, free.build(), None);
        Self { model: Some(model), optimizer }
    }

    /// One step towards `classes`, [batch]; the loss before it.
    pub fn step(&mut self, input: ModelInput, classes: Tensor<1, Int>) -> f32 {
        let model = self.model.take().expect("every step puts it back");
        let loss = model.loss(model.forward(input), SequenceLabels::Classes(classes));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let gradients = clip(&model, gradients);
        self.model = Some(self.optimizer.step(LEARNING_RATE, model, gradients));
        loss.into_scalar()
    }
}

/// Scales all gradients by one factor, so that their common norm is at most [`MAX_GRADIENT_NORM`].
fn clip<M: Module>(module: &M, gradients: GradientsParams) -> GradientsParams {
    let mut squares = SumOfSquares { gradients: &gradients, sum: 0.0 };
    module.visit(&mut squares);
    let norm = squares.sum.sqrt();
    if norm <= MAX_GRADIENT_NORM {
        return gradients;
    }
    let mut scale = Scale { gradients, factor: MAX_GRADIENT_NORM / norm };
    module.visit(&mut scale);
    scale.gradients
}

struct SumOfSquares<'a> {
    gradients: &'a GradientsParams,
    sum: f32,
}

impl ModuleVisitor for SumOfSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.sum += gradient.square().sum().into_scalar::<f32>();
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}
