//! The configuration of RoBERTa, the baseline.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    SwitchConfig, TaskConfig, overlay, parse_object, require, require_deviation, require_layers, require_matrix,
    require_positive, require_probability, require_size, write_json,
};
use crate::{Result, config::Activation};

/// RoBERTa's `config.json`. Field names are the file's keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobertaConfig {
    /// Always `roberta`.
    pub model_type: String,
    /// Size of the vocabulary: rows of the token embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Activation of the feed-forward network.
    pub hidden_act: Activation,
    /// Dropout of embeddings, attention output and feed-forward output.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the position embeddings; tokens never use the first `pad_token_id + 1`.
    pub max_position_embeddings: usize,
    /// Rows of the token type embeddings.
    pub type_vocab_size: usize,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Id of the padding token; positions are counted from it.
    pub pad_token_id: usize,
    /// Dropout in front of a classifier; `hidden_dropout_prob` if absent.
    pub classifier_dropout: Option<f64>,
    /// Switch feed-forward layers, if there are any; a key of this crate's own.
    pub switch: Option<SwitchConfig>,
    /// Architectures, labels and problem type.
    #[serde(skip)]
    pub task: TaskConfig,
    /// Keys that this crate does not use. They are kept and written again.
    #[serde(skip)]
    pub other: Map<String, Value>,
}

impl Default for RobertaConfig {
    /// The reference's defaults.
    fn default() -> Self {
        Self {
            model_type: "roberta".to_owned(),
            vocab_size: 50265,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 1,
            classifier_dropout: None,
            switch: None,
            task: TaskConfig::default(),
            other: Map::new(),
        }
    }
}

impl RobertaConfig {
    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// The text is not JSON, `model_type` is not `roberta`, or a key holds an impossible value.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_map(parse_object(text)?)
    }

    pub(super) fn from_map(mut file: Map<String, Value>) -> Result<Self> {
        let task = TaskConfig::take(&mut file)?;
        let (config, other) = overlay(&Self::default(), file)?;
        let config = Self { task, other, ..config };
        config.validate()?;
        Ok(config)
    }

    /// The text of a `config.json` that transformers reads.
    pub fn to_json(&self) -> String {
        write_json(self, &self.task, &self.other)
    }

    /// The longest input in tokens: positions start after that of the padding.
    pub fn max_length(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.pad_token_id + 1)
    }

    /// Dropout in front of a classifier.
    pub fn classifier_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// Checks every value that could make the model fail.
    ///
    /// # Errors
    /// An [`Error::Config`](crate::Error::Config) that names the first key with an impossible value.
    pub fn validate(&self) -> Result<()> {
        require("model_type", &self.model_type, self.model_type == "roberta", "`roberta`")?;
        require_size("vocab_size", self.vocab_size)?;
        require_size("hidden_size", self.hidden_size)?;
        require_layers(self.num_hidden_layers)?;
        require_size("num_attention_heads", self.num_attention_heads)?;
        require_size("intermediate_size", self.intermediate_size)?;
        require_size("type_vocab_size", self.type_vocab_size)?;
        let heads = self.num_attention_heads;
        let expected = format!("a divisor of hidden_size, which is {}", self.hidden_size);
        require("num_attention_heads", heads, self.hidden_size.is_multiple_of(heads), &expected)?;
        require_probability("hidden_dropout_prob", self.hidden_dropout_prob)?;
        require_probability("attention_probs_dropout_prob", self.attention_probs_dropout_prob)?;
        require_probability("classifier_dropout", self.classifier_dropout())?;
        require_positive("layer_norm_eps", self.layer_norm_eps)?;
        require_deviation("initializer_range", self.initializer_range)?;
        let pad = self.pad_token_id;
        require("pad_token_id", pad, pad < self.vocab_size, &format!("below vocab_size, {}", self.vocab_size))?;
        let rows = self.max_position_embeddings;
        require_size("max_position_embeddings", rows)?;
        require("max_position_embeddings", rows, rows > pad + 1, &format!("above pad_token_id + 1, {}", pad + 1))?;
        for (key, rows) in [
            ("vocab_size", self.vocab_size),
            ("type_vocab_size", self.type_vocab_size),
            ("max_position_embeddings", rows),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_labels", self.task.num_labels()),
        ] {
            require_matrix(key, rows, self.hidden_size)?;
        }
        self.switch.as_ref().map_or(Ok(()), |switch| switch.validate(self.num_hidden_layers))
    }
}
