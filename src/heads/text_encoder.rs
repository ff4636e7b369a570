//! One vector a text, trained by pairs of texts that belong together.

use burn::{
    Tensor,
    module::{Module, Param},
    tensor::{Device, Int},
};

use super::{loss, pooling::Pooling};
use crate::{
    config::ModelConfig,
    model::{Backbone, input::ModelInput, precision::in_f32},
};

/// The temperature at first, 0.05, as a factor.
const FIRST_SCALE: f32 = 20.0;
/// The largest factor (Radford and others, "Learning Transferable Visual Models From Natural Language Supervision", ICML
/// 2021, section 2.5).
const LARGEST_SCALE: f32 = 100.0;

/// Pooled hidden states, scaled to length 1, with the temperature of their contrastive loss.
#[derive(Module, Debug)]
pub struct TextEncoder {
    pub(super) backbone: Backbone,
    /// The logarithm of the factor of all similarities, one over the temperature, \[1\].
    log_scale: Param<Tensor<1>>,
    #[module(skip)]
    pooling: Pooling,
}

impl TextEncoder {
    /// A fresh temperature on a fresh backbone.
    pub fn new(config: &ModelConfig, pooling: Pooling, device: &Device) -> Self {
        let log_scale = Tensor::from_floats([FIRST_SCALE.ln()], device);
        Self { backbone: Backbone::new(config, device), log_scale: Param::from_tensor(log_scale), pooling }
    }

    /// # Shapes
    /// - output: vectors of length 1, [batch, hidden]
    pub fn forward(&self, input: ModelInput) -> Tensor<2> {
        let mask = input.attention_mask.clone();
        let states = in_f32(self.backbone.forward(input).last_hidden_state);
        let vectors = self.pooling.pool(states, mask.as_ref());
        let length = vectors.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        vectors / length
    }

    /// CLIP's symmetric loss (the same, figure 3): each text has to find its counterpart among all, and each counterpart its
    /// text. The first `pairs` vectors are the texts, the next `pairs` their counterparts. Any further ones are counterparts
    /// that belong to none (hard negatives), among which texts must not find theirs.
    ///
    /// # Shapes
    /// - vectors: [2 pairs + negatives, hidden]
    /// - output: \[1\]
    pub fn loss(&self, vectors: Tensor<2>, pairs: usize) -> Tensor<1> {
        let [rows, _] = vectors.dims();
        let (texts, counterparts) = (vectors.clone().narrow(0, 0, pairs), vectors.narrow(0, pairs, rows - pairs));
        let scale = in_f32(self.log_scale.val()).clamp_max(LARGEST_SCALE.ln()).exp();
        let logits = texts.matmul(counterparts.transpose()) * scale.unsqueeze(); // [pairs, pairs + negatives]
        let right = Tensor::<1, Int>::arange(0..pairs as i64, &logits.device());
        let back = logits.clone().narrow(1, 0, pairs).transpose();
        (loss::cross_entropy(logits, right.clone()) + loss::cross_entropy(back, right)) / 2.0
    }
}
