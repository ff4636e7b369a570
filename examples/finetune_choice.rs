//! Fine-tunes DeBERTa (or RoBERTa) to choose the right one of several continuations.
//!
//! ```sh
//! cargo run --release --example finetune_choice -- --model path/to/deberta-v3-base --train train.jsonl --valid valid.jsonl \
//!     --output choice
//! ```
//!
//! Data files are .jsonl with `{"prompt": .., "choices": [.., ..], "label": N}`, the label counted from 0, and the same number
//! of choices in every row. The output folder is a checkpoint that Hugging Face transformers reads; interrupted runs go on with
//! `--resume`.

mod training;

use std::process::ExitCode;

use clap::Parser;
use deberta_burn::{Result, data::read_choices, heads::MultipleChoice, training::tasks::ChoiceTask};
use training::{Session, TrainingFlags};

/// Fine-tune a model on multiple choice
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,
}

fn main() -> ExitCode {
    training::run(|| {
        let mut session = Session::open(Args::parse().training, "runs/choice", None)?;
        session.config.task_mut().labels = Vec::new();
        session.config.set_architecture("ForMultipleChoice");
        run(&session)
    })
}

fn run(session: &Session) -> Result<()> {
    let data = session
        .splits(None, |path, _| ChoiceTask::examples(&session.tokenizer, &read_choices(path)?, session.max_length))?;
    let model = session.load(MultipleChoice::new(&session.config, &session.device), true)?;
    session.train(&ChoiceTask::new(session.collator(), data), model, None)
}
