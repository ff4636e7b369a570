//! Fine-tunes DeBERTa (or RoBERTa) to find the answers to questions in passages.
//!
//! ```sh
//! cargo run --release --example finetune_qa -- --model path/to/deberta-v3-base --train train-v2.0.json \
//!     --valid dev-v2.0.json --max-length 384 --output answers
//! ```
//!
//! Data files are SQuAD's JSON, v1.1 or 2.0, or its rows as the `datasets` library writes them. Passages that are too long are cut into windows that overlap by --stride tokens;
//! a question that its passage does not answer points at the first token. The output folder is a checkpoint that `answer` and
//! Hugging Face transformers read; interrupted runs go on with `--resume`.

mod training;

use std::process::ExitCode;

use clap::Parser;
use deberta_burn::{
    Result,
    data::read_squad,
    heads::QuestionAnswering,
    training::tasks::{AnsweringData, AnsweringTask},
};
use training::{Session, TrainingFlags};

/// Fine-tune a model to answer questions about passages
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// Tokens that the windows of a long passage share [default: a quarter of --max-length]
    #[arg(long, value_name = "N", help_heading = "Data")]
    stride: Option<usize>,
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let mut session = Session::open(args.training, "runs/qa", None)?;
        session.config.task_mut().labels = Vec::new();
        session.data.insert("stride".into(), args.stride.into());
        session.config.set_architecture("ForQuestionAnswering");
        run(&session, args.stride)
    })
}

fn run(session: &Session, stride: Option<usize>) -> Result<()> {
    let data = session.splits(None, |path, _| {
        AnsweringData::new(&session.tokenizer, read_squad(path)?, session.max_length, stride, path)
    })?;
    let model = session.load(QuestionAnswering::new(&session.config, &session.device), true)?;
    session.train(&AnsweringTask::new(session.collator(), data), model, None)
}
