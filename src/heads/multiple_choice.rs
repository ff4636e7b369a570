//! One of several continuations (`DebertaV2ForMultipleChoice` in the reference; it has none for v1, this serves both).

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Int},
};

use super::{HeadSettings, loss};
use crate::{
    config::ModelConfig,
    model::{Backbone, Pooler, dropout::Dropout, input::ModelInput, linear::Linear},
};

/// Pooler -> dropout -> linear to one score, for each choice by itself. RoBERTa's pooler is that of its bare model, without
/// dropout in front of it.
#[derive(Module, Debug)]
pub struct MultipleChoice {
    backbone: Backbone,
    pooler: Pooler,
    classifier: Linear,
    dropout: Dropout,
}

impl MultipleChoice {
    /// A fresh head on a fresh backbone.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let settings = HeadSettings::of_multiple_choice(config);
        Self {
            backbone: Backbone::new(config, device),
            pooler: settings.pooler(device),
            classifier: settings.classifier(1, device),
            dropout: Dropout::new(settings.classifier_dropout),
        }
    }

    /// The model below the head, to be changed.
    pub(crate) fn backbone_mut(&mut self) -> &mut Backbone {
        &mut self.backbone
    }

    /// Scores every choice.
    ///
    /// # Shapes
    /// - input: [batch * choices, length], a question's choices one after the other
    /// - output: logits, [batch, choices]
    ///
    /// # Panics
    /// If the number of rows is no multiple of `choices`.
    pub fn forward(&self, input: ModelInput, choices: usize) -> Tensor<2> {
        let states = self.backbone.forward(input).last_hidden_state;
        let scores = self.classifier.forward(self.dropout.forward(self.pooler.forward(states)));
        let rows = scores.dims()[0];
        scores.reshape([rows / choices, choices])
    }

    /// Cross entropy against the right choice, \[batch\].
    ///
    /// # Shapes
    /// - logits: [batch, choices]
    /// - output: \[1\]
    ///
    /// # Panics
    /// On CPUs, if a choice is none of them.
    pub fn loss(&self, logits: Tensor<2>, choice: Tensor<1, Int>) -> Tensor<1> {
        loss::cross_entropy(logits, choice)
    }
}
