//! What the command-line examples share: flags, reading texts, progress, writing answers, errors.

pub mod allocator;
#[cfg(feature = "parquet")]
#[allow(dead_code, reason = "some tasks read lines only")]
pub mod bulk;
mod input;
mod output;
mod precision;
mod truncation;

use std::{
    io::{IsTerminal, stderr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use deberta_burn::{
    Result,
    checkpoint::{LoadReport, locate},
    device::device,
    pipeline::{PipelineOptions, Progress},
};
use indicatif::{ProgressBar, ProgressStyle};

pub use input::InputArgs;
pub use output::{Failure, OutputArgs};
use precision::PrecisionArgs;
use truncation::Truncation;

/// Flags of every example.
#[derive(Args)]
pub struct CommonArgs {
    #[command(flatten)]
    pub input: InputArgs,

    #[command(flatten)]
    pub output: OutputArgs,

    /// Checkpoint folder (config.json, weights, tokenizer), or a repository of the Hugging Face Hub (owner/name)
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    model: String,

    /// Branch, tag or commit of the repository [default: main]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    revision: Option<String>,

    /// Folder of a LoRA adapter as PEFT writes it (adapter_config.json), to be merged into the model
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    adapter: Option<PathBuf>,

    /// flex, ndarray, cuda, vulkan, wgpu or metal; :N for the N-th of its kind
    #[arg(long, default_value = "flex", help_heading = "Model")]
    device: String,

    #[command(flatten)]
    precision: PrecisionArgs,

    /// Most tokens in one batch; a longer text is a batch of its own
    #[arg(long, value_name = "N", default_value_t = 4096, help_heading = "Model")]
    batch_tokens: usize,

    /// Most tokens of one input, special tokens included [default: what the model was trained with, or its folder says]
    #[arg(long, value_name = "N", help_heading = "Model")]
    max_length: Option<usize>,

    /// Which side of a text that is too long goes [default: as the tokenizer's settings say, else right]
    #[arg(long, value_enum, value_name = "SIDE", help_heading = "Model")]
    truncation: Option<Truncation>,
}

impl CommonArgs {
    /// The checkpoint's folder, downloaded if need be.
    ///
    /// # Errors
    /// A repository that cannot be had.
    pub fn folder(&self) -> Result<PathBuf> {
        locate(&self.model, self.revision.as_deref())
    }

    /// What decides on the answers, beside the input: the weights, and what else is in the model's folder.
    ///
    /// # Errors
    /// Files that cannot be read.
    #[cfg(feature = "parquet")]
    #[allow(dead_code, reason = "some tasks read lines only")]
    pub fn made_by(&self) -> Result<serde_json::Value> {
        use deberta_burn::Checkpoint;
        let folder = self.folder()?;
        let checkpoint = match &self.adapter {
            Some(adapter) => Checkpoint::open_with_adapter(&folder, adapter),
            None => Checkpoint::open(&folder),
        };
        Ok(serde_json::json!({
            "weights": checkpoint?.digest()?,
            "files": bulk::settings_files(&folder)?,
            "precision": self.precision.precision()?.to_string(),
            "max_length": self.max_length,
            "truncation": self.truncation.map(|side| format!("{side:?}")),
        }))
    }

    /// The flags as the library wants them. What computes, and in which types, is printed on standard error.
    pub fn options(&self) -> Result<PipelineOptions> {
        let (device, precision) = (device(&self.device)?, self.precision.precision()?);
        precision.load_dtype(&device)?;
        eprintln!("{}", precision.describe(&device));
        Ok(PipelineOptions {
            adapter: self.adapter.clone(),
            precision,
            batch_tokens: self.batch_tokens,
            max_length: self.max_length,
            truncation_side: self.truncation.map(Into::into),
            truncated: Arc::new(|truncated| eprintln!("warning: {truncated}")),
            progress: stderr().is_terminal().then(progress_bar),
            ..PipelineOptions::new(device)
        })
    }
}

/// Says on standard error what is wrong with the weights, if anything is.
pub fn warn(report: &LoadReport) {
    for name in &report.not_finite {
        eprintln!("warning: `{name}` holds NaN or infinite values; so may the answers");
    }
}

/// A bar on standard error for inputs of several batches.
fn progress_bar() -> Progress {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}, {per_sec}, {eta} left");
    let bar = ProgressBar::no_length().with_style(style.expect("a valid template"));
    Arc::new(move |done, total| {
        if done < total {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        } else {
            bar.finish_and_clear();
        }
    })
}

/// Runs an example: errors become one line and exit code 1, and a reader that had enough (`| head`) is no error.
pub fn run(example: impl FnOnce() -> Result<(), Failure>) -> ExitCode {
    match example() {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Error(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
