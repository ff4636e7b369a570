//! Labels for texts or pairs of texts, by a sequence classification checkpoint (sentiment, topics, NLI, similarity, …).
//!
//! ```sh
//! cargo run --release --example classify -- --model path/to/checkpoint "A fine film."
//! cargo run --release --example classify -- --model path/to/nli-checkpoint "A man sleeps." --pair "Nobody is awake."
//! cargo run --release --example classify -- --model path/to/checkpoint --file reviews.txt --json > labels.jsonl
//! ```
//!
//! Each input becomes one line: every label with its score, separated by tabs, the best first. With `--json`, the line is a
//! list of `{"label": .., "score": ..}`. The scores are probabilities (over the labels, or of each label on its own where
//! config.json says `multi_label_classification`); a regression model's are the numbers themselves.
//!
//! JSON lines have the fields `text` and, for pairs, `pair`. Parquet files (feature `parquet`, `--parts`) have columns of these
//! names; the answers are in the column `labels`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::{CommonArgs, Failure};
use deberta_burn::{
    Result,
    pipeline::{Classifier, LabelScore},
    tokenizer::Text,
};
use serde::Deserialize;

/// Label texts, or pairs of texts, with a sequence classification checkpoint
#[derive(Parser)]
#[command(after_help = "JSON lines have the fields `text` and, for pairs, `pair`.")]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    #[cfg(feature = "parquet")]
    #[command(flatten)]
    bulk: common::bulk::BulkArgs,

    /// Second text of the pair, for each plain text
    #[arg(long, value_name = "TEXT", help_heading = "Input")]
    #[cfg_attr(feature = "parquet", arg(conflicts_with = "parts"))]
    pair: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    pair: Option<String>,
}

fn main() -> ExitCode {
    common::run(|| classify(Args::parse()))
}

fn classify(args: Args) -> Result<(), Failure> {
    let common = &args.common;
    #[cfg(feature = "parquet")]
    if let Some(job) = args.bulk.job(common)? {
        use deberta_burn::bulk::{Answers, Column};
        let (columns, classifier) = ([Column::text("text"), Column::text("pair").optional()], open(common)?);
        let made_by = common.made_by()?;
        return common::bulk::run(&job, &columns, Answers::Labels, &made_by, |rows| label(&classifier, rows));
    }
    common.input.refuse_beside_json("--pair", args.pair.is_some())?;
    let (rows, locations) = common.input.read(|text| Row { text, pair: args.pair.clone() })?;
    let classifier = open(common)?;
    let mut output = common.output.open();
    for scores in locations.locate(label(&classifier, &rows))? {
        output.write(&scores, |out| {
            let scores: Vec<_> = scores.iter().map(|score| format!("{} {:.4}", score.label, score.score)).collect();
            writeln!(out, "{}", scores.join("\t"))
        })?;
    }
    output.finish()
}

fn open(common: &CommonArgs) -> Result<Classifier> {
    let classifier = Classifier::from_folder(common.folder()?, common.options()?)?;
    common::warn(classifier.report());
    Ok(classifier)
}

fn label(classifier: &Classifier, rows: &[Row]) -> Result<Vec<Vec<LabelScore>>> {
    classifier.classify(rows.iter().map(|row| match &row.pair {
        Some(pair) => Text::from((&row.text, pair)),
        None => Text::from(&row.text),
    }))
}
