//! One vector for each text: the encoder's last hidden states, pooled.
//!
//! ```sh
//! cargo run --release --example embed -- --file sentences.txt --output embeddings.safetensors
//! cargo run --release --example embed -- --model path/to/checkpoint --pooling cls --normalize "A text." --json
//! ```
//!
//! `--output` writes one tensor, `embeddings` (f32, [texts, hidden size]), in the order of the input. Without it each vector
//! is printed on a line, its numbers separated by spaces, or as a JSON list with `--json`.
//!
//! Any checkpoint serves, with or without a head. Mind that a model that was only pretrained has no reason to put similar
//! texts close to each other; one that was fine-tuned for it has.
//!
//! JSON lines have the field `text`.

mod common;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use common::{CommonArgs, Failure};
use deberta_burn::{
    Error, Result,
    pipeline::{EmbedOptions, Embedder, Pooling},
    write_file,
};
use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;

/// Turn texts into vectors
#[derive(Parser)]
#[command(after_help = "JSON lines have the field `text`.")]
#[command(mut_arg("model", |model| model.required(false).default_value("models/deberta-tiny")))]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Safetensors file to write the vectors to
    #[arg(long, value_name = "FILE", conflicts_with = "json", help_heading = "Output")]
    output: Option<PathBuf>,

    /// From the vectors of the tokens to that of the text
    #[arg(long, value_enum, default_value_t = PoolingArg::Mean, help_heading = "Vectors")]
    pooling: PoolingArg,

    /// Scale every vector to length 1
    #[arg(long, help_heading = "Vectors")]
    normalize: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingArg {
    /// Their mean
    Mean,
    /// The first token's
    Cls,
    /// Their largest values
    Max,
}

#[derive(Deserialize)]
struct Row {
    text: String,
}

fn main() -> ExitCode {
    common::run(|| embed(Args::parse()))
}

fn embed(Args { common, output: file, pooling, normalize }: Args) -> Result<(), Failure> {
    let rows = common.input.read(|text| Row { text })?;
    let embedder = Embedder::open(common.folder()?, common.options()?)?;
    common::warn(embedder.report());
    let pooling = match pooling {
        PoolingArg::Mean => Pooling::Mean,
        PoolingArg::Cls => Pooling::Cls,
        PoolingArg::Max => Pooling::Max,
    };
    let embeddings = embedder.embed(rows.iter().map(|row| &row.text), EmbedOptions { pooling, normalize })?;
    if let Some(file) = file {
        write_tensor(&file, &embeddings)?;
        eprintln!("{}: {} vectors of {}", file.display(), embeddings.len(), embeddings[0].len());
        return Ok(());
    }
    let mut output = common.output.open();
    for embedding in &embeddings {
        output.write(embedding, |out| {
            let numbers: Vec<_> = embedding.iter().map(f32::to_string).collect();
            writeln!(out, "{}", numbers.join(" "))
        })?;
    }
    output.finish()
}

/// Writes the vectors as the tensor `embeddings`.
fn write_tensor(path: &Path, embeddings: &[Vec<f32>]) -> Result<()> {
    let shape = vec![embeddings.len(), embeddings[0].len()];
    let bytes: Vec<u8> = embeddings.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    let bytes = TensorView::new(Dtype::F32, shape, &bytes)
        .and_then(|tensor| safetensors::serialize([("embeddings", tensor)], None))
        .map_err(|error| Error::input("embeddings", error.to_string()))?;
    write_file(path, &bytes)
}
