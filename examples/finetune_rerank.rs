//! Fine-tunes DeBERTa (or RoBERTa) as a cross-encoder, which ranks passages by their relevance to a query.
//!
//! ```sh
//! cargo run --release --example finetune_rerank -- --model path/to/deberta-v3-base --train train.jsonl --valid valid.jsonl \
//!     --output reranker
//! cargo run --release --example finetune_rerank -- --model path/to/deberta-v3-base --train train.jsonl --loss listwise
//! ```
//!
//! Data files are .jsonl with `{"query": .., "passage": .., "label": ..}` or `{"query": .., "passages": [..], "labels": [..]}`
//! (or `score`, `scores`); rows of the same query belong together. The pointwise loss takes each passage by itself, with labels
//! from 0 to 1; the listwise loss takes all passages of a query together, with any labels from 0, and a batch is of so many
//! queries. nDCG@10 on --valid chooses the model.
//!
//! The output folder is a checkpoint with one output that `rerank` and sentence-transformers' `CrossEncoder` read; interrupted
//! runs go on with `--resume`.

mod training;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use deberta_burn::{
    Result,
    data::{Part, read_rankings},
    heads::SequenceClassification,
    training::tasks::{RankingLoss, RankingTask},
};
use serde_json::json;
use training::{Session, TrainingFlags};

/// Fine-tune a model to rank passages by their relevance to a query
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// What is learned from
    #[arg(long, value_enum, default_value_t = Loss::Pointwise, help_heading = "Data")]
    loss: Loss,
}

#[derive(Clone, Copy, ValueEnum)]
enum Loss {
    /// Each passage by itself, its label from 0 to 1
    Pointwise,
    /// All passages of a query together
    Listwise,
}

impl From<Loss> for RankingLoss {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Pointwise => Self::Pointwise,
            Loss::Listwise => Self::Listwise,
        }
    }
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let mut session = Session::open(args.training, "runs/rerank", None)?;
        let loss = args.loss.into();
        session.data.insert("loss".into(), json!(loss));
        // The head of a cross-encoder goes on; any other starts from random values.
        let same_head = session.config.task().num_labels() == 1;
        let task = session.config.task_mut();
        (task.labels, task.problem_type) = (vec!["LABEL_0".into()], None);
        session.config.set_architecture("ForSequenceClassification");
        run(&session, loss, same_head)
    })
}

fn run(session: &Session, loss: RankingLoss, same_head: bool) -> Result<()> {
    let data = session.splits(None, |path, part| {
        let rows = read_rankings(path)?;
        RankingTask::examples(&session.tokenizer, &rows, session.max_length, (loss, part == Part::Train), path)
    })?;
    let model = session.load(SequenceClassification::new(&session.config, &session.device), same_head)?;
    session.train(&RankingTask::new(session.collator(), data, loss), model, None)
}
