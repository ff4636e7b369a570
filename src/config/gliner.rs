//! The configuration of GLiNER: `gliner_config.json`.
//!
//! Missing keys take the defaults of the reference (`gliner/config.py` of gliner 0.2.29). Keys of layers that are not
//! supported are refused by name, unless they are off.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    DebertaConfig, DebertaVersion, ModelConfig, Preset, any_encoder, encoder_config, object, overlay, parse_object,
    refuse_layers, require, require_matrix, require_probability, require_size,
};
use crate::{Error, Result, text_file};

/// The file's name in a folder.
const GLINER_CONFIG: &str = "gliner_config.json";

/// Keys of parts that are not supported, unless they are off.
const REFUSED: [&str; 9] = [
    "fuse_layers",
    "post_fusion_schema",
    "labels_encoder",
    "labels_decoder",
    "decoder_config",
    "relations_layer",
    "precomputed_prompts_mode",
    "represent_spans",
    "span_encoder_config",
];

/// What is scored, and by which layers (`span_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpanMode {
    /// Spans, by one linear map of both their ends.
    #[serde(rename = "marker")]
    Marker,
    /// Spans, by a network with one hidden layer over both their ends.
    #[serde(rename = "markerV0")]
    MarkerV0,
    /// Words: whether each starts, ends, or is inside an entity.
    #[serde(rename = "token_level")]
    TokenLevel,
}

/// How a word of several tokens gets one vector (`subtoken_pooling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubtokenPooling {
    /// That of its first token.
    First,
    /// That of its last token.
    Last,
    /// The mean of its tokens.
    Mean,
    /// The largest value of its tokens in each component.
    Max,
}

/// The model of a GLiNER folder. Field names are the file's keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlinerConfig {
    /// The checkpoint that training began with. It tells the encoder if there is no `encoder_config`.
    pub model_name: String,
    /// Width of the vectors of labels and words.
    pub hidden_size: usize,
    /// The most words of an entity; where words are scored, entities have any length.
    pub max_width: usize,
    /// The most words of a text that are read at once.
    pub max_len: usize,
    /// What is scored.
    pub span_mode: SpanMode,
    /// Layers of the bidirectional LSTM over the words; 0 for none.
    pub num_rnn_layers: usize,
    /// Whether a label's vector is the state of the marker in front of it, and not that of the token behind the marker.
    pub embed_ent_token: bool,
    /// How a word of several tokens gets one vector.
    pub subtoken_pooling: SubtokenPooling,
    /// The id of the marker; below 0 if the tokenizer is to tell.
    pub class_token_index: i64,
    /// Rows of the token embeddings; below 0 if the weights are to tell.
    pub vocab_size: i64,
    /// The marker in front of each label.
    pub ent_token: String,
    /// The token between the labels and the text.
    pub sep_token: String,
    /// Dropout of the layers over the encoder.
    pub dropout: f64,
    /// The encoder.
    #[serde(skip, default = "any_encoder")]
    pub encoder_config: DebertaConfig,
    /// Keys that this crate does not use.
    #[serde(skip)]
    pub other: Map<String, Value>,
}

impl GlinerConfig {
    /// The reference's defaults over an encoder.
    pub fn new(encoder_config: DebertaConfig) -> Self {
        Self {
            model_name: "microsoft/deberta-v3-small".to_owned(),
            hidden_size: 512,
            max_width: 12,
            max_len: 384,
            span_mode: SpanMode::MarkerV0,
            num_rnn_layers: 1,
            embed_ent_token: true,
            subtoken_pooling: SubtokenPooling::First,
            class_token_index: -1,
            vocab_size: -1,
            ent_token: "<<ENT>>".to_owned(),
            sep_token: "<<SEP>>".to_owned(),
            dropout: 0.4,
            encoder_config,
            other: Map::new(),
        }
    }

    /// Whether a folder says that it is of this kind.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(GLINER_CONFIG).exists()
    }

    /// Reads `gliner_config.json` from a folder.
    ///
    /// # Errors
    /// The file is missing, is not JSON, holds an impossible value, or describes a model that is not supported.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(GLINER_CONFIG);
        Self::from_json(&text_file::read_text(&path)?).map_err(|error| error.in_config(&path))
    }

    /// Parses the text of a `gliner_config.json`.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), without the file's name.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut file = parse_object(text)?;
        refuse(&file)?;
        let encoder = encoder_config(&mut file)?;
        let (config, other) = overlay(&Self::new(any_encoder()), file)?;
        let (encoder_config, vocab_size) = match encoder {
            Some(encoder) => (encoder.clone(), encoder.vocab_size as i64),
            None => (named_encoder(&config.model_name, config.vocab_size)?, config.vocab_size),
        };
        let config = Self { encoder_config, vocab_size, other, ..config };
        config.validate()?;
        Ok(config)
    }

    /// The text of a `gliner_config.json` that the reference reads.
    pub fn to_json(&self) -> String {
        let mut map = self.other.clone();
        map.extend(object(self));
        let encoder = ModelConfig::from(self.encoder_config.clone()).to_json();
        // What was just written is JSON.
        map.insert("encoder_config".to_owned(), serde_json::from_str(&encoder).unwrap_or_default());
        format!("{:#}\n", Value::Object(map))
    }

    /// Checks every value that could make building or running the model fail.
    ///
    /// # Errors
    /// An [`Error::Config`] that names the first key with an impossible value.
    pub fn validate(&self) -> Result<()> {
        self.encoder_config.validate()?;
        require_size("hidden_size", self.hidden_size)?;
        require_size("max_width", self.max_width)?;
        require_size("max_len", self.max_len)?;
        require_probability("dropout", self.dropout)?;
        require("num_rnn_layers", self.num_rnn_layers, self.num_rnn_layers <= 1000, "from 0 to 1000")?;
        let halves = self.num_rnn_layers == 0 || self.hidden_size.is_multiple_of(2);
        require("hidden_size", self.hidden_size, halves, "even, for the two directions of the LSTM")?;
        require_matrix("hidden_size", 8 * self.hidden_size, self.hidden_size)?;
        require_matrix("hidden_size", self.hidden_size, self.encoder_config.hidden_size)?;
        let distinct = self.ent_token != self.sep_token && !self.ent_token.is_empty() && !self.sep_token.is_empty();
        require("sep_token", format!("`{}`", self.sep_token), distinct, "a token, and another one than ent_token")
    }
}

/// Refuses what is not supported.
fn refuse(file: &Map<String, Value>) -> Result<()> {
    refuse_layers(file, &REFUSED)?;
    let unsupported = |key: &str, problem: String| Err(Error::unsupported(format!("config key `{key}`"), problem));
    let of = |key: &str| file.get(key).and_then(Value::as_str);
    if let Some(splitter) = of("words_splitter_type").filter(|splitter| *splitter != "whitespace") {
        return unsupported("words_splitter_type", format!("`{splitter}` is not supported, expected `whitespace`"));
    }
    if let Some(mode) = of("span_mode").filter(|mode| !["marker", "markerV0", "token_level"].contains(mode)) {
        let problem = format!("`{mode}` is not supported, expected `markerV0`, `marker` or `token_level`");
        return unsupported("span_mode", problem);
    }
    Ok(())
}

/// The encoder of a published checkpoint, with as many token embeddings as are said, if any number is.
fn named_encoder(name: &str, vocab_size: i64) -> Result<DebertaConfig> {
    match name.parse::<Preset>().map(Preset::config) {
        Ok(ModelConfig::Deberta(config)) if config.model_type == DebertaVersion::V2 => {
            Ok(DebertaConfig { vocab_size: usize::try_from(vocab_size).unwrap_or(config.vocab_size), ..config })
        }
        _ => {
            let problem = format!(
                "there is no encoder_config, and `{name}` is not one of the DeBERTa v2 and v3 whose architecture is known"
            );
            Err(Error::unsupported("config key `model_name`", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terse_file_takes_the_named_encoder_and_the_defaults() {
        let config = GlinerConfig::from_json(r#"{"model_name": "microsoft/deberta-v3-small", "vocab_size": 128004}"#);
        let config = config.unwrap();
        assert_eq!((config.encoder_config.num_hidden_layers, config.encoder_config.hidden_size), (6, 768));
        assert_eq!((config.encoder_config.vocab_size, config.hidden_size, config.num_rnn_layers), (128004, 512, 1));
        assert_eq!((config.span_mode, config.max_width, config.max_len), (SpanMode::MarkerV0, 12, 384));
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let text = r#"{"encoder_config": {"hidden_size": 48, "num_attention_heads": 4, "vocab_size": 100},
            "span_mode": "token_level", "subtoken_pooling": "max", "num_rnn_layers": 0, "name": "x"}"#;
        let config = GlinerConfig::from_json(text).unwrap();
        assert_eq!(config.vocab_size, 100);
        assert_eq!(GlinerConfig::from_json(&config.to_json()).unwrap().to_json(), config.to_json());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, key) in [
            (r#"{"fuse_layers": true}"#, "fuse_layers"),
            (r#"{"post_fusion_schema": "l2l"}"#, "post_fusion_schema"),
            (r#"{"labels_encoder": "x"}"#, "labels_encoder"),
            (r#"{"labels_decoder": "x"}"#, "labels_decoder"),
            (r#"{"relations_layer": "x"}"#, "relations_layer"),
            (r#"{"precomputed_prompts_mode": true}"#, "precomputed_prompts_mode"),
            (r#"{"represent_spans": true}"#, "represent_spans"),
            (r#"{"span_mode": "conv_max"}"#, "span_mode"),
            (r#"{"words_splitter_type": "spacy"}"#, "words_splitter_type"),
            (r#"{"encoder_config": {"model_type": "bert"}}"#, "encoder_config.model_type"),
            (r#"{"model_name": "bert-base-cased"}"#, "model_name"),
            (r#"{"subtoken_pooling": "sum"}"#, "subtoken_pooling"),
            (r#"{"max_width": 0}"#, "max_width"),
            (r#"{"hidden_size": 33}"#, "hidden_size"),
            (r#"{"sep_token": "<<ENT>>"}"#, "sep_token"),
        ] {
            let message = GlinerConfig::from_json(text).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{text}: {message}");
        }
        // The reference writes these for a plain model.
        let off = r#"{"fuse_layers": false, "post_fusion_schema": "", "labels_encoder": null, "words_splitter_type": "whitespace"}"#;
        GlinerConfig::from_json(off).unwrap();
    }
}
