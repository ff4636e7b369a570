//! Where an answer starts and ends (`DebertaV2ForQuestionAnswering` in the reference).

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Int},
};

use super::{HeadSettings, loss};
use crate::{
    config::ModelConfig,
    model::{Backbone, input::ModelInput, linear::Linear},
};

/// A linear map from each state to two scores.
#[derive(Module, Debug)]
pub struct QuestionAnswering {
    pub(super) backbone: Backbone,
    qa_outputs: Linear,
}

/// Scores of every token as the first and as the last of the answer.
#[derive(Clone, Debug)]
pub struct AnswerLogits {
    /// First token, [batch, length].
    pub start: Tensor<2>,
    /// Last token, [batch, length].
    pub end: Tensor<2>,
}

impl QuestionAnswering {
    /// A fresh head on a fresh backbone.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let settings = HeadSettings::from(config);
        Self { backbone: Backbone::new(config, device), qa_outputs: settings.classifier(2, device) }
    }

    /// # Shapes
    /// - output: [batch, length] each
    pub fn forward(&self, input: ModelInput) -> AnswerLogits {
        let logits = self.qa_outputs.forward(self.backbone.forward(input).last_hidden_state); // [batch, length, 2]
        let side = |index| logits.clone().narrow(2, index, 1).squeeze_dim(2);
        AnswerLogits { start: side(0), end: side(1) }
    }

    /// Mean of the cross entropies of start and end. A position behind the input does not count, and one before it is the first.
    ///
    /// # Shapes
    /// - starts, ends: \[batch\]
    /// - output: \[1\]
    pub fn loss(&self, logits: AnswerLogits, starts: Tensor<1, Int>, ends: Tensor<1, Int>) -> Tensor<1> {
        let side = |logits: Tensor<2>, positions: Tensor<1, Int>| {
            let outside = positions.clone().greater_equal_elem(logits.dims()[1] as i64);
            loss::cross_entropy(logits, positions.clamp_min(0).mask_fill(outside, -1))
        };
        (side(logits.start, starts) + side(logits.end, ends)) / 2.0
    }
}
