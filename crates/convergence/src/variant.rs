//! The models that are compared, and what each is made of.

use deberta_burn::config::PositionTerms;
use serde::{Deserialize, Serialize};

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
    /// Every second feed-forward network is one of four.
    #[serde(rename = "switch-4")]
    Switch4,
    /// Every second feed-forward network is one of eight.
    #[serde(rename = "switch-8")]
    Switch8,
}

impl Variant {
    /// The two that are always compared.
    pub const PAIR: [Self; 2] = [Self::Roberta, Self::Deberta];
    /// DeBERTa with Switch layers.
    pub const SWITCH: [Self; 2] = [Self::Switch4, Self::Switch8];
    /// What `--ablation` adds: parts taken away from DeBERTa, another objective, and more parameters for the same operations.
    pub const ABLATIONS: [Self; 7] =
        [Self::NoEmd, Self::NoC2p, Self::NoP2c, Self::NoC2pP2c, Self::ReplacedToken, Self::Switch4, Self::Switch8];

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
            Self::Switch4 => "switch-4",
            Self::Switch8 => "switch-8",
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
            Self::Switch4 => "Switch, 4 experts",
            Self::Switch8 => "Switch, 8 experts",
        }
    }

    /// The position terms of its attention.
    pub fn terms(self) -> PositionTerms {
        PositionTerms {
            c2p: !matches!(self, Self::Roberta | Self::NoC2p | Self::NoC2pP2c),
            p2c: !matches!(self, Self::Roberta | Self::NoP2c | Self::NoC2pP2c),
        }
    }

    /// The experts of its Switch layers, if it has any.
    pub fn experts(self) -> Option<usize> {
        match self {
            Self::Switch4 => Some(4),
            Self::Switch8 => Some(8),
            _ => None,
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
}
