//! Makes a checkpoint with fresh parameters, ready for pretraining or for trying things out.
//!
//! ```sh
//! cargo run --release --example init_checkpoint -- --config deberta-v3-small --output fresh --seed 0
//! ```

#[path = "common/config.rs"]
mod config;
#[path = "common/dtype.rs"]
mod dtype;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use config::read_config;
use deberta_burn::{
    checkpoint,
    device::{self, device},
    heads::{MaskedLm, MaskedLmLayout},
};
use dtype::Dtype;

/// Writes config.json and model.safetensors of a masked language model whose weights are drawn from N(0, initializer_range).
///
/// DeBERTa gets the enhanced mask decoder. transformers reads the result, and with a tokenizer beside it every example does.
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
    let mut config = read_config(&arguments.config)?;
    let device = device("flex")?;
    device::seed(&device, arguments.seed);
    let dtype = Some(arguments.dtype.into());
    config.set_architecture("ForMaskedLM");
    let model = MaskedLm::new(&config, MaskedLmLayout::EnhancedMaskDecoder, &device)?;
    checkpoint::write(&model, &config, &arguments.output, dtype)?;
    println!("wrote {}", arguments.output.display());
    Ok(ExitCode::SUCCESS)
}
