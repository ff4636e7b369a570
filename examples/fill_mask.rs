//! Words for the masks in a text, by a masked language model.
//!
//! ```sh
//! cargo run --release --example fill_mask -- "She opened the [MASK] and went out into the garden."
//! cargo run --release --example fill_mask -- --model path/to/deberta-base --top-k 10 --file cloze.txt --json
//! ```
//!
//! Each mask becomes one line: the likeliest words with their probabilities, separated by tabs. A mask is spelled `[MASK]`,
//! or as the tokenizer has it (`<mask>`). With `--json`, each input is a list of masks,
//! `{"position": .., "words": [{"word": .., "token": .., "id": .., "score": ..}]}`.
//!
//! A DeBERTa checkpoint with the original head (`lm_predictions.*`) runs the enhanced mask decoder it was trained with; one
//! with transformers' head (`cls.predictions.*`) runs that. The example says which. Checkpoints with neither are refused, as
//! are the DeBERTa-v3 ones: they are discriminators, and cannot guess words.
//!
//! JSON lines have the field `text`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::{CommonArgs, Failure};
use deberta_burn::pipeline::FillMask;
use serde::Deserialize;

/// Guess the masked words of texts, with a masked language model
#[derive(Parser)]
#[command(after_help = "JSON lines have the field `text`.")]
#[command(mut_arg("model", |model| model.required(false).default_value("models/deberta-tiny")))]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// How many words to show for each mask
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Output")]
    top_k: usize,
}

#[derive(Deserialize)]
struct Row {
    text: String,
}

fn main() -> ExitCode {
    common::run(|| fill_mask(Args::parse()))
}

fn fill_mask(Args { common, top_k }: Args) -> Result<(), Failure> {
    let (rows, locations) = common.input.read(|text| Row { text })?;
    let model = FillMask::from_folder(common.folder()?, common.options()?)?;
    common::warn(model.report());
    eprintln!("head: {}", model.head());
    let texts: Vec<_> = rows.into_iter().map(|row| row.text).collect();
    let mut output = common.output.open();
    for masks in locations.locate(model.fill(&texts, top_k))? {
        output.write(&masks, |out| {
            masks.iter().try_for_each(|mask| {
                let words: Vec<_> = mask.words.iter().map(|word| format!("{} {:.4}", word.word, word.score)).collect();
                writeln!(out, "{}", words.join("\t"))
            })
        })?;
    }
    output.finish()
}
