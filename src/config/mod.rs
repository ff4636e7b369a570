//! What a model is made of, as the Hub's `config.json` says it.
//!
//! A file is read as it is: unknown keys are kept and otherwise ignored, missing ones take the defaults of the reference
//! (`configuration_deberta.py`, `configuration_deberta_v2.py`, `configuration_roberta.py` of transformers 5.23), and a value
//! that no model can have is an [`Error::Config`] that names its key.

mod activation;
mod deberta;
mod preset;
mod roberta;
mod task;

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub use activation::Activation;
pub use deberta::{DebertaConfig, DebertaVersion, PositionTerms};
pub use preset::Preset;
pub use roberta::RobertaConfig;
pub use task::{ProblemType, TaskConfig};

use crate::{Error, Result, foreign, text_file};

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
    /// The file is missing, is not JSON, names another `model_type`, or holds an impossible value. Of a folder that is no
    /// model of its own (an adapter, for one), the error says what it is.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let (folder, path) = (folder.as_ref(), folder.as_ref().join("config.json"));
        match foreign::explain(folder, foreign::Part::Model).filter(|_| !path.exists()) {
            Some(problem) => Err(Error::checkpoint(folder, problem)),
            None => Self::from_file(path),
        }
    }

    /// Reads a file of any name.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_json(&text_file::read_text(path)?).map_err(|error| match error {
            Error::Json { source, .. } => Error::json(path.display())(source),
            other => Error::input(path.display().to_string(), other.to_string()),
        })
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
            Some(name @ ("xlm-roberta" | "xlm-roberta-xl")) => Err(Error::config(
                "model_type",
                format!("`{name}`"),
                "`deberta`, `deberta-v2` or `roberta`; the multilingual model that can be read is mDeBERTa",
            )),
            found => Err(Error::config(
                "model_type",
                found.map_or("missing".to_owned(), |name| format!("`{name}`")),
                "`deberta`, `deberta-v2` or `roberta`",
            )),
        }
    }

    /// The text of a `config.json` that [`from_json`](Self::from_json) and transformers read.
    pub fn to_json(&self) -> String {
        match self {
            Self::Deberta(config) => config.to_json(),
            Self::Roberta(config) => config.to_json(),
        }
    }

    /// Fits a model that is to be trained from scratch to a vocabulary: a row of the embeddings for each of `tokens`, in a
    /// multiple of 8, and the id of the padding.
    ///
    /// # Errors
    /// A vocabulary that the configuration's other values do not allow.
    pub fn fit_vocabulary(&mut self, tokens: usize, pad_id: u32) -> Result<()> {
        let (vocabulary, padding) = match self {
            Self::Deberta(config) => (&mut config.vocab_size, &mut config.pad_token_id),
            Self::Roberta(config) => (&mut config.vocab_size, &mut config.pad_token_id),
        };
        *vocabulary = tokens.next_multiple_of(8);
        *padding = pad_id as usize;
        match self {
            Self::Deberta(config) => config.validate(),
            Self::Roberta(config) => config.validate(),
        }
    }

    /// What the configuration says of the task: architectures, labels, kind of problem.
    pub fn task(&self) -> &TaskConfig {
        match self {
            Self::Deberta(config) => &config.task,
            Self::Roberta(config) => &config.task,
        }
    }

    /// The task's part, to be changed.
    pub fn task_mut(&mut self) -> &mut TaskConfig {
        match self {
            Self::Deberta(config) => &mut config.task,
            Self::Roberta(config) => &mut config.task,
        }
    }

    /// Number of encoder layers.
    pub fn num_hidden_layers(&self) -> usize {
        match self {
            Self::Deberta(config) => config.num_hidden_layers,
            Self::Roberta(config) => config.num_hidden_layers,
        }
    }

    /// The longest input in tokens that the model can take, if it has a limit. Absolute positions set one, whether they are
    /// added at the input or by the enhanced mask decoder of a masked language model (`…ForMaskedLM` in `architectures`);
    /// relative positions do not.
    pub fn max_length(&self) -> Option<usize> {
        match self {
            Self::Deberta(config) => config.has_absolute_positions().then_some(config.max_position_embeddings),
            Self::Roberta(config) => Some(config.max_length()),
        }
    }

    /// The length in tokens that the model was trained with, the sensible default for truncation.
    pub fn trained_length(&self) -> usize {
        match self {
            Self::Deberta(config) => config.max_position_embeddings,
            Self::Roberta(config) => config.max_length(),
        }
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

/// Lays the file's keys over the defaults and takes what `C` knows; what is left is returned beside it.
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
        let found = known.get(&key).map_or("unreadable".to_owned(), Value::to_string);
        let problem = error.inner().to_string();
        // serde says `invalid type: .., expected ..`; the first half is in `found` already.
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

/// Checks shared by both families: `key`, value, whether it is possible, what would be.
fn require(key: &'static str, found: impl std::fmt::Display, holds: bool, expected: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(key, found, expected)) }
}

fn require_probability(key: &'static str, value: f64) -> Result<()> {
    require(key, value, (0.0..1.0).contains(&value), "a probability from 0 up to, but not including, 1")
}

/// The number of layers: each is made when the model is, so that a damaged file must not ask for a billion.
fn require_layers(value: usize) -> Result<()> {
    require("num_hidden_layers", value, (1..=1000).contains(&value), "from 1 to 1000")
}

/// Most of a width or a number of rows.
const MAX_SIZE: usize = 1 << 28;

/// Most elements of one matrix. The largest of a published model holds the token embeddings of v2-xxlarge, 2^27.6.
const MAX_ELEMENTS: usize = 1 << 34;

/// A width or a number of rows.
fn require_size(key: &'static str, value: usize) -> Result<()> {
    require(key, value, (1..=MAX_SIZE).contains(&value), "from 1 to 2^28")
}

/// A matrix of `rows` x `columns`, which must be one that a computer can hold; `key` is that of its rows.
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
