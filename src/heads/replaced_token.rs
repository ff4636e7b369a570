//! Which tokens a generator replaced (DeBERTaV3, paper section 3; `LMMaskPredictionHead` in the original).

use burn::{
    Tensor,
    module::Module,
    nn::LayerNorm,
    tensor::{Bool, Device},
};

use super::{HeadSettings, loss};
use crate::{
    config::{Activation, ModelConfig},
    model::{AttentionMask, Backbone, input::ModelInput, linear::Linear},
};

/// The discriminator: `classifier( act( dense( LayerNorm( h_CLS + h_t ) ) ) )` for each token t.
#[derive(Module, Debug)]
pub struct ReplacedTokenDetection {
    pub(super) backbone: Backbone,
    mask_predictions: MaskPredictions,
}

#[derive(Module, Debug)]
struct MaskPredictions {
    dense: Linear,
    layer_norm: LayerNorm,
    classifier: Linear,
    #[module(skip)]
    activation: Activation,
}

impl ReplacedTokenDetection {
    /// A fresh head on a fresh backbone.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let settings = HeadSettings::from(config);
        let (init, hidden) = (settings.init(device), settings.hidden_size);
        Self {
            backbone: Backbone::new(config, device),
            mask_predictions: MaskPredictions {
                dense: init.linear(hidden, hidden),
                layer_norm: init.layer_norm(hidden),
                classifier: init.linear(hidden, 1),
                activation: settings.lm_activation,
            },
        }
    }

    /// The encoder.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// The same with another encoder.
    pub(crate) fn map_backbone(mut self, map: impl FnOnce(Backbone) -> Backbone) -> Self {
        self.backbone = map(self.backbone);
        self
    }

    /// # Shapes
    /// - output: logits, [batch, length]; above 0 where a token was more likely replaced
    pub fn forward(&self, input: ModelInput) -> Tensor<2> {
        let head = &self.mask_predictions;
        let states = self.backbone.forward(input).last_hidden_state;
        let first = states.clone().narrow(1, 0, 1);
        let dtype = states.dtype();
        let states = head.dense.forward(self.backbone.round(head.layer_norm.forward(first + states)));
        head.classifier.forward(head.activation.forward(states).cast(dtype)).squeeze_dim(2)
    }

    /// Mean binary cross entropy over all tokens that are not padding.
    ///
    /// # Shapes
    /// - logits, replaced: [batch, length]; `replaced` is true at replaced tokens
    /// - output: \[1\]
    pub fn loss(&self, logits: Tensor<2>, replaced: Tensor<2, Bool>, mask: Option<&AttentionMask>) -> Tensor<1> {
        let losses = loss::binary_cross_entropy(logits, replaced.float());
        match mask {
            Some(mask) => {
                let counted = mask.tensor().clone().float().cast(losses.dtype());
                (losses * counted.clone()).sum() / counted.sum().clamp_min(1.0)
            }
            None => losses.mean(),
        }
    }
}
