//! Rewrites a checkpoint: another element type, one safetensors file whatever it was before, `tokenizer.json`, and a LoRA
//! adapter merged into the weights. What makes it a folder of sentence-transformers goes along.
//!
//! ```sh
//! cargo run --release --example convert -- --model path/to/deberta-base --output deberta-base-f16 --dtype f16
//! cargo run --release --example convert -- --model path/to/deberta-v3-base --output deberta-v3-base-int8 --dtype int8
//! cargo run --release --example convert -- --model path/to/deberta-v3-base --adapter runs/lora --output merged --dtype f32
//! ```

#[path = "common/int8.rs"]
mod int8;

use std::{path::PathBuf, process::ExitCode};

use burn::tensor::FloatDType;
use clap::{Parser, ValueEnum};
use deberta_burn::{
    Error, Int8Layers, Result,
    checkpoint::{self, Checkpoint, FileType, RangePolicy},
    config::SwitchConfig,
    tokenizer::Tokenizer,
};
use int8::Layers;

/// Write a checkpoint in another element type
///
/// Reads every form of weights that the crate reads (safetensors or pytorch_model.bin, whole or in shards) and any of the
/// three tokenizers; writes model.safetensors, config.json and tokenizer.json, and copies what makes a folder one of
/// sentence-transformers as it is. f16 and bf16 halve the file; f16 keeps three decimal digits of numbers up to 65,504,
/// bf16 two digits of any. int8 quarters the linear maps of the encoder, in the layout of compressed-tensors
/// (int-quantized), with the rest in f16: it is made for --precision int8 of the examples that answer, and every other type
/// reads it too. Weights beyond the range of the type are an error, or with --clamp become its largest value, which is told.
#[derive(Parser)]
struct Arguments {
    /// Checkpoint folder (config.json, weights, tokenizer), or a repository of the Hugging Face Hub (owner/name)
    #[arg(long, value_name = "DIR")]
    model: String,

    /// Folder of a LoRA adapter as PEFT writes it (adapter_config.json), to be merged into the weights
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,

    /// Turn every second feed-forward network into so many experts, copies of it, with a router (a Switch layer)
    #[arg(long, value_name = "N")]
    experts: Option<usize>,

    /// Folder to write into, made if it is not there; not the one that is read
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Type of the weights in the file
    #[arg(long, value_enum, default_value_t = Dtype::F16)]
    dtype: Dtype,

    /// With --dtype int8: which linear maps are in 8 bits [default: mixed]
    #[arg(long, value_enum, value_name = "LAYERS")]
    int8: Option<Layers>,

    /// Write the type's largest value for weights beyond its range, instead of refusing them
    #[arg(long)]
    clamp: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
    /// Linear maps of the encoder in 8 bits, the rest in f16
    Int8,
}

impl Arguments {
    fn file_type(&self) -> Result<FileType> {
        match self.dtype {
            Dtype::Int8 => Ok(FileType::Int8(self.int8.map_or_else(Int8Layers::default, Into::into))),
            _ if self.int8.is_some() => {
                Err(Error::setting("--int8", "it says which linear maps are in 8 bits, and needs --dtype int8"))
            }
            Dtype::F32 => Ok(FloatDType::F32.into()),
            Dtype::F16 => Ok(FloatDType::F16.into()),
            Dtype::Bf16 => Ok(FloatDType::BF16.into()),
        }
    }
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
    let file_type = arguments.file_type()?;
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
    let checkpoint = match arguments.experts {
        Some(num_experts) => checkpoint.upcycle(&SwitchConfig { num_experts, ..SwitchConfig::default() })?,
        None => checkpoint,
    };
    let clamped = checkpoint::rewrite(&checkpoint, &arguments.output, file_type, range)?;
    tokenizer.save(&arguments.output)?;
    checkpoint::copy_sentence_modules(&folder, &arguments.output)?;
    println!("wrote {}", arguments.output.display());
    for tensor in clamped {
        println!("clamped {tensor}");
    }
    Ok(())
}
