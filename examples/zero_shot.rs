//! Labels of your own choice for texts, by a checkpoint trained for natural language inference (NLI), or by a GLiClass model.
//!
//! For an NLI checkpoint, every label becomes a sentence, "This example is {label}.", and the model says whether the text
//! entails it. A GLiClass model (its `config.json` says so) reads all labels together with the text, in one pass.
//!
//! ```sh
//! cargo run --release --example zero_shot -- --model path/to/nli-checkpoint \
//!     --labels politics,sports,cooking "The match went to extra time."
//! cargo run --release --example zero_shot -- --model path/to/nli-checkpoint \
//!     --labels urgent,billing --multi-label --template "This request is {}." --file tickets.txt --json
//! ```
//!
//! Each input becomes one line: every label with its probability, separated by tabs, the best first. The probabilities add up
//! to 1, unless `--multi-label` judges every label on its own (entailment against contradiction), as is done with a single
//! label. An NLI checkpoint's labels (`id2label`) must name entailment.
//!
//! JSON lines have the field `text`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::{CommonArgs, Failure};
use deberta_burn::pipeline::{ZeroShot, ZeroShotOptions};
use serde::Deserialize;

/// Label texts with labels of your own, by a natural language inference checkpoint or a GLiClass model
#[derive(Parser)]
#[command(after_help = "JSON lines have the field `text`.")]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// The labels, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "A,B,..", help_heading = "Labels")]
    labels: Vec<String>,

    /// The sentence that is entailed or not; {} stands for the label (not for GLiClass)
    #[arg(long, default_value = "This example is {}.", help_heading = "Labels")]
    template: String,

    /// Judge every label on its own, instead of against the others
    #[arg(long, help_heading = "Labels")]
    multi_label: bool,
}

#[derive(Deserialize)]
struct Row {
    text: String,
}

fn main() -> ExitCode {
    common::run(|| zero_shot(Args::parse()))
}

fn zero_shot(Args { common, labels, template, multi_label }: Args) -> Result<(), Failure> {
    let (rows, locations) = common.input.read(|text| Row { text })?;
    let classifier = ZeroShot::from_folder(common.folder()?, common.options()?)?;
    common::warn(classifier.report());
    let texts: Vec<_> = rows.into_iter().map(|row| row.text).collect();
    let scored = classifier.classify(&texts, &labels, &ZeroShotOptions { template, multi_label });
    let mut output = common.output.open();
    for scores in locations.locate(scored)? {
        output.write(&scores, |out| {
            let scores: Vec<_> = scores.iter().map(|score| format!("{} {:.4}", score.label, score.score)).collect();
            writeln!(out, "{}", scores.join("\t"))
        })?;
    }
    output.finish()
}
