//! A class for each token (`DebertaV2ForTokenClassification` in the reference).

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Int},
};

use super::{HeadSettings, loss};
use crate::{
    config::ModelConfig,
    model::{Backbone, dropout::Dropout, input::ModelInput, linear::Linear},
};

/// Dropout -> linear, with a bias, on every state.
#[derive(Module, Debug)]
pub struct TokenClassification {
    pub(super) backbone: Backbone,
    classifier: Linear,
    dropout: Dropout,
}

impl TokenClassification {
    /// A fresh head on a fresh backbone, with as many outputs as the configuration has labels.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let settings = HeadSettings::from(config);
        Self {
            backbone: Backbone::new(config, device),
            classifier: settings.classifier(config.task().num_labels(), device),
            dropout: Dropout::new(settings.classifier_dropout),
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
    ///
    /// # Panics
    /// On CPUs, if a label is none of the model's.
    pub fn loss(&self, logits: Tensor<3>, labels: Tensor<2, Int>) -> Tensor<1> {
        loss::cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))
    }
}
