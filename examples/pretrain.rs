//! Pretrains DeBERTa or RoBERTa on plain text, by masked language modelling.
//!
//! ```sh
//! cargo run --release --example train_tokenizer -- --vocab-size 8000 --output tiny text.txt.gz
//! cargo run --release --example init_checkpoint -- --config config.json --output tiny
//! cargo run --release --example pretrain -- --model tiny --train text.txt.gz --valid held-out.txt.gz --max-length 128 \
//!     --learning-rate 1e-3 --steps 20000 --evaluate-every 1000 --output pretrained
//! ```
//!
//! The model is whatever is in the folder: a fresh one from `init_checkpoint`, or a published one to go on with. DeBERTa is
//! trained with the enhanced mask decoder (absolute positions after the attention stack), RoBERTa with its head on the last
//! layer. Texts are .txt (a paragraph a line, an empty line between documents) or .jsonl (a `text` a line), also .gz; they are
//! tokenised once, into a cache beside the output.
//!
//! The run is saved at each evaluation: a run that was stopped goes on with `--resume` as if nothing had happened. The output
//! folder is a checkpoint that `fill_mask` and the fine-tuning examples read.

mod training;

use std::{path::Path, process::ExitCode};

use clap::{Parser, ValueEnum};
use deberta_burn::{
    ModelConfig,
    checkpoint::Checkpoint,
    data::{
        corpus::{Corpus, CorpusOptions},
        masking::{Masking, MaskingOptions, MaskingStrategy},
    },
    heads::{DebertaForMaskedLm, MaskedLmLayout, RobertaForMaskedLm},
    training::tasks::MaskedLmTask,
};
use training::{Session, TrainingFlags};

/// Pretrain a model by masked language modelling
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// What is masked together: single tokens, whole words, or runs of up to three words
    #[arg(long, value_enum, default_value_t = Strategy::Token, help_heading = "Data")]
    masking: Strategy,

    /// Let a sequence go on with the next document
    #[arg(long, help_heading = "Data")]
    mix_documents: bool,

    /// Sequences of the validation text that an evaluation reads
    #[arg(long, value_name = "N", default_value_t = 500, help_heading = "Data")]
    evaluated: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Strategy {
    Token,
    Word,
    Span,
}

impl From<Strategy> for MaskingStrategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Token => Self::Token,
            Strategy::Word => Self::WholeWord,
            Strategy::Span => Self::Span { max: 3 },
        }
    }
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let mut session = Session::open(args.training, "runs/pretrain")?;
        let output = session.flags.output.clone().expect("resolved");
        let options = CorpusOptions { length: session.max_length, mix_documents: args.mix_documents };
        let data = session.splits(None, |path: &Path, _| {
            let files = [path.to_owned()];
            Corpus::open_or_build(&files, &session.tokenizer, &options, &output.with_extension("cache"), |_, _| {})
        })?;
        let seed = session.settings.seed;
        let masking = Masking::new(&session.tokenizer, MaskingOptions::masked_lm(args.masking.into(), seed))?;
        match session.config.clone() {
            ModelConfig::Deberta(mut config) => {
                config.task.architectures = vec![config.model_type.class_name("ForMaskedLM")];
                session.config = config.clone().into();
                let layout = Checkpoint::open(&session.folder)?.masked_lm_layout();
                let layout = layout.unwrap_or(MaskedLmLayout::EnhancedMaskDecoder);
                let model = session.load(DebertaForMaskedLm::new(&config, layout, &session.device)?, true)?;
                session.train(&MaskedLmTask::new(session.collator(), masking, data, args.evaluated), model, None)
            }
            ModelConfig::Roberta(mut config) => {
                config.task.architectures = vec!["RobertaForMaskedLM".into()];
                session.config = config.clone().into();
                let model = session.load(RobertaForMaskedLm::new(&config, &session.device), true)?;
                session.train(&MaskedLmTask::new(session.collator(), masking, data, args.evaluated), model, None)
            }
        }
    })
}
