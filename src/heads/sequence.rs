//! Classes, labels or a number for a text or a pair of texts (`DebertaV2ForSequenceClassification` in the reference).

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Int},
};

use super::{Backbone, BackboneConfig, InferenceModel, loss};
use crate::model::{Pooler, attention::PreparedPositions, dropout::Dropout, input::ModelInput, linear::Linear};

/// Pooler -> dropout -> linear.
#[derive(Module, Debug)]
pub struct SequenceClassification<B: Backbone> {
    backbone: B,
    pooler: Pooler,
    classifier: Linear,
    dropout: Dropout,
}

/// What a sequence classifier is trained towards.
#[derive(Clone, Debug)]
pub enum SequenceLabels {
    /// One class a text, \[batch\]; a negative one does not count.
    Classes(Tensor<1, Int>),
    /// Each label on (1) or off (0), [batch, labels].
    MultiHot(Tensor<2>),
    /// Numbers, [batch, outputs].
    Values(Tensor<2>),
}

impl<B: Backbone> SequenceClassification<B> {
    /// A fresh head on a fresh backbone, with as many outputs as the configuration has labels.
    pub fn new(config: &B::Config, device: &Device) -> Self {
        let settings = config.head_settings();
        let init = settings.init(device);
        Self {
            backbone: config.backbone(device),
            pooler: settings.pooler(&init),
            classifier: init.linear(settings.hidden_size, config.task().num_labels()),
            dropout: Dropout::new(settings.classifier_dropout),
        }
    }

    /// # Shapes
    /// - output: logits, [batch, labels]
    pub fn forward(&self, input: ModelInput) -> Tensor<2> {
        let states = self.backbone.forward(input).last_hidden_state;
        self.classifier.forward(self.dropout.forward(self.pooler.forward(states)))
    }

    /// Cross entropy, mean binary cross entropy or mean squared error, by the kind of labels.
    ///
    /// # Shapes
    /// - logits: [batch, labels]
    /// - output: \[1\]
    pub fn loss(&self, logits: Tensor<2>, labels: SequenceLabels) -> Tensor<1> {
        match labels {
            SequenceLabels::Classes(classes) => loss::cross_entropy(logits, classes),
            SequenceLabels::MultiHot(labels) => loss::binary_cross_entropy(logits, labels).mean(),
            SequenceLabels::Values(values) => loss::mean_squared_error(logits, values),
        }
    }
}

impl<B: Backbone> InferenceModel for SequenceClassification<B> {
    type Output = Tensor<2>;

    fn forward(&self, input: ModelInput) -> Tensor<2> {
        SequenceClassification::forward(self, input)
    }

    fn prepare_positions(&self, length: usize) -> Option<PreparedPositions> {
        self.backbone.prepare_positions(length)
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        self.backbone.linears()
    }
}
