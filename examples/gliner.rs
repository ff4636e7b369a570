//! Entities of types of your own choice, by a GLiNER checkpoint.
//!
//! ```sh
//! cargo run --release --example gliner -- --model path/to/gliner --labels person,place "Ada Lovelace was born in London."
//! cargo run --release --example gliner -- --model path/to/gliner --tokenizer path/to/deberta-v3-small \
//!     --labels disease,drug --threshold 0.3 --whole --file article.txt --json
//! ```
//!
//! Each entity becomes one line: first character, end (the character after the last), type, probability and text, separated
//! by tabs; the entities of several inputs are separated by an empty line. Characters are Unicode scalar values, as in Python.
//! With `--json`, each input is a list of `{"label": .., "text": .., "start": .., "end": .., "score": ..}`.
//!
//! Many GLiNER folders hold no tokenizer: `--tokenizer` names a folder with that of the model that training began with. Long
//! texts are read in overlapping windows.
//!
//! JSON lines have the field `text`, and may have `labels`, a list that replaces `--labels` for this text.

mod common;
#[path = "common/entities.rs"]
mod entities;

use std::process::ExitCode;

use clap::Parser;
use common::{CommonArgs, Failure};
use deberta_burn::{
    Error, Result,
    checkpoint::locate,
    pipeline::{Gliner, GlinerOptions, GlinerRequest, Pipeline},
};
use serde::Deserialize;

/// Find entities of types of your own, with a GLiNER checkpoint
#[derive(Parser)]
#[command(after_help = "JSON lines have the field `text`, and may have a list of `labels`.")]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Folder of a tokenizer, or a repository, if the model's folder has none
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    tokenizer: Option<String>,

    /// The types of entities, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "A,B,..", help_heading = "Entities")]
    labels: Vec<String>,

    /// The probability above which a span is an entity
    #[arg(long, value_name = "P", default_value_t = GlinerOptions::default().threshold, help_heading = "Entities")]
    threshold: f32,

    /// Entities may lie inside others
    #[arg(long, help_heading = "Entities")]
    nested: bool,

    /// A span may have several types
    #[arg(long, help_heading = "Entities")]
    multi_label: bool,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    labels: Option<Vec<String>>,
}

fn main() -> ExitCode {
    common::run(|| gliner(Args::parse()))
}

fn gliner(Args { common, tokenizer, labels, threshold, nested, multi_label }: Args) -> Result<(), Failure> {
    let (rows, locations) = common.input.read(|text| Row { text, labels: None })?;
    let (folder, options) = (common.folder()?, common.options()?);
    let gliner = match tokenizer {
        Some(tokenizer) => Gliner::with_tokenizer(folder, locate(&tokenizer, None)?, options)?,
        None => Gliner::from_folder(folder, options)?,
    };
    common::warn(gliner.report());
    let options = GlinerOptions { threshold, nested, multi_label };
    let request = |row: Row| GlinerRequest { text: row.text, labels: row.labels.unwrap_or(labels.clone()), options };
    let requests: Vec<_> = rows.into_iter().map(request).collect();
    if let Some(row) = requests.iter().position(|request| request.labels.is_empty()) {
        let problem = "it is asked for no labels, expected some: give --labels, or JSON lines with `labels` each";
        locations.locate(Result::<()>::Err(Error::text(row, problem)))?;
    }
    let found = locations.locate(gliner.run(&requests))?;
    entities::write(&common.output, &found)
}
