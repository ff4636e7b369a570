//! The configuration of DeBERTa v1, v2 and v3.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{
    MAX_SIZE, SwitchConfig, TaskConfig, overlay, parse_object, require, require_deviation, require_layers,
    require_matrix, require_positive, require_probability, require_size, write_json,
};
use crate::{Result, config::Activation};

/// The layout of a DeBERTa checkpoint. v3 has the layout of v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DebertaVersion {
    /// `deberta`: fused per-head projections, no key bias, no buckets, no normalised position table.
    #[serde(rename = "deberta")]
    V1,
    /// `deberta-v2`: DeBERTa v2, v3 and mDeBERTa.
    #[serde(rename = "deberta-v2")]
    V2,
}

impl DebertaVersion {
    /// The name of this version's class with a head in transformers, as in `DebertaV2` + `ForMaskedLM`.
    pub fn class_name(self, head: &str) -> String {
        match self {
            Self::V1 => format!("Deberta{head}"),
            Self::V2 => format!("DebertaV2{head}"),
        }
    }
}

/// The terms of disentangled attention in addition to content-to-content (`pos_att_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionTerms {
    /// Content to position: Qc . Kr.
    pub c2p: bool,
    /// Position to content: Qr . Kc.
    pub p2c: bool,
}

impl PositionTerms {
    /// The number of position terms, 0 to 2.
    pub fn count(self) -> usize {
        usize::from(self.c2p) + usize::from(self.p2c)
    }
}

impl Serialize for PositionTerms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = [("p2c", self.p2c), ("c2p", self.c2p)];
        serializer.collect_seq(names.iter().filter(|(_, on)| *on).map(|(name, _)| name))
    }
}

impl<'de> Deserialize<'de> for PositionTerms {
    /// A list of names, or one string that joins them with `|`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Names {
            Joined(String),
            List(Vec<String>),
        }
        let expected = || serde::de::Error::custom("`c2p` and `p2c`, as a list or joined by `|`");
        let names = match Names::deserialize(deserializer).map_err(|_| expected())? {
            Names::Joined(names) => names.split('|').map(str::to_owned).collect(),
            Names::List(names) => names,
        };
        let mut terms = Self::default();
        for name in names {
            match name.trim().to_lowercase().as_str() {
                "c2p" => terms.c2p = true,
                "p2c" => terms.p2c = true,
                "" | "none" => {}
                _ => return Err(expected()),
            }
        }
        Ok(terms)
    }
}

/// DeBERTa's `config.json`. Field names are the file's keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DebertaConfig {
    /// The checkpoint's layout.
    pub model_type: DebertaVersion,
    /// Size of the vocabulary: rows of the token embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the embeddings, if it differs from `hidden_size`.
    pub embedding_size: Option<usize>,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width of a head, if it is not `hidden_size / num_attention_heads`.
    pub attention_head_size: Option<usize>,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Activation of the feed-forward network and of the language-model head.
    pub hidden_act: Activation,
    /// Dropout of embeddings, relative position embeddings, attention output and feed-forward output.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the absolute position embeddings, and the default span of relative positions.
    pub max_position_embeddings: usize,
    /// Rows of the token type embeddings; 0 for none.
    pub type_vocab_size: usize,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Id of the padding token.
    pub pad_token_id: usize,
    /// Whether attention uses relative positions.
    pub relative_attention: bool,
    /// Largest relative distance with a value of its own; below 1 it is `max_position_embeddings`.
    pub max_relative_positions: i64,
    /// Number of logarithmic buckets on each side; below 1 for none (v2/v3).
    pub position_buckets: i64,
    /// `layer_norm` normalises the relative position embeddings (v2/v3).
    pub norm_rel_ebd: String,
    /// Whether positions are projected by the projections of the content (v2/v3; paper section 5.3).
    pub share_att_key: bool,
    /// The position terms of attention.
    pub pos_att_type: PositionTerms,
    /// Whether absolute positions are added at the input. If not, the enhanced mask decoder adds them.
    pub position_biased_input: bool,
    /// Kernel width of the nGiE convolution; 0 for none (v2).
    pub conv_kernel_size: usize,
    /// Groups of the convolution.
    pub conv_groups: usize,
    /// Activation of the convolution.
    pub conv_act: Activation,
    /// Whether attention mixes its heads before and after the softmax (v1).
    pub talking_head: bool,
    /// Dropout in front of the pooler.
    pub pooler_dropout: f64,
    /// Activation of the pooler.
    pub pooler_hidden_act: Activation,
    /// Dropout in front of a classifier; `hidden_dropout_prob` if absent.
    pub cls_dropout: Option<f64>,
    /// Which masked-language-model head transformers builds: `cls.predictions` (true) or `lm_predictions` (false).
    pub legacy: bool,
    /// Switch feed-forward layers, if there are any; a key of this crate's own.
    pub switch: Option<SwitchConfig>,
    /// Architectures, labels and problem type.
    #[serde(skip)]
    pub task: TaskConfig,
    /// Keys that this crate does not use. They are kept and written again.
    #[serde(skip)]
    pub other: Map<String, Value>,
}

impl DebertaConfig {
    /// The reference's defaults of one version.
    pub fn new(version: DebertaVersion) -> Self {
        let v1 = version == DebertaVersion::V1;
        Self {
            model_type: version,
            vocab_size: if v1 { 50265 } else { 128100 },
            hidden_size: if v1 { 768 } else { 1536 },
            embedding_size: None,
            num_hidden_layers: if v1 { 12 } else { 24 },
            num_attention_heads: if v1 { 12 } else { 24 },
            attention_head_size: None,
            intermediate_size: if v1 { 3072 } else { 6144 },
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 0,
            initializer_range: 0.02,
            layer_norm_eps: 1e-7,
            pad_token_id: 0,
            relative_attention: false,
            max_relative_positions: -1,
            position_buckets: -1,
            norm_rel_ebd: "none".to_owned(),
            share_att_key: false,
            pos_att_type: PositionTerms::default(),
            position_biased_input: true,
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: Activation::Tanh,
            talking_head: false,
            pooler_dropout: 0.0,
            pooler_hidden_act: Activation::Gelu,
            cls_dropout: None,
            legacy: true,
            switch: None,
            task: TaskConfig::default(),
            other: Map::new(),
        }
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// The text is not JSON, `model_type` is not DeBERTa's, or a key holds an impossible value.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_map(parse_object(text)?)
    }

    pub(super) fn from_map(mut file: Map<String, Value>) -> Result<Self> {
        let version = match file.get("model_type").and_then(Value::as_str) {
            Some("deberta") => DebertaVersion::V1,
            // Any other name causes an error below.
            _ => DebertaVersion::V2,
        };
        let task = TaskConfig::take(&mut file)?;
        let (config, other) = overlay(&Self::new(version), file)?;
        let config = Self { task, other, ..config };
        config.validate()?;
        Ok(config)
    }

    /// The text of a `config.json` that transformers reads.
    pub fn to_json(&self) -> String {
        write_json(self, &self.task, &self.other)
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        match self.model_type {
            DebertaVersion::V1 => self.hidden_size / self.num_attention_heads,
            DebertaVersion::V2 => self.attention_head_size.unwrap_or(self.hidden_size / self.num_attention_heads),
        }
    }

    /// Width of the embedding tables.
    pub fn embedding_size(&self) -> usize {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// Largest relative distance with a value of its own (m in the formula of the log bucket).
    pub fn max_relative_positions(&self) -> usize {
        usize::try_from(self.max_relative_positions).ok().filter(|m| *m > 0).unwrap_or(self.max_position_embeddings)
    }

    /// Logarithmic buckets on each side, if positions are bucketed.
    pub fn position_buckets(&self) -> Option<usize> {
        match self.model_type {
            DebertaVersion::V1 => None,
            DebertaVersion::V2 => usize::try_from(self.position_buckets).ok().filter(|buckets| *buckets > 0),
        }
    }

    /// Attention span S: there are 2 S relative position embeddings.
    pub fn attention_span(&self) -> usize {
        self.position_buckets().unwrap_or(self.max_relative_positions())
    }

    /// Whether absolute positions are added, at the input or by the enhanced mask decoder of a masked language model.
    pub(super) fn has_absolute_positions(&self) -> bool {
        self.position_biased_input || self.task.architectures.iter().any(|name| name.ends_with("ForMaskedLM"))
    }

    /// Whether the relative position embeddings are normalised.
    pub fn norm_relative_embeddings(&self) -> bool {
        self.model_type == DebertaVersion::V2
            && self.norm_rel_ebd.to_lowercase().split('|').any(|s| s.trim() == "layer_norm")
    }

    /// Whether positions use the projections of the content.
    pub fn share_projections(&self) -> bool {
        self.model_type == DebertaVersion::V2 && self.share_att_key
    }

    /// Whether key projections have a bias: those of v1 have none.
    pub fn key_bias(&self) -> bool {
        self.model_type == DebertaVersion::V2
    }

    /// Whether attention mixes its heads: v1 only.
    pub fn talking_heads(&self) -> bool {
        self.model_type == DebertaVersion::V1 && self.talking_head
    }

    /// Kernel width of the convolution, if there is one: v2 only.
    pub fn conv_kernel_size(&self) -> Option<usize> {
        (self.model_type == DebertaVersion::V2 && self.conv_kernel_size > 0).then_some(self.conv_kernel_size)
    }

    /// Dropout in front of a classifier.
    pub fn classifier_dropout(&self) -> f64 {
        self.cls_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// Checks every value that could make the model fail.
    ///
    /// # Errors
    /// An [`Error::Config`](crate::Error::Config) that names the first key with an impossible value.
    pub fn validate(&self) -> Result<()> {
        let hidden = self.hidden_size;
        require_size("vocab_size", self.vocab_size)?;
        require_size("hidden_size", hidden)?;
        require_layers(self.num_hidden_layers)?;
        require_size("num_attention_heads", self.num_attention_heads)?;
        require_size("intermediate_size", self.intermediate_size)?;
        require_size("max_position_embeddings", self.max_position_embeddings)?;
        require("type_vocab_size", self.type_vocab_size, self.type_vocab_size <= MAX_SIZE, "at most 2^28")?;
        require_size("embedding_size", self.embedding_size())?;
        let farthest = self.max_relative_positions;
        require("max_relative_positions", farthest, farthest <= MAX_SIZE as i64, "at most 2^28")?;
        if let Some(size) = self.attention_head_size {
            require_size("attention_head_size", size)?;
        }
        if self.head_size() * self.num_attention_heads != hidden {
            let expected = format!("a divisor of hidden_size, which is {hidden}");
            require("num_attention_heads", self.num_attention_heads, false, &expected)?;
        }
        require_probability("hidden_dropout_prob", self.hidden_dropout_prob)?;
        require_probability("attention_probs_dropout_prob", self.attention_probs_dropout_prob)?;
        require_probability("pooler_dropout", self.pooler_dropout)?;
        require_probability("cls_dropout", self.classifier_dropout())?;
        require_positive("layer_norm_eps", self.layer_norm_eps)?;
        require_deviation("initializer_range", self.initializer_range)?;
        let pad = self.pad_token_id;
        require("pad_token_id", pad, pad < self.vocab_size, &format!("below vocab_size, {}", self.vocab_size))?;
        let norm = &self.norm_rel_ebd;
        let is_known = norm.to_lowercase().split('|').all(|part| ["", "none", "layer_norm"].contains(&part.trim()));
        require("norm_rel_ebd", format!("`{norm}`"), is_known, "`layer_norm` or `none`")?;
        if let Some(buckets) = self.position_buckets() {
            // Beyond the middle, the bucket is a ratio of logarithms. That needs (m - 1) / mid > 1 and mid > 0.
            let limit = 2 * (self.max_relative_positions() - 1).max(1);
            let expected = format!("from 2 to below twice the largest distance, {limit}, or below 1 for no buckets");
            require("position_buckets", buckets, (2..limit).contains(&buckets), &expected)?;
        }
        require_matrix("vocab_size", self.vocab_size, self.embedding_size())?;
        require_matrix("type_vocab_size", self.type_vocab_size, self.embedding_size())?;
        require_matrix("embedding_size", self.embedding_size(), hidden)?;
        require_matrix("max_position_embeddings", self.max_position_embeddings, hidden)?;
        require_matrix("hidden_size", hidden, hidden)?;
        require_matrix("intermediate_size", self.intermediate_size, hidden)?;
        let (key, attention_span) = match self.position_buckets() {
            Some(buckets) => ("position_buckets", buckets),
            None => ("max_relative_positions", self.max_relative_positions()),
        };
        require_matrix(key, attention_span, 2 * hidden)?;
        require_matrix("num_labels", self.task.num_labels(), hidden)?;
        if let Some(kernel) = self.conv_kernel_size() {
            require("conv_kernel_size", kernel, kernel % 2 == 1, "odd, so that the length is kept")?;
            let groups = self.conv_groups;
            let expected = format!("a divisor of hidden_size, which is {hidden}");
            require("conv_groups", groups, groups > 0 && hidden.is_multiple_of(groups), &expected)?;
            require_matrix("conv_kernel_size", kernel, hidden * (hidden / groups))?;
        }
        self.switch.as_ref().map_or(Ok(()), |switch| switch.validate(self.num_hidden_layers))
    }
}
