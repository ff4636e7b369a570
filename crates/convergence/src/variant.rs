//! The models that are compared, and what each is made of.

use burn::{module::Module, tensor::Device};
use deberta_burn::{
    DebertaConfig, ModelConfig, Result,
    config::PositionTerms,
    heads::{MaskedLm, MaskedLmLayout},
    training::replaced_token::{ReplacedToken, ReplacedTokenPretraining},
};
use serde::{Deserialize, Serialize};

use crate::protocol::Settings;

/// The models that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The baseline: absolute positions at the input.
    Roberta,
    /// Disentangled attention and the enhanced mask decoder.
    Deberta,
    /// Without the enhanced mask decoder, and so without absolute positions.
    NoEmd,
    /// Attention without the content-to-position term.
    NoC2p,
    /// Attention without the position-to-content term.
    NoP2c,
    /// Attention of contents alone; what is left of positions is in the enhanced mask decoder.
    NoC2pP2c,
    /// DeBERTa that learns to find the tokens that a generator replaced, as v3, instead of masked ones.
    ReplacedToken,
}

impl Variant {
    /// The two that are always compared.
    pub const PAIR: [Self; 2] = [Self::Roberta, Self::Deberta];
    /// What `--ablation` adds: parts taken away from DeBERTa, and another objective.
    pub const ABLATIONS: [Self; 5] = [Self::NoEmd, Self::NoC2p, Self::NoP2c, Self::NoC2pP2c, Self::ReplacedToken];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Roberta => "roberta",
            Self::Deberta => "deberta",
            Self::NoEmd => "no-emd",
            Self::NoC2p => "no-c2p",
            Self::NoP2c => "no-p2c",
            Self::NoC2pP2c => "no-c2p-p2c",
            Self::ReplacedToken => "replaced-token",
        }
    }

    /// The name in tables and pictures.
    pub fn label(self) -> &'static str {
        match self {
            Self::Roberta => "RoBERTa",
            Self::Deberta => "DeBERTa",
            Self::NoEmd => "\u{2212} EMD",
            Self::NoC2p => "\u{2212} c2p",
            Self::NoP2c => "\u{2212} p2c",
            Self::NoC2pP2c => "\u{2212} (c2p + p2c)",
            Self::ReplacedToken => "RTD",
        }
    }

    /// The position terms of its attention.
    pub fn terms(self) -> PositionTerms {
        PositionTerms {
            c2p: !matches!(self, Self::Roberta | Self::NoC2p | Self::NoC2pP2c),
            p2c: !matches!(self, Self::Roberta | Self::NoP2c | Self::NoC2pP2c),
        }
    }

    /// Whether masked words are predicted by the enhanced mask decoder.
    pub fn has_decoder(self) -> bool {
        !matches!(self, Self::Roberta | Self::NoEmd)
    }

    /// Whether it predicts masked tokens; what else it does has a loss of another kind.
    pub fn is_masked_lm(self) -> bool {
        self != Self::ReplacedToken
    }

    /// Its configuration.
    pub fn architecture(self, settings: &Settings) -> Architecture {
        let deberta = || settings.deberta(self.terms());
        match self {
            Self::Roberta => Architecture::MaskedLm(settings.roberta().into(), MaskedLmLayout::LastLayer),
            Self::NoEmd => Architecture::MaskedLm(deberta().into(), MaskedLmLayout::LastLayer),
            Self::ReplacedToken => Architecture::ReplacedToken(deberta()),
            _ => Architecture::MaskedLm(deberta().into(), MaskedLmLayout::EnhancedMaskDecoder),
        }
    }

    /// The number of its parameters in pretraining.
    ///
    /// # Errors
    /// Settings that no model can have.
    pub fn parameters(self, settings: &Settings) -> Result<usize> {
        let device = Device::flex();
        Ok(match self.architecture(settings) {
            Architecture::MaskedLm(config, layout) => {
                config.validate()?;
                MaskedLm::new(&config, layout, &device)?.num_params()
            }
            Architecture::ReplacedToken(config) => {
                config.validate()?;
                ReplacedTokenPretraining::new(&config, ReplacedToken::default(), &device)?.num_params()
            }
        })
    }
}

/// What is pretrained.
pub enum Architecture {
    /// A masked language model.
    MaskedLm(ModelConfig, MaskedLmLayout),
    /// The discriminator, whose generator follows from it.
    ReplacedToken(DebertaConfig),
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
        let parameters = |variant: Variant| variant.parameters(&settings).unwrap();
        // 17 positions, one token type.
        assert_eq!(parameters(Variant::Roberta), shared + 17 * 8 + 8);
        // 32 relative positions with a LayerNorm, 16 absolute ones.
        assert_eq!(parameters(Variant::Deberta), shared + 32 * 8 + 16 + 16 * 8);
        assert_eq!(parameters(Variant::NoEmd), shared + 32 * 8 + 16);
        assert_eq!(parameters(Variant::NoC2p), parameters(Variant::Deberta));
        assert_eq!(parameters(Variant::NoC2pP2c), shared + 16 * 8);
    }
}
