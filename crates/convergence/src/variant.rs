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
}
