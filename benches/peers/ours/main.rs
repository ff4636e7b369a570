//! This crate behind the protocol of `benches/README.md`, used as its users use it.

#[path = "../../../examples/common/allocator.rs"]
mod allocator;
#[path = "../../common/training.rs"]
mod training;

use std::{
    fs,
    io::{self, BufRead, Write},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Distribution, TensorData},
};
use deberta_burn::{
    Backbone, Int8Layers, ModelConfig, ModelInput, Precision, Prepared,
    checkpoint::{Checkpoint, LoadOptions},
    device::{describe, one_thread_a_core},
    heads::{QuestionAnswering, SequenceClassification, TokenClassification},
    model::InferenceModel,
    pipeline::{Gliner, GlinerOptions, PipelineOptions},
    tokenizer::{Batch, Encoding, Padding},
};
use serde::Deserialize;
use serde_json::{Value, json};
use training::Training;

const UNLOADED: &str = "no model is loaded";

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
enum Command {
    Load(Load),
    Forward {
        texts: Vec<Vec<u32>>,
        save: Option<PathBuf>,
    },
    Train {
        texts: Vec<Vec<u32>>,
        labels: Vec<i32>,
    },
    Gemm {
        size: usize,
    },
    /// Opens a GLiNER folder.
    Gliner {
        model: PathBuf,
    },
    /// Finds entities with it.
    Entities {
        texts: Vec<String>,
        labels: Vec<String>,
        threshold: f32,
    },
}

#[derive(Deserialize)]
struct Load {
    model: PathBuf,
    precision: String,
    /// Logits of the head that config.json names, instead of hidden states.
    head: bool,
    train: bool,
    sift: bool,
}

fn main() -> Result<()> {
    allocator::keep_freed_memory();
    one_thread_a_core();
    let (mut session, mut gliner) = (None, None);
    for line in io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Command::Load(load) => match precision(&load.precision) {
                Some(precision) => {
                    session = Some(Session::load(&load, precision)?);
                    json!({ "kernels": precision.describe(&Device::flex()) })
                }
                None => json!({ "unsupported": format!("this crate has no {}", load.precision) }),
            },
            Command::Gemm { size } => gemm(size),
            Command::Gliner { model } => {
                // As many texts in one batch as the package gets.
                let options = PipelineOptions { batch_tokens: usize::MAX, ..PipelineOptions::new(Device::flex()) };
                gliner = Some(Gliner::from_folder(model, options)?);
                json!({ "kernels": describe() })
            }
            Command::Entities { texts, labels, threshold } => {
                let start = Instant::now();
                let options = GlinerOptions { threshold, ..GlinerOptions::default() };
                let found = gliner.as_ref().context(UNLOADED)?.find(&texts, &labels, options)?;
                json!({ "seconds": start.elapsed().as_secs_f64(), "entities": found })
            }
            Command::Forward { texts, save } => session.as_ref().context(UNLOADED)?.forward(&texts, save)?,
            Command::Train { texts, labels } => session.as_mut().context(UNLOADED)?.train(&texts, labels)?,
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// A loaded model.
struct Session {
    config: ModelConfig,
    device: Device,
    model: Model,
}

enum Model {
    Inference(Forward),
    Training(Box<Training>),
}

/// From an input to the values of the last hidden states or of logits, row by row.
type Forward = Box<dyn Fn(ModelInput) -> Result<TensorData>>;

/// The precision of that name, if there is one.
fn precision(name: &str) -> Option<Precision> {
    match name {
        "f32" => Some(Precision::F32),
        "bf16" => Some(Precision::Bf16),
        "i16" => Some(Precision::I16),
        "int8" => Some(Precision::Int8(Int8Layers::Mixed)),
        "int8-all" => Some(Precision::Int8(Int8Layers::All)),
        _ => None,
    }
}

impl Session {
    fn load(load: &Load, precision: Precision) -> Result<Self> {
        let config = ModelConfig::from_folder(&load.model)?;
        let device = if load.train { Device::flex().autodiff() } else { Device::flex() };
        let checkpoint = Checkpoint::open(&load.model)?;
        let model = if load.train {
            let mut head = checkpoint.load(SequenceClassification::new(&config, &device), &LoadOptions::default())?.0;
            head.backbone_mut().set_compute_type(precision.compute_type(&device)?);
            Model::Training(Box::new(Training::new(head, &device, load.sift)))
        } else {
            Model::Inference(forward(&checkpoint, &config, load.head, &device, precision)?)
        };
        Ok(Self { config, device, model })
    }

    /// The padded batch: last hidden states, [texts, longest, hidden], or logits.
    fn forward(&self, texts: &[Vec<u32>], save: Option<PathBuf>) -> Result<Value> {
        let Model::Inference(model) = &self.model else { bail!("the model was loaded for training") };
        let start = Instant::now();
        let values = model(self.input(texts)?)?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(path) = save {
            fs::write(path, values.as_bytes())?;
        }
        Ok(json!({ "seconds": seconds }))
    }

    fn train(&mut self, texts: &[Vec<u32>], labels: Vec<i32>) -> Result<Value> {
        let start = Instant::now();
        let input = self.input(texts)?;
        let shape = [labels.len()];
        let labels = Tensor::from_data(TensorData::new(labels, shape), &self.device);
        let Model::Training(trainer) = &mut self.model else { bail!("the model was loaded for inference") };
        let loss = trainer.step(input, labels);
        Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "loss": loss }))
    }

    fn input(&self, texts: &[Vec<u32>]) -> Result<ModelInput> {
        let encode =
            |ids: &Vec<u32>| Encoding { ids: ids.clone(), type_ids: vec![0; ids.len()], ..Encoding::default() };
        let encodings: Vec<_> = texts.iter().map(encode).collect();
        let batch = Batch::collate(&encodings, 0, Padding::Longest)?;
        Ok(batch.to_input(&self.config, &self.device)?)
    }
}

/// The model made ready for inference, with its head or without.
fn forward(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    head: bool,
    device: &Device,
    precision: Precision,
) -> Result<Forward> {
    let architecture = config.task().architectures.first().filter(|_| head);
    match architecture.map(|name| name.rsplit("For").next().unwrap_or(name)) {
        None => prepared(checkpoint, Backbone::new(config, device), precision, |output| output.last_hidden_state),
        Some("SequenceClassification") => {
            prepared(checkpoint, SequenceClassification::new(config, device), precision, |logits| logits)
        }
        Some("TokenClassification") => {
            prepared(checkpoint, TokenClassification::new(config, device), precision, |logits| logits)
        }
        Some("QuestionAnswering") => {
            let model = QuestionAnswering::new(config, device);
            prepared(checkpoint, model, precision, |spans| Tensor::stack::<3>(vec![spans.start, spans.end], 2))
        }
        Some(other) => bail!("no head for {other}"),
    }
}

fn prepared<M: InferenceModel + Module + 'static, const D: usize>(
    checkpoint: &Checkpoint,
    model: M,
    precision: Precision,
    values: fn(M::Output) -> Tensor<D>,
) -> Result<Forward> {
    // On a CPU, whatever the precision.
    let model = Prepared::with_precision(checkpoint.load(model, &LoadOptions::default())?.0, precision)?;
    Ok(Box::new(move |input| Ok(values(model.forward(input)).try_into_data()?.convert::<f32>())))
}

/// One product of two square matrices, by the `gemm` crate as burn calls it.
fn gemm(size: usize) -> Value {
    let matrix = || Tensor::<2>::random([size, size], Distribution::Default, &Device::flex());
    let (lhs, rhs) = (matrix(), matrix());
    let start = Instant::now();
    let product = lhs.matmul(rhs).into_data();
    let seconds = start.elapsed().as_secs_f64();
    drop(product);
    json!({ "seconds": seconds })
}
