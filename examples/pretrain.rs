//! Pretrains DeBERTa or RoBERTa on plain text, by masked language modelling; DeBERTa also by replaced token detection, as v3.
//!
//! ```sh
//! cargo run --release --example train_tokenizer -- --vocab-size 8000 --output tokenizer text.txt.gz
//! cargo run --release --example pretrain -- --config models/deberta-tiny/config.json --tokenizer tokenizer \
//!     --train text.txt.gz --valid held-out.txt.gz --learning-rate 2e-3 --steps 20000 --evaluate-every 1000 --output pretrained
//! ```
//!
//! The model begins from scratch, with a configuration (a file or a published name) and a tokenizer, or with the weights of a
//! `--model` to go on with. DeBERTa is trained with the enhanced mask decoder (absolute positions after the attention stack), RoBERTa with its head on the last
//! layer. Texts are .txt (a paragraph a line, an empty line between documents) or .jsonl (a `text` a line), also .gz; they are
//! tokenised once, into a cache beside the output.
//!
//! With `--objective rtd` a generator of half the depth fills masked places with words, and the model learns to tell which tokens
//! are not the original ones: every token teaches it something, not only the masked ones, and it fine-tunes better for the same
//! compute. The output folder then holds this discriminator, with the generator in `generator/`; both can be gone on with. Kept are
//! the models with the lowest sum of the generator's and the weighted discriminator's loss on the validation text.
//!
//! The run is saved at each evaluation: a run that was stopped goes on with `--resume` as if nothing had happened. The output
//! folder is a checkpoint that the fine-tuning examples read, and `fill_mask` reads a masked language model's or a generator's.

#[path = "common/config.rs"]
mod config;
mod training;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use config::read_config;
use deberta_burn::{
    Error, ModelConfig, Result,
    checkpoint::Checkpoint,
    config::SwitchConfig,
    data::{
        corpus::{Corpus, CorpusOptions},
        masking::{Masking, MaskingOptions, MaskingStrategy},
    },
    heads::{MaskedLm, MaskedLmLayout},
    tokenizer::Tokenizer,
    training::{
        replaced_token::{ReplacedToken, ReplacedTokenPretraining, Sharing},
        tasks::{MaskedLmTask, ReplacedTokenTask},
    },
};
use training::{Session, TrainingFlags};

/// Pretrain a model by masked language modelling or replaced token detection
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// Train a model from scratch: a config.json, or the name of a published architecture, such as deberta-v3-small or
    /// roberta-base. Its token embeddings get as many rows as --tokenizer has tokens
    #[arg(long, value_name = "CONFIG", requires = "tokenizer", conflicts_with = "model", help_heading = "Model")]
    config: Option<String>,

    /// Folder with the tokenizer of a model from scratch
    #[arg(long, value_name = "DIR", requires = "config", help_heading = "Model")]
    tokenizer: Option<PathBuf>,

    /// Make every second feed-forward network a Switch layer with so many experts; those of --model begin as copies of its network
    #[arg(long, value_name = "N", help_heading = "Model")]
    experts: Option<usize>,

    /// What the model learns from
    #[arg(long, value_enum, default_value_t = Objective::Mlm, help_heading = "Objective")]
    objective: Objective,

    /// Whose word vectors the discriminator of rtd reads [default: gdes]
    #[arg(long, value_enum, help_heading = "Objective")]
    sharing: Option<SharingFlag>,

    /// Weight of the discriminator's loss in rtd, beside the generator's of 1 [default: 10]
    #[arg(long, value_name = "X", help_heading = "Objective")]
    discriminator_weight: Option<f64>,

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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Objective {
    /// Masked language modelling: 15 % of the tokens are to be guessed (BERT, DeBERTa v1 and v2)
    Mlm,
    /// Replaced token detection: 15 % of the tokens are a generator's guesses, to be told from the rest (DeBERTaV3)
    Rtd,
}

#[derive(Clone, Copy, ValueEnum)]
enum SharingFlag {
    /// Gradient-disentangled: the generator's, which it does not move, plus a table of its own (DeBERTaV3)
    Gdes,
    /// The generator's, which both move
    Shared,
    /// Its own
    None,
}

impl From<SharingFlag> for Sharing {
    fn from(sharing: SharingFlag) -> Self {
        match sharing {
            SharingFlag::Gdes => Self::GradientDisentangled,
            SharingFlag::Shared => Self::Shared,
            SharingFlag::None => Self::NotShared,
        }
    }
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

impl Args {
    /// How generator and discriminator are trained together, if they are.
    fn replaced_token(&self) -> Result<Option<ReplacedToken>> {
        let default = ReplacedToken::default();
        let options = ReplacedToken {
            sharing: self.sharing.map_or(default.sharing, Sharing::from),
            weight: self.discriminator_weight.unwrap_or(default.weight),
        };
        for (flag, is_given) in
            [("--sharing", self.sharing.is_some()), ("--discriminator-weight", self.discriminator_weight.is_some())]
        {
            if is_given && self.objective == Objective::Mlm {
                return Err(Error::setting(
                    flag,
                    "masked language modelling has no discriminator; add --objective rtd",
                ));
            }
        }
        if !(options.weight > 0.0 && options.weight.is_finite()) {
            return Err(Error::setting("--discriminator-weight", format!("{} is no number above 0", options.weight)));
        }
        Ok((self.objective == Objective::Rtd).then_some(options))
    }
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let replaced_token = args.replaced_token()?;
        if args.evaluated == 0 {
            return Err(Error::setting("--evaluated", "it is 0, expected at least 1"));
        }
        let from_scratch = match (&args.config, &args.tokenizer) {
            (Some(config), Some(folder)) => {
                let (mut config, tokenizer) = (read_config(config)?, Tokenizer::from_folder(folder)?);
                config.fit_vocabulary(tokenizer.vocab_size(), tokenizer.pad_id())?;
                Some((config, tokenizer))
            }
            _ => None,
        };
        let mut session = Session::open(args.training, "runs/pretrain", from_scratch)?;
        if session.settings.lora.is_some() {
            return Err(Error::setting("--lora", "it is for fine-tuning, and pretraining trains the whole model"));
        }
        let (tokens, rows) = (session.tokenizer.vocab_size(), session.config.vocab_size());
        if tokens > rows {
            // Any of them can be masked, and so have to be guessed.
            let expected =
                format!("at least {tokens}, the tokens of its tokenizer; give the model a row for each of them");
            return Err(Error::config("vocab_size", rows, expected));
        }
        if let Some(num_experts) = args.experts {
            if session.config.switch().is_some() {
                return Err(Error::setting("--experts", "the model has Switch layers already; leave the flag out"));
            }
            session.config.set_switch(SwitchConfig { num_experts, ..SwitchConfig::default() });
            session.config.validate()?;
            session.data.insert("experts".into(), num_experts.into());
        }
        let replaced_token = match (replaced_token, &session.config) {
            (Some(options), ModelConfig::Deberta(config)) => Some((options, config.clone())),
            (Some(_), ModelConfig::Roberta(_)) => {
                let problem = "the model is a RoBERTa; replaced token detection is for DeBERTa, use --objective mlm";
                return Err(Error::setting("--objective", problem));
            }
            (None, _) => None,
        };
        let output = session.flags.output.clone().expect("resolved");
        let masking = args.masking.to_possible_value().expect("no strategy is hidden");
        session.data.insert("masking".into(), masking.get_name().into());
        session.data.insert("mix_documents".into(), args.mix_documents.into());
        session.data.insert("evaluated".into(), args.evaluated.into());
        let options = CorpusOptions { length: session.max_length, mix_documents: args.mix_documents };
        let data = session.splits(None, |path: &Path, _| {
            let files = [path.to_owned()];
            Corpus::open_or_build(&files, &session.tokenizer, &options, &output.with_extension("cache"), |_, _| {})
        })?;
        let (strategy, seed) = (args.masking.into(), session.settings.seed);
        let options = match &replaced_token {
            Some(_) => MaskingOptions::replaced_token(strategy, seed),
            None => MaskingOptions::masked_lm(strategy, seed),
        };
        let masking = Masking::new(&session.tokenizer, options)?;
        match replaced_token {
            None => {
                session.config.set_architecture("ForMaskedLM");
                let layout = match &session.folder {
                    Some(folder) => Checkpoint::open(folder)?.masked_lm_layout(),
                    None => None,
                };
                let layout = layout.unwrap_or(MaskedLmLayout::EnhancedMaskDecoder);
                let model = session.load(MaskedLm::new(&session.config, layout, &session.device)?, true)?;
                session.train(&MaskedLmTask::new(session.collator(), masking, data, args.evaluated), model, None)
            }
            Some((options, config)) => {
                let device = &session.device;
                let model = match &session.folder {
                    Some(folder) => {
                        let (model, reports) = ReplacedTokenPretraining::load(folder, &config, options, device)?;
                        reports.iter().for_each(|report| session.announce(report));
                        model
                    }
                    None => ReplacedTokenPretraining::new(&config, options, device)?,
                };
                let task = MaskedLmTask::new(session.collator(), masking, data, args.evaluated);
                session.train(&ReplacedTokenTask::new(task), model, None)
            }
        }
    })
}
