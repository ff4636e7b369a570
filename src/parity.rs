//! Proof that a checkpoint computes what the reference computes: it compares its outputs with those of transformers in
//! a file.
//!
//! `tests/fixtures/export_reference.py` writes such a file from any checkpoint of the Hub: `input_ids`, `attention_mask` and
//! optionally `token_type_ids` (i64, [batch, length], for multiple choice [batch, choices, length]), and any of
//! `hidden_states.0` … `hidden_states.N`, `last_hidden_state`, `logits`, `start_logits`, `end_logits` (f32).

use std::{collections::BTreeMap, fmt, path::Path};

use burn::tensor::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use crate::{
    Error, Result,
    batch::Batch,
    checkpoint::{Checkpoint, LoadOptions},
    config::ModelConfig,
    heads::{MaskedLm, MaskedLmLayout, MultipleChoice, QuestionAnswering, SequenceClassification, TokenClassification},
    model::{Backbone, ModelOutput, input::ModelInput},
    scores, text_file,
};

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row by row.
    pub values: Vec<f32>,
}

impl HostTensor {
    fn read<const D: usize>(tensor: Tensor<D>) -> Result<Self> {
        let shape = tensor.dims().to_vec();
        Ok(Self { shape, values: scores::values(tensor)? })
    }
}

/// Inputs and expected outputs of a model.
#[derive(Clone, Debug)]
pub struct Reference {
    batch: Batch,
    /// Choices of each question, for multiple choice.
    choices: Option<usize>,
    expected: BTreeMap<String, HostTensor>,
}

impl Reference {
    /// Reads a reference file.
    ///
    /// # Errors
    /// The file cannot be read, is no safetensors file, or lacks the inputs.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = text_file::read_bytes(path)?;
        let wrong = |problem: String| Error::file(path, problem);
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(format!("no safetensors file: {error}")))?;
        let integers = |name: &str| -> Result<Option<(Vec<usize>, Vec<i64>)>> {
            let Ok(view) = file.tensor(name) else { return Ok(None) };
            if view.dtype() != Dtype::I64 {
                return Err(wrong(format!("`{name}` is {:?}, expected I64", view.dtype())));
            }
            let values =
                view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap_or_default()));
            Ok(Some((view.shape().to_vec(), values.collect())))
        };
        let required = |name: &str| integers(name)?.ok_or_else(|| wrong(format!("`{name}` is missing")));

        let (shape, ids) = required("input_ids")?;
        let (rows, length, choices) = match shape[..] {
            [rows, length] => (rows, length, None),
            [rows, choices, length] => (rows * choices, length, Some(choices)),
            _ => return Err(wrong(format!("`input_ids` has shape {shape:?}, expected [batch, length]"))),
        };
        let same_shape = |name: &str, other: &[usize]| match other == shape {
            true => Ok(()),
            false => Err(wrong(format!("`{name}` has shape {other:?}, expected that of `input_ids`, {shape:?}"))),
        };
        let narrow = |name: &str, values: Vec<i64>| -> Result<Vec<i32>> {
            let id = |value| i32::try_from(value).map_err(|_| wrong(format!("`{name}` holds {value}, which is no id")));
            values.into_iter().map(id).collect()
        };
        let (mask_shape, mask) = required("attention_mask")?;
        same_shape("attention_mask", &mask_shape)?;
        let token_type_ids = match integers("token_type_ids")? {
            Some((types_shape, types)) => {
                same_shape("token_type_ids", &types_shape)?;
                narrow("token_type_ids", types)?
            }
            None => vec![0; ids.len()],
        };
        let attention_mask = mask.iter().map(|token| *token != 0).collect();
        let batch = Batch { rows, length, input_ids: narrow("input_ids", ids)?, attention_mask, token_type_ids };

        let mut expected = BTreeMap::new();
        for (name, view) in file.tensors() {
            if !is_output(&name) {
                continue;
            }
            if view.dtype() != Dtype::F32 {
                return Err(wrong(format!("`{name}` is {:?}, expected F32", view.dtype())));
            }
            let values =
                view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap_or_default()));
            expected.insert(name, HostTensor { shape: view.shape().to_vec(), values: values.collect() });
        }
        if expected.is_empty() {
            return Err(wrong(
                "it holds no output to compare with, such as `logits` or `last_hidden_state`".to_owned(),
            ));
        }
        Ok(Self { batch, choices, expected })
    }

    /// The reference's inputs for a model of this configuration.
    ///
    /// # Errors
    /// They do not fit the model.
    pub fn input(&self, config: &ModelConfig, device: &Device) -> Result<ModelInput> {
        self.batch.to_input(config, device)
    }

    /// Whether the reference holds an output of this name.
    pub fn has_output(&self, name: &str) -> bool {
        self.expected.contains_key(name)
    }

    /// Compares one output, by name, at tokens that are not padding.
    ///
    /// # Errors
    /// The reference has no such output, or one of another shape.
    pub fn compare_output<const D: usize>(&self, name: &str, output: Tensor<D>) -> Result<ComparisonRow> {
        let missing = || Error::input("reference", format!("it holds no `{name}`"));
        let expected = self.expected.get(name).ok_or_else(missing)?;
        let per_token = expected.shape.starts_with(&[self.batch.rows, self.batch.length]);
        self.row(name, expected, &HostTensor::read(output)?, per_token)
    }

    /// Runs the checkpoint in `folder` on the reference's inputs, and compares at tokens that are not padding.
    ///
    /// The head is the one that `architectures` in `config.json` names, with transformers' arithmetic: `…ForMaskedLM` reads the
    /// last layer, without the enhanced mask decoder.
    ///
    /// # Errors
    /// The checkpoint cannot be loaded, does not fit the inputs, or does not produce what the reference expects.
    pub fn compare(&self, folder: impl AsRef<Path>, device: &Device) -> Result<Comparison> {
        let checkpoint = Checkpoint::open(&folder)?;
        let config = ModelConfig::from_folder(&folder)?;
        let input = self.input(&config, device)?;
        let computed = self.run(&config, &checkpoint, input, device)?;
        let rows = self.expected.iter().map(|(name, expected)| {
            let missing =
                || Error::unsupported("model", format!("it computes no `{name}`, which the reference expects"));
            // Logits of two axes are [batch, labels], of three [batch, length, labels].
            let per_token = name != "logits" || expected.shape.len() == 3;
            self.row(name, expected, computed.get(name).ok_or_else(missing)?, per_token)
        });
        Ok(Comparison { rows: rows.collect::<Result<_>>()? })
    }

    /// The outputs by name.
    fn run(
        &self,
        config: &ModelConfig,
        checkpoint: &Checkpoint,
        input: ModelInput,
        device: &Device,
    ) -> Result<BTreeMap<String, HostTensor>> {
        let mut outputs = BTreeMap::new();
        if self.expected.keys().any(|name| name.contains("hidden_state")) {
            let model = checkpoint.load(Backbone::new(config, device), &LoadOptions::default())?.0;
            let output = model.forward(input.clone().with_hidden_states());
            let ModelOutput { last_hidden_state, hidden_states, .. } = output;
            outputs.insert("last_hidden_state".to_owned(), HostTensor::read(last_hidden_state)?);
            for (layer, states) in hidden_states.unwrap_or_default().into_iter().enumerate() {
                outputs.insert(format!("hidden_states.{layer}"), HostTensor::read(states)?);
            }
        }
        if self.expected.keys().any(|name| name.contains("logits")) {
            let architecture = config.task().architectures.first().map_or("", String::as_str);
            let task = architecture.split_once("For").map_or("", |(_, task)| task);
            self.run_head(task, config, checkpoint, input, device, &mut outputs)?;
        }
        Ok(outputs)
    }

    fn run_head(
        &self,
        task: &str,
        config: &ModelConfig,
        checkpoint: &Checkpoint,
        input: ModelInput,
        device: &Device,
        outputs: &mut BTreeMap<String, HostTensor>,
    ) -> Result<()> {
        let options = LoadOptions::default();
        let logits = match task {
            "MaskedLM" => {
                let legacy = matches!(config, ModelConfig::Deberta(config) if config.legacy);
                let layout = if legacy { MaskedLmLayout::Legacy } else { MaskedLmLayout::LastLayer };
                let model = checkpoint.load(MaskedLm::new(config, layout, device)?, &options)?.0;
                HostTensor::read(model.forward(input))?
            }
            "SequenceClassification" => {
                let model = checkpoint.load(SequenceClassification::new(config, device), &options)?.0;
                HostTensor::read(model.forward(input))?
            }
            "TokenClassification" => {
                let model = checkpoint.load(TokenClassification::new(config, device), &options)?.0;
                HostTensor::read(model.forward(input))?
            }
            "MultipleChoice" => {
                let problem = "multiple choice needs `input_ids` of [batch, choices, length]";
                let missing = || Error::input("reference", problem);
                let choices = self.choices.ok_or_else(missing)?;
                let model = checkpoint.load(MultipleChoice::new(config, device), &options)?.0;
                HostTensor::read(model.forward(input, choices))?
            }
            "QuestionAnswering" => {
                let model = checkpoint.load(QuestionAnswering::new(config, device), &options)?.0;
                let span = model.forward(input);
                outputs.insert("start_logits".to_owned(), HostTensor::read(span.start)?);
                outputs.insert("end_logits".to_owned(), HostTensor::read(span.end)?);
                return Ok(());
            }
            _ => {
                let found = format!("{:?}", config.task().architectures);
                let expected = "a name with For and MaskedLM, SequenceClassification, TokenClassification, MultipleChoice or \
                                QuestionAnswering, to know which head has the logits";
                return Err(Error::config("architectures", found, expected));
            }
        };
        outputs.insert("logits".to_owned(), logits);
        Ok(())
    }

    /// Compares one tensor. If its rows belong to tokens, padding is left out.
    fn row(&self, name: &str, expected: &HostTensor, computed: &HostTensor, per_token: bool) -> Result<ComparisonRow> {
        if expected.shape != computed.shape {
            let (expected, computed) = (&expected.shape, &computed.shape);
            let problem = format!("its shape is {computed:?}, the reference's is {expected:?}");
            return Err(Error::input(format!("output `{name}`"), problem));
        }
        let tokens = self.batch.attention_mask.len();
        let width = expected.values.len() / tokens.max(1);
        let counted = |index: &usize| !per_token || self.batch.attention_mask[index / width];

        let mut row = ComparisonRow { name: name.to_owned(), max: 0.0, mean: 0.0, at: Vec::new(), compared: 0 };
        let mut worst = 0;
        for index in (0..expected.values.len()).filter(counted) {
            let difference = f64::from(expected.values[index] - computed.values[index]).abs();
            // NaN counts as the largest difference.
            if row.compared == 0 || difference > row.max || difference.is_nan() {
                (row.max, worst) = (if difference.is_nan() { f64::INFINITY } else { difference }, index);
            }
            row.mean += difference;
            row.compared += 1;
        }
        row.mean /= row.compared.max(1) as f64;
        row.at = coordinates(worst, &expected.shape);
        Ok(row)
    }
}

fn is_output(name: &str) -> bool {
    name.starts_with("hidden_states.") || matches!(name, "last_hidden_state" | "logits" | "start_logits" | "end_logits")
}

/// The indices of element `index` in a tensor of `shape`.
fn coordinates(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut at: Vec<_> = shape
        .iter()
        .rev()
        .map(|size| {
            let size = (*size).max(1);
            let coordinate = index % size;
            index /= size;
            coordinate
        })
        .collect();
    at.reverse();
    at
}

/// How far one tensor is from the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparisonRow {
    /// The tensor.
    pub name: String,
    /// Largest absolute difference.
    pub max: f64,
    /// Mean absolute difference.
    pub mean: f64,
    /// Where the largest is.
    pub at: Vec<usize>,
    /// Number of elements compared.
    pub compared: usize,
}

/// One row for each tensor. As text it is a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The rows, by name.
    pub rows: Vec<ComparisonRow>,
}

impl Comparison {
    /// The largest difference of all.
    pub fn max(&self) -> f64 {
        self.rows.iter().map(|row| row.max).fold(0.0, f64::max)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>10} {:>10} {:>10}  at", "tensor", "max", "mean", "elements")?;
        for ComparisonRow { name, max, mean, at, compared } in &self.rows {
            writeln!(f, "{name:<20} {max:>10.2e} {mean:>10.2e} {compared:>10}  {at:?}")?;
        }
        Ok(())
    }
}
