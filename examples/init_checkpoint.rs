//! Makes a checkpoint with fresh parameters, ready for pretraining or for trying things out.
//!
//! ```sh
//! cargo run --release --example init_checkpoint -- --config deberta-v3-small --output fresh --seed 0
//! ```

#[path = "common/dtype.rs"]
mod dtype;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use deberta_burn::{
    ModelConfig, Preset, checkpoint,
    device::device,
    heads::{DebertaForMaskedLm, MaskedLmLayout, RobertaForMaskedLm},
};
use dtype::Dtype;

/// Writes config.json and model.safetensors of a masked language model whose weights are drawn from N(0, initializer_range).
///
/// DeBERTa gets the enhanced mask decoder. transformers and every example of this crate read the result.
#[derive(Parser)]
struct Arguments {
    /// A config.json, or the name of a published architecture, such as deberta-v3-small.
    #[arg(long)]
    config: String,

    /// Folder to write into, made if it is not there.
    #[arg(long)]
    output: PathBuf,

    /// The same seed gives the same weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Type of the weights in the file.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut config = match fs::read_to_string(&arguments.config) {
        Ok(text) => ModelConfig::from_json(&text).with_context(|| arguments.config.clone())?,
        Err(_) => arguments.config.parse::<Preset>().context("neither a file nor a preset")?.config(),
    };
    let device = device("flex")?;
    device.seed(arguments.seed);
    let dtype = Some(arguments.dtype.into());
    match config.clone() {
        ModelConfig::Deberta(deberta) => {
            config.task_mut().architectures = vec![deberta.model_type.class_name("ForMaskedLM")];
            let model = DebertaForMaskedLm::new(&deberta, MaskedLmLayout::EnhancedMaskDecoder, &device)?;
            checkpoint::write(&model, &config, &arguments.output, dtype)?;
        }
        ModelConfig::Roberta(roberta) => {
            config.task_mut().architectures = vec!["RobertaForMaskedLM".to_owned()];
            checkpoint::write(&RobertaForMaskedLm::new(&roberta, &device), &config, &arguments.output, dtype)?;
        }
    }
    println!("wrote {}", arguments.output.display());
    Ok(ExitCode::SUCCESS)
}
