//! candle-transformers' DeBERTa behind the protocol of `benches/README.md`: inference only, because its DeBERTa has no dropout.

use std::{
    fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::debertav2::{Config, DebertaV2Model};
use serde::Deserialize;
use serde_json::json;

/// The allocator that ours uses.
#[path = "../../../../examples/common/allocator.rs"]
mod allocator;

#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
enum Command {
    Load { model: PathBuf, precision: String },
    Forward { texts: Vec<Vec<u32>>, save: Option<PathBuf> },
}

fn main() -> Result<()> {
    allocator::keep_freed_memory();
    let mut model = None;
    for line in io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Command::Load { precision, .. } if precision != "f32" => {
                json!({ "unsupported": format!("candle's DeBERTa has no {precision} on a CPU") })
            }
            Command::Load { model: folder, .. } => {
                model = Some(load(&folder)?);
                json!({ "kernels": "gemm with its AVX-512 kernels, built for this processor" })
            }
            Command::Forward { texts, save } => {
                let model = model.as_ref().context("no model is loaded")?;
                let start = Instant::now();
                let states = forward(model, &texts)?;
                let seconds = start.elapsed().as_secs_f64();
                if let Some(path) = save {
                    fs::write(path, states.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
                }
                json!({ "seconds": seconds })
            }
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn load(folder: &Path) -> Result<DebertaV2Model> {
    let mut config: Config = serde_json::from_str(&fs::read_to_string(folder.join("config.json"))?)?;
    // candle ends positions at this, though relative ones do not end; the buckets must not change with it.
    if config.max_relative_positions < 1 {
        config.max_relative_positions = config.max_position_embeddings as isize;
    }
    if !config.position_biased_input {
        config.max_position_embeddings = config.max_position_embeddings.max(4096);
    }
    let weights = folder.join("model.safetensors");
    // SAFETY: nothing writes the file while this process runs.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[weights], DType::F32, &Device::Cpu)? };
    Ok(DebertaV2Model::load(weights.pp("deberta"), &config)?)
}

/// The last hidden states of the padded batch, [texts, longest, hidden] row by row.
fn forward(model: &DebertaV2Model, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
    let Some(longest) = texts.iter().map(Vec::len).max().filter(|longest| *longest > 0) else { bail!("no tokens") };
    let at = |text: &Vec<u32>, position: usize| text.get(position).copied();
    let cells = || texts.iter().flat_map(|text| (0..longest).map(move |position| at(text, position)));
    let shape = (texts.len(), longest);
    let ids = cells().map(|id| id.unwrap_or(0)).collect();
    let mask = cells().map(|id| i64::from(id.is_some())).collect();
    let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
    let mask = Tensor::from_vec::<_, i64>(mask, shape, &Device::Cpu)?;
    Ok(model.forward(&ids, None, Some(mask))?.flatten_all()?.to_vec1()?)
}
