//! The task's part of `config.json`: which head, which labels, which loss.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// The loss of a sequence classifier (`problem_type` in transformers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// One number: mean squared error.
    Regression,
    /// One of several labels: cross entropy.
    SingleLabelClassification,
    /// Any number of labels: binary cross entropy of each.
    MultiLabelClassification,
}

/// Architectures, labels and problem type of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskConfig {
    /// Names such as `DebertaV2ForSequenceClassification`.
    pub architectures: Vec<String>,
    /// The label of each output, in order; empty if the file names none.
    pub labels: Vec<String>,
    /// The loss, if the file sets it.
    pub problem_type: Option<ProblemType>,
}

impl TaskConfig {
    /// Number of outputs: that of the labels, or two (the default of transformers).
    pub fn num_labels(&self) -> usize {
        if self.labels.is_empty() { 2 } else { self.labels.len() }
    }

    /// The name of output `index`; `LABEL_{index}` if the file names none.
    pub fn label(&self, index: usize) -> String {
        self.labels.get(index).cloned().unwrap_or_else(|| format!("LABEL_{index}"))
    }

    /// The loss to use: that of the file; otherwise regression for one output, and single label for more.
    pub fn problem_type(&self) -> ProblemType {
        self.problem_type.unwrap_or(match self.num_labels() {
            1 => ProblemType::Regression,
            _ => ProblemType::SingleLabelClassification,
        })
    }

    /// The same with `count` labels without names of their own.
    pub fn with_num_labels(self, count: usize) -> Self {
        Self { labels: (0..count).map(|index| format!("LABEL_{index}")).collect(), ..self }
    }

    /// Takes the task's keys out of a `config.json`. The labels are those of `id2label`, otherwise of `label2id`; if
    /// both are absent, `num_labels` gives their number.
    pub(super) fn take(file: &mut Map<String, Value>) -> Result<Self> {
        let mut take = |key: &str| file.remove(key).filter(|value| !value.is_null());
        let mut task = Self::default();
        if let Some(value) = take("architectures") {
            task.architectures = parse("architectures", value, "a list of class names")?;
        }
        if let Some(value) = take("problem_type") {
            let expected = "`regression`, `single_label_classification` or `multi_label_classification`";
            task.problem_type = Some(parse("problem_type", value, expected)?);
        }
        let (id2label, label2id, num_labels) = (take("id2label"), take("label2id"), take("num_labels"));
        if let Some(value) = id2label {
            task.labels = labels(&value)?;
        } else if let Some(value) = label2id {
            task.labels = labels_of_ids(&value)?;
        } else if let Some(value) = num_labels {
            // A count beyond that of any checkpoint could only exhaust the memory.
            match value.as_u64() {
                Some(count @ 1..=1_000_000) => task = task.with_num_labels(count as usize),
                _ => return Err(Error::config("num_labels", value, "a number from 1 to 1000000")),
            }
        }
        Ok(task)
    }

    /// The keys as `config.json` spells them.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        if !self.architectures.is_empty() {
            map.insert("architectures".into(), json!(self.architectures));
        }
        if !self.labels.is_empty() {
            let id2label: Map<_, _> =
                self.labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
            let label2id: Map<_, _> =
                self.labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id))).collect();
            map.insert("id2label".into(), Value::Object(id2label));
            map.insert("label2id".into(), Value::Object(label2id));
        }
        if let Some(kind) = self.problem_type {
            map.insert("problem_type".into(), json!(kind));
        }
        map
    }
}

fn parse<T: DeserializeOwned>(key: &str, value: Value, expected: &str) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|_| Error::config(key, value, expected))
}

/// `id2label` as a list. A number or boolean as a label becomes its text.
fn labels(value: &Value) -> Result<Vec<String>> {
    let entries = value.as_object().and_then(|entries| {
        entries.iter().map(|(id, label)| Some((id.trim().parse().ok()?, text(label)?))).collect::<Option<Vec<_>>>()
    });
    entries
        .and_then(in_order)
        .ok_or_else(|| Error::config("id2label", value, "an object from \"0\", \"1\", … without a gap to label names"))
}

/// `label2id` as a list. An id may be written as text.
fn labels_of_ids(value: &Value) -> Result<Vec<String>> {
    let entries = value.as_object().and_then(|entries| {
        let id = |id: &Value| text(id)?.trim().parse().ok();
        entries.iter().map(|(label, value)| Some((id(value)?, label.clone()))).collect::<Option<Vec<_>>>()
    });
    entries.and_then(in_order).ok_or_else(|| {
        Error::config("label2id", value, "an object from label names to 0, 1, … without a gap, each once")
    })
}

/// The labels by their ids, which must be 0, 1, 2, … without a gap.
fn in_order(mut entries: Vec<(usize, String)>) -> Option<Vec<String>> {
    entries.sort();
    let is_whole = !entries.is_empty() && entries.iter().map(|(id, _)| *id).eq(0..entries.len());
    is_whole.then(|| entries.into_iter().map(|(_, label)| label).collect())
}

/// The text of a value that is one word.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}
