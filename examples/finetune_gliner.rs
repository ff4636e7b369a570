//! Fine-tunes GLiNER to find entities of any type.
//!
//! ```sh
//! cargo run --release --example finetune_gliner -- --model path/to/gliner --train train.jsonl --valid valid.jsonl \
//!     --batch-size 8 --learning-rate 1e-5 --output entities
//! cargo run --release --example finetune_gliner -- --model path/to/deberta-v3-small --span-mode token-level --train train.jsonl
//! ```
//!
//! Data files are .jsonl with `{"tokenized_text": ["Ada", "wrote"], "ner": [[0, 0, "person"]]}`: words, and entities by their
//! first and last word (from 0) and type; they may lie inside each other. Training begins with a GLiNER folder, or with a
//! DeBERTa v2 or v3 under new layers.
//!
//! In training a text is asked for its own types and a sample of those of other texts, or with `--types all` for all types of
//! the data, which suits a closed set of types; a row's `ner_labels` say what it is asked for, its `ner_negatives` which other
//! types. The loss is the reference's: focal, and by default plain binary cross entropy. In evaluations each text is asked for
//! its `ner_labels`, else for all types of its file; the F1 of --valid chooses the model.
//!
//! Long texts are learned and judged in overlapping windows. The output folder is one that `gliner` and the package gliner
//! read; interrupted runs go on with `--resume`.

mod training;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use deberta_burn::{
    Result,
    checkpoint::locate,
    config::{GlinerConfig, SpanMode},
    data::read_entities,
    heads::FocalLoss,
    training::tasks::{AskedTypes, EntityOptions, EntityReader, EntityTask, GlinerBase},
};
use serde_json::json;
use training::{Session, TrainingFlags};

/// Fine-tune a model to find entities of any type
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// Folder of a tokenizer, or a repository, if the model's folder has none
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    tokenizer: Option<String>,

    /// What is scored [default: the model's, of a new one spans by marker-v0]
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Model")]
    span_mode: Option<Mode>,

    /// Which types of entities a text is asked for in training
    #[arg(long, value_enum, default_value_t = Types::Sampled, help_heading = "Data")]
    types: Types,

    /// Weight of what is an entity against what is none, from 0 to 1 [default: both weigh 1]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    focal_alpha: Option<f64>,

    /// By which power of the probability of being wrong each score counts
    #[arg(long, value_name = "X", default_value_t = FocalLoss::default().gamma, help_heading = "Optimisation")]
    focal_gamma: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Spans, by a network over both their ends
    MarkerV0,
    /// Spans, by one linear map of both their ends
    Marker,
    /// Words: whether each starts, ends, or is inside an entity
    TokenLevel,
}

impl From<Mode> for SpanMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::MarkerV0 => Self::MarkerV0,
            Mode::Marker => Self::Marker,
            Mode::TokenLevel => Self::TokenLevel,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Types {
    /// Its own, and some of other texts
    Sampled,
    /// All of the data
    All,
}

impl From<Types> for AskedTypes {
    fn from(types: Types) -> Self {
        match types {
            Types::Sampled => Self::Sampled,
            Types::All => Self::All,
        }
    }
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let tokenizer: Option<PathBuf> = args.tokenizer.map(|tokenizer| locate(&tokenizer, None)).transpose()?;
        let mut base = None;
        let mut session = Session::around_encoder(args.training, "runs/gliner", |flags, folder| {
            let opened = GlinerBase::open(folder, flags.model(), tokenizer.as_deref(), args.span_mode.map(Into::into))?;
            let mut config = opened.config.clone();
            config.dropout = flags.task_dropout()?.unwrap_or(config.dropout);
            let tokenizer = opened.tokenizer.clone();
            base = Some(opened);
            Ok((config, tokenizer))
        })?;
        // No adapter of a GLiNER can be opened.
        session.settings.lora.iter_mut().for_each(|lora| lora.merged = true);
        let focal = FocalLoss { alpha: args.focal_alpha, gamma: args.focal_gamma };
        focal.validate()?;
        let options = EntityOptions { asked: args.types.into(), focal, seed: session.settings.seed };
        session.data.insert("types".into(), json!(options.asked));
        session.data.insert("focal".into(), json!(options.focal));
        run(&session, &base.expect("the session opened it"), options)
    })
}

fn run(session: &Session<GlinerConfig>, base: &GlinerBase, options: EntityOptions) -> Result<()> {
    let reader = EntityReader::new(&session.config, &session.tokenizer, session.max_length)?;
    let data = session.splits(None, |path, _| reader.examples(read_entities(path)?, path))?;
    if let (entities, wide @ 1..) = data.train.too_wide(&session.config) {
        let most = session.config.max_width;
        eprintln!("warning: {wide} of {entities} entities have more than {most} words, and cannot be learned");
    }
    let model = session.load(base.fresh(&session.config, &session.device), base.is_gliner)?;
    let model = model.with_vocabulary(&session.config, &session.device);
    session.train(&EntityTask::new(reader, session.collator(), data, options), model, None)
}
