//! Classes, labels or a number for a text or a pair of texts (`DebertaV2ForSequenceClassification` in the reference).

use burn::{
    Tensor,
    module::Module,
    tensor::{Bool, Device, Int},
};

use super::{HeadSettings, loss};
use crate::{
    config::ModelConfig,
    model::{Backbone, Pooler, dropout::Dropout, input::ModelInput, linear::Linear},
};

/// Pooler -> dropout -> linear.
#[derive(Module, Debug)]
pub struct SequenceClassification {
    pub(super) backbone: Backbone,
    pooler: Pooler,
    classifier: Linear,
    dropout: Dropout,
}

/// What a sequence classifier is trained towards.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a batch")]
pub enum SequenceLabels {
    /// One class a text, \[batch\]; a negative one does not count.
    Classes(Tensor<1, Int>),
    /// Each label on (1) or off (0), [batch, labels].
    MultiHot(Tensor<2>),
    /// Numbers, [batch, outputs].
    Values(Tensor<2>),
    /// The order of texts in lists, by one output.
    Lists(RankedLists),
}

/// Lists of texts that are ranked against each other. The longest list sets the length of all.
#[derive(Clone, Debug)]
pub struct RankedLists {
    /// The row in the batch of each place, [lists, length]; any row beyond the end of a list.
    pub rows: Tensor<2, Int>,
    /// The share of each place in the relevance of its list, [lists, length]; zero beyond its end.
    pub targets: Tensor<2>,
    /// True within a list, [lists, length].
    pub mask: Tensor<2, Bool>,
}

impl SequenceClassification {
    /// A fresh head on a fresh backbone, with as many outputs as the configuration has labels.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let settings = HeadSettings::from(config);
        Self {
            backbone: Backbone::new(config, device),
            pooler: settings.pooler(device),
            classifier: settings.classifier(config.task().num_labels(), device),
            dropout: Dropout::new(settings.classifier_dropout),
        }
    }

    /// # Shapes
    /// - output: logits, [batch, labels]
    pub fn forward(&self, input: ModelInput) -> Tensor<2> {
        let states = self.backbone.forward(input).last_hidden_state;
        self.classifier.forward(self.dropout.forward(self.pooler.forward(states)))
    }

    /// Cross entropy, mean binary cross entropy, mean squared error, or cross entropy over the texts of each list, by the kind
    /// of labels.
    ///
    /// # Shapes
    /// - logits: [batch, labels]
    /// - output: \[1\]
    ///
    /// # Panics
    /// On CPUs, if a class is none of the model's.
    pub fn loss(&self, logits: Tensor<2>, labels: SequenceLabels) -> Tensor<1> {
        match labels {
            SequenceLabels::Classes(classes) => loss::cross_entropy(logits, classes),
            SequenceLabels::MultiHot(labels) => loss::binary_cross_entropy(logits, labels).mean(),
            SequenceLabels::Values(values) => loss::mean_squared_error(logits, values),
            SequenceLabels::Lists(RankedLists { rows, targets, mask }) => {
                let shape = rows.dims();
                let scores = logits.flatten::<1>(0, 1).select(0, rows.flatten(0, 1)).reshape(shape);
                loss::list_cross_entropy(scores, targets, mask)
            }
        }
    }
}
