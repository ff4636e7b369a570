//! The models behind the variants.

use burn::tensor::Device;
use deberta_burn::{
    DebertaConfig, ModelConfig, Result,
    config::SwitchConfig,
    heads::{MaskedLm, MaskedLmLayout},
    training::replaced_token::{ReplacedToken, ReplacedTokenPretraining},
};

use crate::{
    protocol::Settings,
    scale::{Parameter, parameters},
    variant::Variant,
};

/// What is pretrained.
pub enum Architecture {
    /// A masked language model.
    MaskedLm(ModelConfig, MaskedLmLayout),
    /// The discriminator, whose generator follows from it.
    ReplacedToken(DebertaConfig),
}

impl Variant {
    /// Its configuration.
    pub fn architecture(self, settings: &Settings) -> Architecture {
        let switch = |num_experts| SwitchConfig { num_experts, ..SwitchConfig::default() };
        let switch = self.experts().map(switch);
        let deberta = || DebertaConfig { switch: switch.clone(), ..settings.deberta(self.terms()) };
        match self {
            Self::Roberta => Architecture::MaskedLm(settings.roberta().into(), MaskedLmLayout::LastLayer),
            Self::NoEmd => Architecture::MaskedLm(deberta().into(), MaskedLmLayout::LastLayer),
            Self::ReplacedToken => Architecture::ReplacedToken(deberta()),
            _ => Architecture::MaskedLm(deberta().into(), MaskedLmLayout::EnhancedMaskDecoder),
        }
    }

    /// Its parameters in pretraining.
    ///
    /// # Errors
    /// Settings that no model can have.
    pub fn parameters(self, settings: &Settings) -> Result<Vec<Parameter>> {
        let device = Device::flex();
        Ok(match self.architecture(settings) {
            Architecture::MaskedLm(config, layout) => {
                config.validate()?;
                parameters(&MaskedLm::new(&config, layout, &device)?)
            }
            Architecture::ReplacedToken(config) => {
                config.validate()?;
                parameters(&ReplacedTokenPretraining::new(&config, ReplacedToken::default(), &device)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Preset;

    #[test]
    fn parameters_are_those_of_the_formula() {
        let settings =
            Settings { vocabulary: 100, length: 16, layers: 2, hidden: 8, heads: 2, ..Preset::Minutes.settings() };
        // Four projections with biases, two of the feed-forward network of 32, two LayerNorms.
        let layer = 4 * (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8) + 2 * 16;
        // Token embeddings, LayerNorm of the embeddings, language-model head with its LayerNorm and bias.
        let shared = 100 * 8 + 16 + 2 * layer + (8 * 8 + 8) + 16 + 100;
        let parameters = |variant: Variant| -> usize {
            variant.parameters(&settings).unwrap().iter().map(|parameter| parameter.size).sum()
        };
        // 17 positions, one token type.
        assert_eq!(parameters(Variant::Roberta), shared + 17 * 8 + 8);
        // 32 relative positions with a LayerNorm, 16 absolute ones.
        assert_eq!(parameters(Variant::Deberta), shared + 32 * 8 + 16 + 16 * 8);
        assert_eq!(parameters(Variant::NoEmd), shared + 32 * 8 + 16);
        assert_eq!(parameters(Variant::NoC2p), parameters(Variant::Deberta));
        assert_eq!(parameters(Variant::NoC2pP2c), shared + 16 * 8);
        // The second layer has three feed-forward networks more, and a router.
        assert_eq!(parameters(Variant::Switch4), parameters(Variant::Deberta) + 3 * (8 * 32 + 32 + 32 * 8 + 8) + 8 * 4);
    }
}
