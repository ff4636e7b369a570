//! One vector a text, trained by pairs of texts that belong together, or by vectors that are given.

use burn::{
    Tensor,
    module::{Module, Param},
    tensor::{Device, Int},
};
use serde::{Deserialize, Serialize};

use super::{HeadSettings, loss, pooling::Pooling};
use crate::{
    config::ModelConfig,
    kernels::matmul,
    model::{AttentionMask, Backbone, input::ModelInput, linear::Linear, precision::in_f32},
};

/// The temperature at first, 0.05, as a factor.
const FIRST_SCALE: f32 = 20.0;
/// The largest factor (Radford and others, "Learning Transferable Visual Models From Natural Language Supervision", ICML
/// 2021, section 2.5).
const LARGEST_SCALE: f32 = 100.0;

/// Pooled hidden states, and the temperature of their contrastive loss.
#[derive(Module, Debug)]
pub struct TextEncoder {
    pub(super) backbone: Backbone,
    /// From pooled states to vectors, if these have another size.
    projection: Option<Linear>,
    /// The logarithm of the factor of all similarities, one over the temperature, \[1\].
    log_scale: Param<Tensor<1>>,
    #[module(skip)]
    pooling: Pooling,
}

/// How vectors of texts learn from given ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlignmentLoss {
    /// Each text has to find its vector among all of the batch, and each vector its text (CLIP's loss beside a frozen tower:
    /// Zhai and others, "LiT: Zero-shot transfer with locked-image text tuning", CVPR 2022). Lengths do not count. It does not
    /// ask that a text has the very vector, which a text cannot have if the given ones are of images.
    #[default]
    Contrastive,
    /// Mean squared error: a text has to have the very vector, with its length. That is for vectors of a text tower, of the
    /// same texts or of what they are translations of (Reimers and Gurevych, EMNLP 2020; Carlsson and others,
    /// "Cross-lingual and Multilingual CLIP", LREC 2022).
    MeanSquaredError,
}

impl TextEncoder {
    /// A fresh temperature on a fresh backbone. If vectors of `width` numbers are wanted, and hidden states have another size,
    /// a fresh linear map lies between.
    pub fn new(config: &ModelConfig, pooling: Pooling, width: usize, device: &Device) -> Self {
        let log_scale = Tensor::from_floats([FIRST_SCALE.ln()], device);
        let is_other = width != config.hidden_size();
        Self {
            backbone: Backbone::new(config, device),
            projection: is_other.then(|| HeadSettings::from(config).classifier(width, device)),
            log_scale: Param::from_tensor(log_scale),
            pooling,
        }
    }

    /// How states become a vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// # Shapes
    /// - output: vectors of any length, [batch, width]
    pub fn forward(&self, input: ModelInput) -> Tensor<2> {
        let mask = input.attention_mask.clone();
        let states = in_f32(self.backbone.forward(input).last_hidden_state);
        let pooled = self.pooling.pool(states, mask.as_ref().map(AttentionMask::tensor));
        match &self.projection {
            Some(projection) => projection.forward(pooled),
            None => pooled,
        }
    }

    /// CLIP's symmetric loss (the same, figure 3): each text has to find its counterpart among all, and each counterpart its
    /// text, by cosines. The first `pairs` vectors are the texts, the next `pairs` their counterparts. Any further ones are
    /// counterparts that belong to none (hard negatives), among which texts must not find theirs.
    ///
    /// The loss of the first numbers of each vector, as many as each of `sizes` says, is added (Kusupati and others,
    /// "Matryoshka Representation Learning", NeurIPS 2022).
    ///
    /// # Shapes
    /// - vectors: [2 pairs + negatives, width]
    /// - output: \[1\]
    pub fn pair_loss(&self, vectors: Tensor<2>, pairs: usize, sizes: &[usize]) -> Tensor<1> {
        let [rows, _] = vectors.dims();
        let of = |vectors: Tensor<2>| {
            self.contrastive(vectors.clone().narrow(0, 0, pairs), vectors.narrow(0, pairs, rows - pairs))
        };
        let parts = sizes.iter().map(|size| of(vectors.clone().narrow(1, 0, *size)));
        parts.fold(of(vectors.clone()), |sum, part| sum + part)
    }

    /// The loss of texts beside given vectors.
    ///
    /// # Shapes
    /// - vectors, given: [batch, width]
    /// - output: \[1\]
    pub fn alignment_loss(&self, vectors: Tensor<2>, given: Tensor<2>, loss: AlignmentLoss) -> Tensor<1> {
        match loss {
            AlignmentLoss::Contrastive => self.contrastive(vectors, given),
            AlignmentLoss::MeanSquaredError => loss::mean_squared_error(vectors, given),
        }
    }

    /// # Shapes
    /// - texts: [pairs, width]
    /// - counterparts: [pairs or more, width], in the order of the texts; the last ones belong to none
    /// - output: \[1\]
    fn contrastive(&self, texts: Tensor<2>, counterparts: Tensor<2>) -> Tensor<1> {
        let [pairs, _] = texts.dims();
        let log_scale = in_f32(self.log_scale.val());
        // What is above the limit is taken off, and not clamped, so that the gradient can bring it back.
        let above = log_scale.clone().sub_scalar(LARGEST_SCALE.ln()).clamp_min(0.0).detach();
        let scale = (log_scale - above).exp();
        let cosines = matmul(of_length_one(texts), of_length_one(counterparts).transpose());
        let logits = cosines * scale.unsqueeze(); // [pairs, counterparts]
        let right = Tensor::<1, Int>::arange(0..pairs as i64, &logits.device());
        let back = logits.clone().narrow(1, 0, pairs).transpose();
        (loss::cross_entropy(logits, right.clone()) + loss::cross_entropy(back, right)) / 2.0
    }
}

/// Scales each vector to length 1.
///
/// # Shapes
/// - vectors, output: [batch, width]
pub(crate) fn of_length_one(vectors: Tensor<2>) -> Tensor<2> {
    let length = vectors.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    vectors / length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DebertaConfig, DebertaVersion};

    #[test]
    fn the_temperature_has_a_limit_from_which_it_comes_back() {
        let device = Device::flex().autodiff();
        let config = DebertaConfig::new(DebertaVersion::V2).into();
        // Loss and gradient of a temperature.
        let of = |scale: f32| {
            let log_scale = Param::from_tensor(Tensor::<1>::from_floats([scale.ln()], &device));
            let encoder = TextEncoder { log_scale, ..TextEncoder::new(&config, Pooling::Mean, 2, &device) };
            let vectors = Tensor::from_floats([[3.0, 0.1], [1.0, 0.0], [1.0, 0.2], [2.0, 0.1]], &device);
            let loss = encoder.pair_loss(vectors, 2, &[]);
            let gradient = encoder.log_scale.val().grad(&loss.backward()).expect("a gradient");
            (loss.into_scalar::<f32>(), gradient.into_scalar::<f32>())
        };
        let (at_limit, above) = (of(LARGEST_SCALE), of(1000.0));
        // The limit is taken off in logarithms: a rounding of the scale.
        assert!((at_limit.0 - above.0).abs() < 1e-4 * at_limit.0, "{at_limit:?} {above:?}");
        assert!(above.1 > 0.0 && (at_limit.1 - above.1).abs() < 1e-4, "{at_limit:?} {above:?}");
        assert!(of(20.0).0 < at_limit.0);
    }
}
