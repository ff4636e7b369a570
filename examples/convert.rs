//! Rewrites a checkpoint: another element type, one safetensors file whatever it was before, `tokenizer.json`, and a LoRA
//! adapter merged into the weights.
//!
//! ```sh
//! cargo run --release --example convert -- --model path/to/deberta-base --output deberta-base-f16 --dtype f16
//! cargo run --release --example convert -- --model path/to/deberta-v3-base --adapter runs/lora --output merged --dtype f32
//! ```

#[path = "common/dtype.rs"]
mod dtype;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use deberta_burn::{
    Error, Result,
    checkpoint::{self, Checkpoint, RangePolicy},
    tokenizer::Tokenizer,
};
use dtype::Dtype;

/// Write a checkpoint in another element type
///
/// Reads every form of weights that the crate reads (safetensors or pytorch_model.bin, whole or in shards) and any of the three
/// tokenizers; writes model.safetensors, config.json and tokenizer.json. f16 and bf16 halve the file; f16 keeps three decimal
/// digits of numbers up to 65,504, bf16 two digits of any. Weights beyond the range of the type are an error, or with --clamp
/// become its largest value, which is told.
#[derive(Parser)]
struct Arguments {
    /// Checkpoint folder (config.json, weights, tokenizer), or a repository of the Hugging Face Hub (owner/name)
    #[arg(long, value_name = "DIR")]
    model: String,

    /// Folder of a LoRA adapter as PEFT writes it (adapter_config.json), to be merged into the weights
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,

    /// Folder to write into, made if it is not there; not the one that is read
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Type of the weights in the file
    #[arg(long, value_enum, default_value_t = Dtype::F16)]
    dtype: Dtype,

    /// Write the type's largest value for weights beyond its range, instead of refusing them
    #[arg(long)]
    clamp: bool,
}

fn main() -> ExitCode {
    match convert(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn convert(arguments: &Arguments) -> Result<()> {
    let folder = checkpoint::locate(&arguments.model, None)?;
    let same =
        arguments.output.canonicalize().is_ok_and(|output| folder.canonicalize().is_ok_and(|from| from == output));
    if same {
        return Err(Error::setting("--output", "it is the folder that is read, expected another one"));
    }
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let range = if arguments.clamp { RangePolicy::Clamp } else { RangePolicy::Refuse };
    let checkpoint = match &arguments.adapter {
        Some(adapter) => Checkpoint::open_with_adapter(&folder, adapter)?,
        None => Checkpoint::open(&folder)?,
    };
    let clamped = checkpoint::rewrite(&checkpoint, &arguments.output, arguments.dtype.into(), range)?;
    tokenizer.save(&arguments.output)?;
    println!("wrote {}", arguments.output.display());
    for tensor in clamped {
        println!("clamped {tensor}");
    }
    Ok(())
}
