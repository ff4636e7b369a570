//! Fine-tunes DeBERTa (or RoBERTa) to give texts that belong together similar vectors, or vectors like given ones.
//!
//! ```sh
//! cargo run --release --example finetune_embed -- --model path/to/deberta-v3-base --train train.jsonl --valid valid.jsonl \
//!     --batch-size 64 --output encoder
//! cargo run --release --example finetune_embed -- --model path/to/mdeberta-v3-base --train captions.jsonl \
//!     --vectors images.safetensors --valid held_out.jsonl --valid-vectors held_out.safetensors
//! ```
//!
//! Data files are .jsonl with `{"text": .., "positive": ..}`, and `"negative": ..` where a row has a text that resembles its
//! positive but does not belong to it. A text has to find its positive among all positives and negatives of its batch, and each
//! positive its text (CLIP's loss, with a learned temperature), so that larger batches teach more. With `--sizes 384,192` the
//! first 384 and 192 numbers of each vector are trained to be vectors of their own, which `embed --size` gives.
//!
//! With `--positive-model DIR` positives and negatives have an encoder of their own, which begins with that folder and is trained
//! beside the first one: for questions and answers in different languages or of different lengths, or a small model of queries
//! and a large one of documents. Both give vectors of the first one's size. The second one is in the folder `counterparts` of the
//! output.
//!
//! With `--vectors` the model learns to give texts the vectors that some frozen model made, of images or of texts (as
//! multilingual text towers of CLIP are made). Each file of texts (.jsonl, .csv or .tsv with `text`) has a safetensors file
//! beside it, of one tensor with a row for each text. If these vectors have another size than hidden states, a linear map is
//! learned, too. `--loss contrastive` asks that a text finds its vector; `--loss mse` that it has the very vector, which suits
//! vectors of the same texts, or of what they are translations of.
//!
//! The mean reciprocal rank on --valid chooses the model. The output folder is a checkpoint that `embed` and
//! sentence-transformers read; interrupted runs go on with `--resume`.

mod training;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use deberta_burn::{
    Checkpoint, Error, ModelConfig, Result,
    checkpoint::locate,
    data::{Part, TextColumns, file_digest, read_pairs, read_table, read_vectors},
    heads::{AlignmentLoss, DualEncoder, Pooling, TextEncoder},
    tokenizer::{EncodeOptions, Text, Tokenizer},
    training::tasks::{AlignmentTask, Collator, Examples, PairExamples, PairTask},
};
use serde_json::json;
use training::{Session, TrainingFlags};

/// Fine-tune a model to give texts that belong together similar vectors, or vectors like given ones
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// From the vectors of the tokens to that of the text
    #[arg(long, value_enum, default_value_t = PoolingArg::Mean, help_heading = "Model")]
    pooling: PoolingArg,

    /// Folder of a model for positives and negatives, or a repository [default: the model of the texts itself]
    #[arg(long, value_name = "DIR", help_heading = "Model", conflicts_with = "vectors")]
    positive_model: Option<String>,

    /// Safetensors file with a vector for each text of --train, which then has texts alone
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    vectors: Option<PathBuf>,

    /// The same for the texts of --valid
    #[arg(long, value_name = "FILE", help_heading = "Data", requires = "vectors")]
    valid_vectors: Option<PathBuf>,

    /// The same for the texts of --test
    #[arg(long, value_name = "FILE", help_heading = "Data", requires = "vectors")]
    test_vectors: Option<PathBuf>,

    /// What is learned from given vectors [default: contrastive]
    #[arg(long, value_enum, help_heading = "Data", requires = "vectors")]
    loss: Option<Loss>,

    /// Train the first N numbers of each vector to be vectors of their own, too (Matryoshka)
    #[arg(long, value_name = "N,..", value_delimiter = ',', help_heading = "Model", conflicts_with = "vectors")]
    sizes: Vec<usize>,
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

#[derive(Clone, Copy, ValueEnum)]
enum Loss {
    /// Texts find their vectors among others, and vectors their texts
    Contrastive,
    /// Texts have the very vectors
    Mse,
}

impl From<Loss> for AlignmentLoss {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Contrastive => Self::Contrastive,
            Loss::Mse => Self::MeanSquaredError,
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
        match args.vectors {
            Some(train) => {
                let files = GivenVectors { train, valid: args.valid_vectors, test: args.test_vectors };
                let loss = args.loss.map(AlignmentLoss::from).unwrap_or_default();
                session.data.insert("loss".into(), json!(loss));
                align(&mut session, pooling, &files, loss)
            }
            None => {
                session.data.insert("sizes".into(), json!(args.sizes));
                match args.positive_model {
                    Some(name) => pair_with_second(&mut session, &name, pooling, &args.sizes),
                    None => pair(&session, pooling, &args.sizes),
                }
            }
        }
    })
}

/// Learns from pairs of texts.
fn pair(session: &Session, pooling: Pooling, sizes: &[usize]) -> Result<()> {
    let side = (&session.tokenizer, session.max_length);
    let data = session.splits(None, |path, _| PairExamples::encode(&read_pairs(path)?, [side; 2]))?;
    let width = width(session)?;
    let model = session.load(TextEncoder::new(&session.config, pooling, width, &session.device), true)?;
    let collators = [session.collator(), session.collator()];
    session.train(&PairTask::new(collators, data, width, sizes)?, model, None)
}

/// Learns from pairs of texts whose positives have an encoder of their own.
fn pair_with_second(session: &mut Session, name: &str, pooling: Pooling, sizes: &[usize]) -> Result<()> {
    let folder = locate(name, None)?;
    let digest = Checkpoint::open(&folder)?.digest()?;
    session.data.insert("positive_model".into(), json!({ "folder": folder, "sha256": digest }));
    let session = &*session;
    let (mut config, mut tokenizer) = (ModelConfig::from_folder(&folder)?, Tokenizer::from_folder(&folder)?);
    config.task_mut().labels = Vec::new();
    config.set_architecture("Model");
    if let Some(side) = session.flags.truncation {
        tokenizer.set_truncation_side(side.into());
    }
    let max_length = session.max_length.min(config.trained_length());
    let sides = [(&session.tokenizer, session.max_length), (&tokenizer, max_length)];
    let data = session.splits(None, |path, _| PairExamples::encode(&read_pairs(path)?, sides))?;
    let width = width(session)?;
    let texts = session.load(TextEncoder::new(&session.config, pooling, width, &session.device), true)?;
    let counterparts = TextEncoder::new(&config, pooling, width, &session.device);
    let counterparts = session.load_from(&folder, &config, counterparts, true)?;
    let collator = Collator { config: config.clone(), pad_id: tokenizer.pad_id(), ..session.collator() };
    let task = PairTask::new([session.collator(), collator], data, width, sizes)?;
    session.train(&task, DualEncoder::new(texts, counterparts, config)?.with_tokenizer(tokenizer), None)
}

/// The numbers of a vector. What learned from given vectors goes on with its linear map.
fn width(session: &Session) -> Result<usize> {
    let known = session.folder.as_ref().map(Checkpoint::open).transpose()?.and_then(|folder| folder.projection());
    Ok(known.map_or(session.config.hidden_size(), |[width, _]| width))
}

/// Learns from texts and given vectors.
fn align(session: &mut Session, pooling: Pooling, files: &GivenVectors, loss: AlignmentLoss) -> Result<()> {
    let data = session.splits(None, |path, part| {
        let file = files.of(part, path)?;
        let rows = read_table(path, &TextColumns { text: "text".into(), pair: None, label: None })?;
        let targets = read_vectors(file, rows.len(), path)?;
        let texts: Vec<_> = rows.iter().map(|row| Text::from(&row.text)).collect();
        let options = EncodeOptions { max_length: session.max_length, ..EncodeOptions::default() };
        Ok(Examples { encodings: session.tokenizer.encode(&texts, &options)?, targets })
    })?;
    for (flag, file, texts) in
        [("--valid-vectors", &files.valid, &data.valid), ("--test-vectors", &files.test, &data.test)]
    {
        if file.is_some() && texts.is_none() {
            return Err(Error::setting(flag, "there are no texts that they belong to, expected a file of texts"));
        }
    }
    for (part, file) in [("train", Some(&files.train)), ("valid", files.valid.as_ref()), ("test", files.test.as_ref())]
    {
        if let Some(file) = file {
            session.data.insert(format!("{part}_vectors"), json!({ "file": file, "sha256": file_digest(file)? }));
        }
    }
    let task = AlignmentTask::new(session.collator(), data, loss)?;
    let model = session.load(TextEncoder::new(&session.config, pooling, task.width(), &session.device), true)?;
    session.train(&task, model, None)
}

/// The files of given vectors.
struct GivenVectors {
    train: PathBuf,
    valid: Option<PathBuf>,
    test: Option<PathBuf>,
}

impl GivenVectors {
    /// That of the texts in a file.
    fn of(&self, part: Part, texts: &Path) -> Result<&Path> {
        let (flag, file) = match part {
            Part::Train => return Ok(&self.train),
            Part::Valid => ("--valid-vectors", &self.valid),
            Part::Test => ("--test-vectors", &self.test),
        };
        let problem = || format!("it is missing, expected the vectors of the texts in {}", texts.display());
        file.as_deref().ok_or_else(|| Error::setting(flag, problem()))
    }
}
