//! A training step as a user of the crate writes it: forward, loss, backward, clipping of the global norm, AdamW.

use burn::{Tensor, optim::GradientsParams, tensor::Int};
use deberta_burn::{
    DebertaModel, ModelInput,
    heads::{SequenceClassification, SequenceLabels},
    training::{AdamW, AdamWConfig, ParameterGroups},
};

const LEARNING_RATE: f64 = 1e-5;

/// A text classifier in training.
pub struct Trainer {
    /// None during a step only: the optimiser updates in place what nobody else holds.
    model: Option<SequenceClassification<DebertaModel>>,
    optimizer: AdamW,
}

impl Trainer {
    /// Weight decay 0.01, but none of biases and LayerNorms.
    pub fn new(model: SequenceClassification<DebertaModel>) -> Self {
        let config = AdamWConfig { epsilon: 1e-8, ..AdamWConfig::default() };
        let groups = ParameterGroups { layers: 12, layer_decay: 1.0 };
        Self { model: Some(model), optimizer: AdamW::new(config, groups) }
    }

    /// One step towards `classes`, [batch]; the loss before it.
    pub fn step(&mut self, input: ModelInput, classes: Tensor<1, Int>) -> f32 {
        let model = self.model.take().expect("every step puts it back");
        let loss = model.loss(model.forward(input), SequenceLabels::Classes(classes));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(model, gradients, LEARNING_RATE).0);
        loss.into_scalar()
    }
}
