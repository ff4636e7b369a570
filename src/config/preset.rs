//! The published checkpoints by name: the `config.json` of each, from `models/`.

use std::str::FromStr;

use super::ModelConfig;
use crate::{Error, Result};

macro_rules! presets {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// A published checkpoint whose architecture the crate knows by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Preset {
            $($(#[$doc])* $variant),*
        }

        impl Preset {
            /// Every preset, small to large within its family.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The checkpoint's short name, its folder in `models/`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }

            fn config_json(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../../models/", $name, "/config.json"))),*
                }
            }
        }
    };
}

presets! {
    /// DeBERTa v1, 12 layers of 768.
    DebertaBase = "deberta-base",
    /// DeBERTa v1, 24 layers of 1024.
    DebertaLarge = "deberta-large",
    /// DeBERTa v1, 48 layers of 1024.
    DebertaXlarge = "deberta-xlarge",
    /// DeBERTa v2, 24 layers of 1536, with convolution.
    DebertaV2Xlarge = "deberta-v2-xlarge",
    /// DeBERTa v2, 48 layers of 1536, with convolution.
    DebertaV2Xxlarge = "deberta-v2-xxlarge",
    /// DeBERTaV3, 12 layers of 384.
    DebertaV3Xsmall = "deberta-v3-xsmall",
    /// DeBERTaV3, 6 layers of 768.
    DebertaV3Small = "deberta-v3-small",
    /// DeBERTaV3, 12 layers of 768.
    DebertaV3Base = "deberta-v3-base",
    /// DeBERTaV3, 24 layers of 1024.
    DebertaV3Large = "deberta-v3-large",
    /// Multilingual DeBERTaV3, 12 layers of 768 and a vocabulary of 251,000.
    MdebertaV3Base = "mdeberta-v3-base",
    /// RoBERTa, 12 layers of 768.
    RobertaBase = "roberta-base",
    /// RoBERTa, 24 layers of 1024.
    RobertaLarge = "roberta-large",
}

impl Preset {
    /// The configuration the checkpoint was published with.
    pub fn config(self) -> ModelConfig {
        ModelConfig::from_json(self.config_json()).expect("models/*/config.json are read by a test")
    }
}

impl FromStr for Preset {
    type Err = Error;

    /// Parses the name, with or without its organisation: `deberta-v3-base`, `microsoft/deberta-v3-base`.
    fn from_str(name: &str) -> Result<Self> {
        let short = name.rsplit('/').next().unwrap_or(name);
        Self::ALL.iter().copied().find(|preset| preset.name() == short).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|preset| preset.name()).collect();
            Error::setting(format!("preset `{name}`"), format!("unknown; known are {}", known.join(", ")))
        })
    }
}
