//! A class for each token (`DebertaV2ForTokenClassification` in the reference).

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Int},
};

use super::{Backbone, BackboneConfig, InferenceModel, loss};
use crate::model::{attention::PreparedPositions, dropout::Dropout, input::ModelInput, linear::Linear};

/// Dropout -> linear, with a bias, on every state.
#[derive(Module, Debug)]
pub struct TokenClassification<B: Backbone> {
    backbone: B,
    classifier: Linear,
    dropout: Dropout,
}

impl<B: Backbone> TokenClassification<B> {
    /// A fresh head on a fresh backbone, with as many outputs as the configuration has labels.
    pub fn new(config: &B::Config, device: &Device) -> Self {
        let settings = config.head_settings();
        Self {
            backbone: config.backbone(device),
            classifier: settings.init(device).linear(settings.hidden_size, config.task().num_labels()),
            dropout: Dropout::new(settings.token_dropout),
        }
    }

    /// # Shapes
    /// - output: logits, [batch, length, labels]
    pub fn forward(&self, input: ModelInput) -> Tensor<3> {
        self.classifier.forward(self.dropout.forward(self.backbone.forward(input).last_hidden_state))
    }

    /// Mean cross entropy over the tokens with a label that is not negative.
    ///
    /// # Shapes
    /// - logits: [batch, length, labels]
    /// - labels: [batch, length]
    /// - output: \[1\]
    pub fn loss(&self, logits: Tensor<3>, labels: Tensor<2, Int>) -> Tensor<1> {
        loss::cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))
    }
}

impl<B: Backbone> InferenceModel for TokenClassification<B> {
    type Output = Tensor<3>;

    fn forward(&self, input: ModelInput) -> Tensor<3> {
        TokenClassification::forward(self, input)
    }

    fn prepare_positions(&self, length: usize) -> Option<PreparedPositions> {
        self.backbone.prepare_positions(length)
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        self.backbone.linears()
    }
}
