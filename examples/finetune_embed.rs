//! Fine-tunes DeBERTa (or RoBERTa) to give texts that belong together similar vectors.
//!
//! ```sh
//! cargo run --release --example finetune_embed -- --model path/to/deberta-v3-base --train train.jsonl --valid valid.jsonl \
//!     --batch-size 64 --output encoder
//! ```
//!
//! Data files are .jsonl with `{"text": .., "positive": ..}`, and `"negative": ..` where a row has a text that resembles its
//! positive but does not belong to it. A text has to find its positive among all positives and negatives of its batch, and each
//! positive its text (CLIP's loss, with a learned temperature), so that larger batches teach more. The mean reciprocal rank of the
//! positives of --valid chooses the model.
//!
//! The output folder is a checkpoint that `embed` and sentence-transformers read; interrupted runs go on with `--resume`.

mod training;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use deberta_burn::{
    ModelConfig, Result,
    checkpoint::write_sentence_modules,
    data::read_pairs,
    heads::{Pooling, TextEncoder},
    training::tasks::PairTask,
};
use training::{Session, TrainingFlags};

/// Fine-tune a model to give texts that belong together similar vectors
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// From the vectors of the tokens to that of the text
    #[arg(long, value_enum, default_value_t = PoolingArg::Mean, help_heading = "Model")]
    pooling: PoolingArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingArg {
    /// Their mean
    Mean,
    /// The first token's
    Cls,
}

impl From<PoolingArg> for Pooling {
    fn from(pooling: PoolingArg) -> Self {
        match pooling {
            PoolingArg::Mean => Self::Mean,
            PoolingArg::Cls => Self::Cls,
        }
    }
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let mut session = Session::open(args.training, "runs/embed", None)?;
        // PEFT has no place for the learned temperature.
        session.settings.lora.iter_mut().for_each(|lora| lora.merged = true);
        let pooling = Pooling::from(args.pooling);
        session.data.insert("pooling".into(), pooling.name().into());
        session.config.task_mut().labels = Vec::new();
        session.config.set_architecture("Model");
        run(&session, pooling)
    })
}

fn run(session: &Session, pooling: Pooling) -> Result<()> {
    let data = session
        .splits(None, |path, _| PairTask::examples(&session.tokenizer, &read_pairs(path)?, session.max_length))?;
    let model = session.load(TextEncoder::new(&session.config, pooling, &session.device), true)?;
    session.train(&PairTask::new(session.collator(), data), model, None)?;
    let width = match &session.config {
        ModelConfig::Deberta(config) => config.hidden_size,
        ModelConfig::Roberta(config) => config.hidden_size,
    };
    write_sentence_modules(session.flags.output.as_deref().expect("resolved"), pooling, width)
}
