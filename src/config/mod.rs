//! The configuration of a model: the Hub's `config.json`.
//!
//! Unknown keys are kept and otherwise ignored. Missing keys take the defaults of the reference
//! (`configuration_deberta.py`, `configuration_deberta_v2.py`, `configuration_roberta.py` of transformers 5.23). A
//! value that no model can have is an [`Error::Config`], which names the key.

mod activation;
mod deberta;
mod gliclass;
mod gliner;
mod preset;
mod roberta;
mod switch;
mod task;

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub use activation::Activation;
pub use deberta::{DebertaConfig, DebertaVersion, PositionTerms};
pub use gliclass::{ClassTokenPooling, GliClassConfig};
pub use gliner::{GlinerConfig, SpanMode, SubtokenPooling};
pub use preset::Preset;
pub use roberta::RobertaConfig;
pub use switch::SwitchConfig;
pub use task::{ProblemType, TaskConfig};

use crate::{Error, Result, foreign, text_file};

/// The values of `model_type` that are read.
const MODEL_TYPES: &str = "`deberta`, `deberta-v2` or `roberta`";

/// The configuration of any model of this crate, told apart by `model_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// `model_type` is `deberta` (v1) or `deberta-v2` (v2, v3, mDeBERTa).
    Deberta(DebertaConfig),
    /// `model_type` is `roberta`.
    Roberta(RobertaConfig),
}

impl ModelConfig {
    /// Reads `config.json` from a checkpoint folder.
    ///
    /// # Errors
    /// The file is missing, is not JSON, names another `model_type`, or holds an impossible value. If the folder is no
    /// complete model (but an adapter, for example), the error says what it is.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let (folder, path) = (folder.as_ref(), folder.as_ref().join("config.json"));
        match foreign::unsupported(folder, foreign::Part::Model).filter(|_| !path.exists()) {
            Some(error) => Err(error),
            None => Self::from_file(path),
        }
    }

    /// Reads a file of any name.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_json(&text_file::read_text(path)?).map_err(|error| error.in_config(path))
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder), without the file's name.
    pub fn from_json(text: &str) -> Result<Self> {
        let map = parse_object(text)?;
        match map.get("model_type").and_then(Value::as_str) {
            Some("deberta" | "deberta-v2") => DebertaConfig::from_map(map).map(Self::Deberta),
            Some("roberta") => RobertaConfig::from_map(map).map(Self::Roberta),
            None => Err(Error::config("model_type", "missing", MODEL_TYPES)),
            Some(name) => {
                let advice = match name {
                    "GLiClass" => "; a GLiClass model is opened with the pipeline ZeroShot (example zero_shot)",
                    "xlm-roberta" | "xlm-roberta-xl" => "; the multilingual model that can be read is mDeBERTa",
                    _ => "",
                };
                let problem = format!("`{name}` is not supported, expected {MODEL_TYPES}{advice}");
                Err(Error::unsupported("config key `model_type`", problem))
            }
        }
    }

    /// The text of a `config.json` that [`from_json`](Self::from_json) and transformers read.
    pub fn to_json(&self) -> String {
        match self {
            Self::Deberta(config) => config.to_json(),
            Self::Roberta(config) => config.to_json(),
        }
    }

    /// Rows of the table of word embeddings: ids are below it.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Deberta(config) => config.vocab_size,
            Self::Roberta(config) => config.vocab_size,
        }
    }

    /// Adapts the configuration of a model that is trained from scratch to a vocabulary: one row of the embeddings for
    /// each of `tokens`, rounded up to a multiple of 8, and the id of the padding token.
    ///
    /// # Errors
    /// A vocabulary that does not fit the other values of the configuration.
    pub fn fit_vocabulary(&mut self, tokens: usize, pad_id: u32) -> Result<()> {
        let (vocabulary, padding) = match self {
            Self::Deberta(config) => (&mut config.vocab_size, &mut config.pad_token_id),
            Self::Roberta(config) => (&mut config.vocab_size, &mut config.pad_token_id),
        };
        *vocabulary = tokens.next_multiple_of(8);
        *padding = pad_id as usize;
        self.validate()
    }

    /// Checks every value that could make building or running the model fail.
    ///
    /// # Errors
    /// An [`Error::Config`] that names the first key with an impossible value.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Deberta(config) => config.validate(),
            Self::Roberta(config) => config.validate(),
        }
    }

    /// The task's part of the configuration: architectures, labels, problem type.
    pub fn task(&self) -> &TaskConfig {
        match self {
            Self::Deberta(config) => &config.task,
            Self::Roberta(config) => &config.task,
        }
    }

    /// The task's part of the configuration, mutable.
    pub fn task_mut(&mut self) -> &mut TaskConfig {
        match self {
            Self::Deberta(config) => &mut config.task,
            Self::Roberta(config) => &mut config.task,
        }
    }

    /// Numbers of a hidden state.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Deberta(config) => config.hidden_size,
            Self::Roberta(config) => config.hidden_size,
        }
    }

    /// Says that the checkpoint is for a task, by the end of transformers' name for such a model: `ForTokenClassification` makes
    /// `architectures` of a DeBERTa v3 `DebertaV2ForTokenClassification`.
    pub fn set_architecture(&mut self, task: &str) {
        let name = match self {
            Self::Deberta(config) => config.model_type.class_name(task),
            Self::Roberta(_) => format!("Roberta{task}"),
        };
        self.task_mut().architectures = vec![name];
    }

    /// Sets the dropout in front of a classifier.
    pub fn set_classifier_dropout(&mut self, dropout: f64) {
        match self {
            Self::Deberta(config) => config.cls_dropout = Some(dropout),
            Self::Roberta(config) => config.classifier_dropout = Some(dropout),
        }
    }

    /// The Switch layers, if the model has any.
    pub fn switch(&self) -> Option<&SwitchConfig> {
        match self {
            Self::Deberta(config) => config.switch.as_ref(),
            Self::Roberta(config) => config.switch.as_ref(),
        }
    }

    /// Gives the model Switch layers.
    pub fn set_switch(&mut self, switch: SwitchConfig) {
        match self {
            Self::Deberta(config) => config.switch = Some(switch),
            Self::Roberta(config) => config.switch = Some(switch),
        }
    }

    /// Number of encoder layers.
    pub fn num_hidden_layers(&self) -> usize {
        match self {
            Self::Deberta(config) => config.num_hidden_layers,
            Self::Roberta(config) => config.num_hidden_layers,
        }
    }

    /// The longest input in tokens that the model can take, if there is a limit. Absolute positions set a limit, at the
    /// input and also in the enhanced mask decoder of a masked language model (`…ForMaskedLM` in `architectures`).
    /// Relative positions set none.
    pub fn max_length(&self) -> Option<usize> {
        match self {
            Self::Deberta(config) => config.has_absolute_positions().then_some(config.max_position_embeddings),
            Self::Roberta(config) => Some(config.max_length()),
        }
    }

    /// The length in tokens that the model was trained with: a good default for truncation.
    pub fn trained_length(&self) -> usize {
        match self {
            Self::Deberta(config) => config.max_position_embeddings,
            Self::Roberta(config) => config.max_length(),
        }
    }
}

/// What the configuration file beside a model's weights says: that of a model as transformers knows it, or of a model around
/// an encoder.
pub trait Configuration: std::fmt::Debug + Sync {
    /// The encoder's configuration.
    fn encoder(&self) -> ModelConfig;

    /// The name of the file, and its text with this configuration of the encoder.
    fn file(&self, encoder: &ModelConfig) -> (&'static str, String);
}

impl Configuration for ModelConfig {
    fn encoder(&self) -> ModelConfig {
        self.clone()
    }

    fn file(&self, encoder: &ModelConfig) -> (&'static str, String) {
        ("config.json", encoder.to_json())
    }
}

impl From<DebertaConfig> for ModelConfig {
    fn from(config: DebertaConfig) -> Self {
        Self::Deberta(config)
    }
}

impl From<RobertaConfig> for ModelConfig {
    fn from(config: RobertaConfig) -> Self {
        Self::Roberta(config)
    }
}

fn parse_object(text: &str) -> Result<Map<String, Value>> {
    text_file::parse_json(text).map_err(Error::json("config.json"))
}

/// Refuses keys of layers that are not supported; null, false and empty values turn them off.
fn refuse_layers(file: &Map<String, Value>, keys: &[&str]) -> Result<()> {
    let is_off = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == "";
    for key in keys {
        if let Some(value) = file.get(*key).filter(|value| !is_off(value)) {
            let problem = format!("`{value}` asks for layers that are not supported");
            return Err(Error::unsupported(format!("config key `{key}`"), problem));
        }
    }
    Ok(())
}

/// Takes the encoder out of the configuration of a model around it. As in the references, it is a DeBERTa v2 if it does not
/// say.
fn encoder_config(file: &mut Map<String, Value>) -> Result<Option<DebertaConfig>> {
    let mut map = match file.remove("encoder_config") {
        Some(Value::Object(map)) => map,
        None | Some(Value::Null) => return Ok(None),
        Some(other) => return Err(Error::config("encoder_config", other, "an object")),
    };
    match map.entry("model_type").or_insert_with(|| "deberta-v2".into()) {
        model_type if *model_type == "deberta-v2" => DebertaConfig::from_map(map).map(Some),
        model_type => {
            let problem = format!("{model_type} is not supported, expected `deberta-v2`");
            Err(Error::unsupported("config key `encoder_config.model_type`", problem))
        }
    }
}

/// The place of an encoder that is not read yet.
fn any_encoder() -> DebertaConfig {
    DebertaConfig::new(DebertaVersion::V2)
}

/// Replaces defaults by the file's keys, as far as `C` has them. The other keys are returned beside it.
fn overlay<C: Serialize + DeserializeOwned>(defaults: &C, file: Map<String, Value>) -> Result<(C, Map<String, Value>)> {
    let mut known = object(defaults);
    let mut other = Map::new();
    for (key, value) in file {
        match known.get_mut(&key) {
            // The reference writes an unset option as null.
            Some(_) if value.is_null() => {}
            Some(slot) => *slot = value,
            None => drop(other.insert(key, value)),
        }
    }
    let values = Value::Object(known.clone());
    let config = serde_path_to_error::deserialize(values).map_err(|error| {
        let key = error.path().to_string();
        // A key of a part is `part.key`.
        let (part, inner) = key.split_once('.').map_or((key.as_str(), None), |(part, inner)| (part, Some(inner)));
        let found = known.get(part).and_then(|value| inner.map_or(Some(value), |inner| value.get(inner)));
        let found = found.map_or("unreadable".to_owned(), Value::to_string);
        let problem = error.inner().to_string();
        // serde's message is `invalid type: .., expected ..`; `found` has the first half already.
        let expected = problem.rsplit_once("expected ").map_or(problem.as_str(), |(_, expected)| expected);
        Error::config(key, found, expected)
    })?;
    Ok((config, other))
}

/// The JSON object of a plain configuration struct.
fn object<C: Serialize>(config: &C) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        // A struct of numbers, strings and lists serialises to nothing else.
        other => unreachable!("a configuration serialises to an object, not {other:?}"),
    }
}

/// `{known} + {task} + {other}`, pretty, with a final newline.
fn write_json<C: Serialize>(known: &C, task: &TaskConfig, other: &Map<String, Value>) -> String {
    let mut map = other.clone();
    map.extend(object(known).into_iter().filter(|(_, value)| !value.is_null()));
    map.extend(task.to_map());
    format!("{:#}\n", Value::Object(map))
}

/// A check for both families: it fails unless the value `holds`.
fn require(key: &'static str, found: impl std::fmt::Display, holds: bool, expected: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(key, found, expected)) }
}

fn require_probability(key: &'static str, value: f64) -> Result<()> {
    require(key, value, (0.0..1.0).contains(&value), "a probability from 0 up to, but not including, 1")
}

/// The number of layers. All are created with the model, so a damaged file must not ask for a billion.
fn require_layers(value: usize) -> Result<()> {
    require("num_hidden_layers", value, (1..=1000).contains(&value), "from 1 to 1000")
}

/// The largest width or number of rows.
const MAX_SIZE: usize = 1 << 28;

/// The largest number of elements of one matrix. The largest matrix of a published model is the token embeddings of
/// v2-xxlarge, 2^27.6.
const MAX_ELEMENTS: usize = 1 << 34;

/// A width or a number of rows.
fn require_size(key: &'static str, value: usize) -> Result<()> {
    require(key, value, (1..=MAX_SIZE).contains(&value), "from 1 to 2^28")
}

/// A matrix of `rows` x `columns` must fit into memory; `key` is the key of its rows.
fn require_matrix(key: &'static str, rows: usize, columns: usize) -> Result<()> {
    let fits = rows.checked_mul(columns).is_some_and(|elements| elements <= MAX_ELEMENTS);
    let expected = format!("at most 2^34 elements in a matrix, which has {columns} columns");
    require(key, rows, fits, &expected)
}

fn require_positive(key: &'static str, value: f64) -> Result<()> {
    require(key, value, value > 0.0 && value.is_finite(), "above 0 and finite")
}

fn require_deviation(key: &'static str, value: f64) -> Result<()> {
    require(key, value, value >= 0.0 && value.is_finite(), "at least 0 and finite")
}

#[cfg(test)]
mod tests;
