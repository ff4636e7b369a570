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
//! JSON lines have the fields `text` and, for pairs, `pair`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::{CommonArgs, Failure};
use deberta_burn::{pipeline::Classifier, tokenizer::Text};
use serde::Deserialize;

/// Label texts, or pairs of texts, with a sequence classification checkpoint
#[derive(Parser)]
#[command(after_help = "JSON lines have the fields `text` and, for pairs, `pair`.")]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Second text of the pair, for each plain text
    #[arg(long, value_name = "TEXT", help_heading = "Input")]
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

fn classify(Args { common, pair }: Args) -> Result<(), Failure> {
    let (rows, locations) = common.input.read(|text| Row { text, pair: pair.clone() })?;
    let classifier = Classifier::from_folder(common.folder()?, common.options()?)?;
    common::warn(classifier.report());
    let texts = rows.iter().map(|row| match &row.pair {
        Some(pair) => Text::from((&row.text, pair)),
        None => Text::from(&row.text),
    });
    let mut output = common.output.open();
    for scores in locations.locate(classifier.classify(texts))? {
        output.write(&scores, |out| {
            let scores: Vec<_> = scores.iter().map(|score| format!("{} {:.4}", score.label, score.score)).collect();
            writeln!(out, "{}", scores.join("\t"))
        })?;
    }
    output.finish()
}
