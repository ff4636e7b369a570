//! Named entities with their positions in the text, by a token classification checkpoint.
//!
//! ```sh
//! cargo run --release --example ner -- --model path/to/ner-checkpoint "Ada Lovelace was born in London."
//! cargo run --release --example ner -- --model path/to/ner-checkpoint --whole --file article.txt --json
//! ```
//!
//! Each entity becomes one line: first character, end (the character after the last), type, score and text, separated by
//! tabs; the entities of several inputs are separated by an empty line. Characters are Unicode scalar values, as in Python.
//! With `--json`, each input is a list of `{"label": .., "text": .., "start": .., "end": .., "score": ..}`.
//!
//! Labels may be BIO, IO, BIOES, BILOU, or types alone. Long texts are read in overlapping windows.
//!
//! JSON lines have the field `text`. Parquet files (feature `parquet`, `--parts`) have a column of this name; the answers are in the
//! column `entities`.

mod common;
#[path = "common/entities.rs"]
mod entities;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use common::{CommonArgs, Failure};
use deberta_burn::{
    Result,
    pipeline::{Entity, TagOptions, TokenTagger, WordScores},
};
use serde::Deserialize;

/// Find named entities in texts, with a token classification checkpoint
#[derive(Parser)]
#[command(after_help = "JSON lines have the field `text`.")]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    #[cfg(feature = "parquet")]
    #[command(flatten)]
    bulk: common::bulk::BulkArgs,

    /// How a word of several tokens gets its label
    #[arg(long, value_enum, default_value_t = Words::First, help_heading = "Entities")]
    words: Words,

    /// By how many tokens the windows of a long text overlap [default: a quarter of --max-length]
    #[arg(long, value_name = "N", help_heading = "Entities")]
    stride: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Words {
    /// Its first token decides
    First,
    /// Its tokens' mean probability decides
    Average,
    /// Its surest token decides
    Max,
    /// Tokens are labelled alone; for scripts without spaces
    Tokens,
}

impl From<Words> for WordScores {
    fn from(words: Words) -> Self {
        match words {
            Words::First => Self::First,
            Words::Average => Self::Average,
            Words::Max => Self::Max,
            Words::Tokens => Self::Tokens,
        }
    }
}

#[derive(Deserialize)]
struct Row {
    text: String,
}

fn main() -> ExitCode {
    common::run(|| ner(Args::parse()))
}

fn ner(args: Args) -> Result<(), Failure> {
    let (common, options) = (&args.common, TagOptions { words: args.words.into(), stride: args.stride });
    #[cfg(feature = "parquet")]
    if let Some(job) = args.bulk.job(common)? {
        use deberta_burn::bulk::{Answers, Column};
        let (columns, tagger) = ([Column::text("text")], open(common)?);
        let mut made_by = common.made_by()?;
        made_by["tags"] = format!("{options:?}").into();
        return common::bulk::run(&job, &columns, Answers::Entities, &made_by, |rows| tag(&tagger, rows, options));
    }
    let (rows, locations) = common.input.read(|text| Row { text })?;
    let tagged = locations.locate(tag(&open(common)?, &rows, options))?;
    entities::write(&common.output, &tagged)
}

fn open(common: &CommonArgs) -> Result<TokenTagger> {
    let tagger = TokenTagger::from_folder(common.folder()?, common.options()?)?;
    common::warn(tagger.report());
    Ok(tagger)
}

fn tag(tagger: &TokenTagger, rows: &[Row], options: TagOptions) -> Result<Vec<Vec<Entity>>> {
    tagger.tag(&rows.iter().map(|row| &row.text).collect::<Vec<_>>(), options)
}
