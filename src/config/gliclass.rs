//! The configuration of GLiClass: a `config.json` with the model type `GLiClass`.
//!
//! Missing keys take the defaults of the reference (`gliclass/config.py` of gliclass 0.1.21). Only models with one encoder for
//! labels and text are supported, whose scores are dot products; others are refused by name.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Activation, DebertaConfig, any_encoder, encoder_config, overlay, parse_object, refuse_layers, require,
    require_deviation, require_matrix, require_probability, require_size,
};
use crate::{Error, Result, text_file};

/// Keys of parts that are not supported, unless they are off.
const REFUSED: [&str; 8] = [
    "label_model_name",
    "multimodal",
    "normalize_features",
    "squeeze_layers",
    "use_calibrator",
    "use_lstm",
    "use_segment_embeddings",
    "layer_wise",
];

/// Keys that may have one value only, which is also the default.
const FIXED: [(&str, &str); 3] =
    [("architecture_type", "uni-encoder"), ("scorer_type", "simple"), ("pooling_strategy", "first")];

/// How a label gets one vector (`class_token_pooling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassTokenPooling {
    /// That of its marker, or of the token behind it.
    First,
    /// The mean of all its tokens.
    Average,
}

/// The model of a GLiClass folder. Field names are the file's keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GliClassConfig {
    /// Width of the projectors' hidden layer; 0 for that of the encoder.
    pub hidden_size: usize,
    /// Rows of the token embeddings; 0 for those that `encoder_config` says.
    pub vocab_size: usize,
    /// The id of the marker in front of each label.
    pub class_token_index: i64,
    /// The id of the token between labels and text.
    pub text_token_index: i64,
    /// Whether the marker is one of a label's tokens.
    pub embed_class_token: bool,
    /// How a label gets one vector.
    pub class_token_pooling: ClassTokenPooling,
    /// Whether the text's vector is that of the token in front of it, and not that of the whole sequence.
    pub extract_text_features: bool,
    /// Activation of the projectors.
    pub projector_hidden_act: Activation,
    /// Dropout of the projectors.
    pub dropout: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The encoder.
    #[serde(skip, default = "any_encoder")]
    pub encoder_config: DebertaConfig,
}

impl GliClassConfig {
    /// Whether a folder says that it is of this kind.
    pub(crate) fn is_in(folder: &Path) -> bool {
        let config = text_file::read_json::<Value>(&folder.join("config.json"));
        config.is_ok_and(|config| config["model_type"] == "GLiClass")
    }

    /// Reads `config.json` from a folder.
    ///
    /// # Errors
    /// The file is missing, is not JSON, holds an impossible value, or describes a model that is not supported.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join("config.json");
        Self::from_json(&text_file::read_text(&path)?).map_err(|error| error.in_config(&path))
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), without the file's name.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut file = parse_object(text)?;
        refuse(&file)?;
        let encoder = encoder_config(&mut file)?.unwrap_or_else(any_encoder);
        let defaults = Self {
            hidden_size: 0,
            vocab_size: 0,
            class_token_index: -1,
            text_token_index: -1,
            embed_class_token: true,
            class_token_pooling: ClassTokenPooling::First,
            extract_text_features: false,
            projector_hidden_act: Activation::Gelu,
            dropout: 0.1,
            initializer_range: 0.03,
            encoder_config: any_encoder(),
        };
        let (config, _) = overlay(&defaults, file)?;
        let or = |given: usize, otherwise: usize| if given > 0 { given } else { otherwise };
        let config = Self {
            hidden_size: or(config.hidden_size, encoder.hidden_size),
            vocab_size: or(config.vocab_size, encoder.vocab_size),
            encoder_config: DebertaConfig { vocab_size: or(config.vocab_size, encoder.vocab_size), ..encoder },
            ..config
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks every value that could make building or running the model fail.
    ///
    /// # Errors
    /// An [`Error::Config`] that names the first key with an impossible value.
    pub fn validate(&self) -> Result<()> {
        self.encoder_config.validate()?;
        require_size("hidden_size", self.hidden_size)?;
        require_matrix("hidden_size", self.hidden_size, self.encoder_config.hidden_size)?;
        require_probability("dropout", self.dropout)?;
        require_deviation("initializer_range", self.initializer_range)?;
        let differ = self.class_token_index != self.text_token_index || self.class_token_index < 0;
        require("text_token_index", self.text_token_index, differ, "another id than class_token_index")
    }
}

/// Refuses what is not supported.
fn refuse(file: &Map<String, Value>) -> Result<()> {
    refuse_layers(file, &REFUSED)?;
    let unsupported = |key: &str, value: &Value, expected: &str| {
        let problem = format!("{value} is not supported, expected {expected}");
        Err(Error::unsupported(format!("config key `{key}`"), problem))
    };
    for (key, expected) in FIXED {
        if let Some(value) = file.get(key).filter(|value| *value != expected) {
            return unsupported(key, value, &format!("`{expected}`"));
        }
    }
    // The reference's default is false, with the labels behind the text.
    match file.get("prompt_first").unwrap_or(&Value::Bool(false)) {
        Value::Bool(true) => {}
        other => return unsupported("prompt_first", other, "true: labels in front of the text"),
    }
    match file.get("encoder_layer_id").unwrap_or(&Value::from(-1)) {
        value if *value == -1 => Ok(()),
        other => unsupported("encoder_layer_id", other, "-1, the last layer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoder_gives_what_is_not_said() {
        let text = r#"{"model_type": "GLiClass", "prompt_first": true, "vocab_size": 103,
            "encoder_config": {"hidden_size": 48, "num_attention_heads": 4, "vocab_size": 100}}"#;
        let config = GliClassConfig::from_json(text).unwrap();
        assert_eq!((config.hidden_size, config.encoder_config.vocab_size), (48, 103));
        assert_eq!(config.class_token_pooling, ClassTokenPooling::First);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (key, value) in [
            ("architecture_type", r#""bi-encoder""#),
            ("scorer_type", r#""mlp""#),
            ("pooling_strategy", r#""avg""#),
            ("prompt_first", "false"),
            ("use_lstm", "true"),
            ("normalize_features", "true"),
            ("encoder_layer_id", "2"),
            ("class_token_pooling", r#""last""#),
        ] {
            let text = format!(r#"{{"prompt_first": true, "{key}": {value}}}"#);
            let message = GliClassConfig::from_json(&text).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
