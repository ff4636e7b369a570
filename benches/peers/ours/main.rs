//! This crate behind the protocol of `benches/README.md`, used as its users use it.

#[path = "../../../examples/common/allocator.rs"]
mod allocator;
#[path = "../../common/training.rs"]
mod training;

use std::{
    fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Distribution, TensorData},
};
use deberta_burn::{
    DebertaConfig, DebertaModel, ModelConfig, ModelInput,
    batch::{Batch, Encoding, Padding},
    checkpoint::{Checkpoint, LoadOptions},
    heads::{Head, SequenceClassification},
    model::inference::Prepared,
};
use serde::Deserialize;
use serde_json::{Value, json};
use training::Training;

const UNLOADED: &str = "no model is loaded";

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
enum Command {
    Load { model: PathBuf, train: bool, sift: bool },
    Forward { texts: Vec<Vec<u32>>, save: Option<PathBuf> },
    Train { texts: Vec<Vec<u32>>, labels: Vec<i32> },
    Gemm { size: usize },
}

fn main() -> Result<()> {
    allocator::keep_freed_memory();
    let mut session = None;
    for line in io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Command::Load { model, train, sift } => {
                session = Some(Session::load(&model, train, sift)?);
                json!({})
            }
            Command::Gemm { size } => gemm(size),
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
    Inference(Prepared<DebertaModel>),
    Training(Training),
}

impl Session {
    fn load(folder: &Path, train: bool, sift: bool) -> Result<Self> {
        let config = ModelConfig::from_folder(folder)?;
        let ModelConfig::Deberta(deberta) = &config else { bail!("{}: not a DeBERTa", folder.display()) };
        let device = if train { Device::flex().autodiff() } else { Device::flex() };
        let model = if train {
            Model::Training(Training::new(fill(folder, SequenceClassification::new(deberta, &device))?, &device, sift))
        } else {
            Model::Inference(Prepared::new(fill(folder, DebertaConfig::init(deberta, &device))?))
        };
        Ok(Self { config, device, model })
    }

    /// The last hidden states of the padded batch, [texts, longest, hidden] row by row.
    fn forward(&self, texts: &[Vec<u32>], save: Option<PathBuf>) -> Result<Value> {
        let Model::Inference(model) = &self.model else { bail!("the model was loaded for training") };
        let start = Instant::now();
        let states = model.forward(self.input(texts)?).last_hidden_state.try_into_data()?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(path) = save {
            fs::write(path, states.as_bytes())?;
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

fn fill<M: Module>(folder: &Path, module: M) -> Result<M> {
    Ok(Checkpoint::open(folder)?.load(module, &LoadOptions::default())?.0)
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
