//! Proves that a checkpoint computes here what it computes in transformers.
//!
//! First write what transformers computes, with the pinned versions of `tests/fixtures/requirements.txt`:
//!
//! ```sh
//! python3 tests/fixtures/export_reference.py ./deberta-v3-base reference.safetensors
//! ```
//!
//! Then compare; the exit code is 1 if any tensor differs by more than the tolerance:
//!
//! ```sh
//! cargo run --release --example parity -- --model ./deberta-v3-base --reference reference.safetensors
//! ```

#[path = "common/allocator.rs"]
mod allocator;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use deberta_burn::{Precision, device::device, parity::Reference};

/// Compares a checkpoint's outputs with those that transformers computed, tensor by tensor, at real tokens only.
///
/// The head is the one that `architectures` in config.json names. Prints a row a tensor (largest difference, mean, number of
/// elements, where) and exits with 1 if any exceeds the tolerance.
#[derive(Parser)]
struct Arguments {
    /// Checkpoint folder: config.json and weights.
    #[arg(long)]
    model: PathBuf,

    /// Safetensors file with input_ids, attention_mask and expected outputs, as export_reference.py writes it.
    #[arg(long)]
    reference: PathBuf,

    /// flex, ndarray, cuda[:N], vulkan, wgpu or metal.
    #[arg(long, default_value = "flex")]
    device: String,

    /// Largest absolute difference allowed.
    #[arg(long, default_value_t = 1e-4)]
    atol: f64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;
    eprintln!("{}", Precision::F32.describe(&device));
    let comparison = Reference::open(&arguments.reference)?.compare(&arguments.model, &device)?;
    print!("{comparison}");
    let holds = comparison.max() <= arguments.atol;
    println!("{} {:.1e}", if holds { "all within" } else { "NOT all within" }, arguments.atol);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
