//! One vector for each text: the encoder's last hidden states, pooled.
//!
//! ```sh
//! cargo run --release --example embed -- --file sentences.txt --output embeddings.safetensors
//! cargo run --release --example embed -- --model path/to/checkpoint --pooling cls --normalize "A text." --json
//! ```
//!
//! `--output` writes one tensor, `embeddings` (f32, [texts, numbers of a vector]), in the order of the input. Without it each vector
//! is printed on a line, its numbers separated by spaces, or as a JSON list with `--json`.
//!
//! A folder of sentence-transformers is pooled as its `1_Pooling/config.json` and `modules.json` say, and passed through its linear
//! maps (`2_Dense`), unless `--pooling` says otherwise; the example says what it does. Any checkpoint serves, with or without a
//! head. Mind that a model that was only pretrained has no reason to put similar texts close to each other; one that was
//! fine-tuned for it has.
//!
//! `--size` keeps the first numbers of each vector. That is for models that were trained for such sizes (`finetune_embed
//! --sizes`); `--normalize` scales what is kept.
//!
//! JSON lines have the field `text`. Parquet files (feature `parquet`, `--parts`) have a column of this name; the answers are in the
//! column `embedding`.

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

    #[cfg(feature = "parquet")]
    #[command(flatten)]
    bulk: common::bulk::BulkArgs,

    /// Safetensors file to write the vectors to
    #[arg(long, value_name = "FILE", conflicts_with = "json", help_heading = "Output")]
    #[cfg_attr(feature = "parquet", arg(conflicts_with = "parts"))]
    output: Option<PathBuf>,

    /// From the vectors of the tokens to that of the text [default: as 1_Pooling/config.json of the folder says, else mean]
    #[arg(long, value_enum, help_heading = "Vectors")]
    pooling: Option<PoolingArg>,

    /// Keep the first N numbers of each vector
    #[arg(long, value_name = "N", help_heading = "Vectors")]
    size: Option<usize>,

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
    /// Their sum over the square root of their number
    MeanSqrtLen,
    /// Their mean, later tokens counting more
    WeightedMean,
    /// The last token's
    LastToken,
}

impl From<PoolingArg> for Pooling {
    fn from(pooling: PoolingArg) -> Self {
        match pooling {
            PoolingArg::Mean => Self::Mean,
            PoolingArg::Cls => Self::Cls,
            PoolingArg::Max => Self::Max,
            PoolingArg::MeanSqrtLen => Self::MeanSqrtLen,
            PoolingArg::WeightedMean => Self::WeightedMean,
            PoolingArg::LastToken => Self::LastToken,
        }
    }
}

#[derive(Deserialize)]
struct Row {
    text: String,
}

fn main() -> ExitCode {
    common::run(|| embed(Args::parse()))
}

fn embed(args: Args) -> Result<(), Failure> {
    let common = &args.common;
    #[cfg(feature = "parquet")]
    if let Some(job) = args.bulk.job(common)? {
        use deberta_burn::bulk::{Answers, Column};
        let (columns, embedder) = ([Column::text("text")], open(&args)?);
        let mut made_by = common.made_by()?;
        // Wherever the folder lies.
        let dense = embedder.options().dense.iter().filter_map(|map| map.file_name().map(Into::into)).collect();
        made_by["vectors"] = format!("{:?}", EmbedOptions { dense, ..embedder.options().clone() }).into();
        let answers = Answers::Embedding(args.size.unwrap_or(embedder.width()));
        return common::bulk::run(&job, &columns, answers, &made_by, |rows| vectors(&embedder, rows));
    }
    let (rows, locations) = common.input.read(|text| Row { text })?;
    let embeddings = locations.locate(vectors(&open(&args)?, &rows))?;
    if let Some(file) = &args.output {
        write_tensor(file, &embeddings)?;
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

fn open(args: &Args) -> Result<Embedder> {
    let folder = args.common.folder()?;
    let embedder = Embedder::from_folder(&folder, args.common.options()?)?;
    common::warn(embedder.report());
    embedder.with_options(embed_options(&folder, args.pooling, args.size, args.normalize)?)
}

fn vectors(embedder: &Embedder, rows: &[Row]) -> Result<Vec<Vec<f32>>> {
    embedder.embed(rows.iter().map(|row| &row.text))
}

/// How to embed: by the flags, else as the folder says, else the mean. Says which it is.
fn embed_options(
    folder: &Path,
    pooling: Option<PoolingArg>,
    size: Option<usize>,
    normalize: bool,
) -> Result<EmbedOptions> {
    let (mut options, origin) = match pooling {
        Some(pooling) => (EmbedOptions { pooling: vec![pooling.into()], ..EmbedOptions::default() }, "--pooling"),
        None => match EmbedOptions::from_folder(folder)? {
            Some(options) => (options, "1_Pooling/config.json"),
            None => (EmbedOptions::default(), "the default; the folder names none"),
        },
    };
    options.size = size;
    options.normalize |= normalize;
    let names: Vec<_> = options.pooling.iter().map(|pooling| pooling.name()).collect();
    let mut steps = vec![names.join(" + ")];
    steps.extend(
        options.dense.iter().map(|map| format!("mapped by {}", map.strip_prefix(folder).unwrap_or(map).display())),
    );
    steps.extend(size.map(|size| format!("cut to {size} numbers")));
    steps.extend(options.normalize.then(|| "scaled to length 1".to_owned()));
    eprintln!("pooling: {} ({origin})", steps.join(", "));
    Ok(options)
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
