//! Fine-tunes DeBERTa (or RoBERTa) to tell texts, or pairs of texts, apart.
//!
//! ```sh
//! cargo run --release --example finetune_classification
//! cargo run --release --example finetune_classification -- --model path/to/deberta-v3-base --train train.csv \
//!     --valid valid.csv --text-column sentence --label-column label --output polarity --sift
//! cargo run --release --example finetune_classification -- --recipe mnli-base --model path/to/deberta-base \
//!     --train mnli.jsonl --valid matched.jsonl --text-column premise --pair-column hypothesis --output mnli
//! ```
//!
//! Without arguments it trains the tiny model of the repository on sentences from movie reviews, in a minute or two.
//!
//! Data files are .csv and .tsv with a line of column names, or .jsonl. Labels are names; with `--problem multi-label` a row has
//! any number of them, between commas; with `--problem regression` it has a number. The labels of a checkpoint that was
//! fine-tuned on the same ones keep their order and its head; any other head starts from random values.
//!
//! The run is saved at each evaluation: a run that was stopped goes on with `--resume` as if nothing had happened. The output
//! folder is a checkpoint that `classify` and Hugging Face transformers read, with `metrics.csv`, `curves.svg` and
//! `training.json` beside it.

mod training;

use std::{path::Path, process::ExitCode};

use clap::{Parser, ValueEnum};
use deberta_burn::{
    DebertaModel, ModelConfig, Result, RobertaModel,
    config::ProblemType,
    data::{Labelling, Labels, TextColumns, TextRow, read_table},
    heads::{Backbone, SequenceClassification},
    tokenizer::{EncodeOptions, Text},
    training::tasks::{ClassificationTask, Examples},
};
use serde_json::json;
use training::{Session, TrainingFlags};

/// The data that is trained on without --train.
const DEFAULT_DATA: &str = "examples/data/movie-reviews";

/// Fine-tune a model to classify texts or pairs of texts, or to give them a number
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// Column of the text, or of the first text of a pair
    #[arg(long, value_name = "NAME", default_value = "text", help_heading = "Data")]
    text_column: String,

    /// Column of the second text of a pair
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pair_column: Option<String>,

    /// Column of the label
    #[arg(long, value_name = "NAME", default_value = "label", help_heading = "Data")]
    label_column: String,

    /// What a label is
    #[arg(long, value_enum, default_value_t = Problem::SingleLabel, help_heading = "Data")]
    problem: Problem,
}

#[derive(Clone, Copy, ValueEnum)]
enum Problem {
    /// One of several
    SingleLabel,
    /// Any number of several, between commas
    MultiLabel,
    /// A number
    Regression,
}

impl From<Problem> for ProblemType {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::SingleLabel => Self::SingleLabelClassification,
            Problem::MultiLabel => Self::MultiLabelClassification,
            Problem::Regression => Self::Regression,
        }
    }
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let mut session = Session::open(args.training.clone(), "runs/classification", None)?;
        let columns = TextColumns {
            text: args.text_column.clone(),
            pair: args.pair_column.clone(),
            label: Some(args.label_column.clone()),
        };
        session.data.insert("columns".into(), json!([columns.text, columns.pair, columns.label]));
        session.data.insert("problem".into(), json!(ProblemType::from(args.problem)));
        let default = session.flags.train.is_none().then(|| Path::new(DEFAULT_DATA));
        let train = session.flags.parts(default)?.train;
        let (labelling, same_labels) =
            labelling(&session, args.problem.into(), &read_table(&train, &columns)?, &train)?;
        let task = session.config.task_mut();
        task.problem_type = Some(args.problem.into());
        task.labels = labelling.labels().map_or_else(|| vec!["score".into()], |labels| labels.names().to_vec());
        match session.config.clone() {
            ModelConfig::Deberta(mut config) => {
                let class = config.model_type.class_name("ForSequenceClassification");
                config.task.architectures = vec![class];
                session.config = config.clone().into();
                train_on::<DebertaModel>(&session, &config, &labelling, same_labels, &columns, default)
            }
            ModelConfig::Roberta(mut config) => {
                config.task.architectures = vec!["RobertaForSequenceClassification".into()];
                session.config = config.clone().into();
                train_on::<RobertaModel>(&session, &config, &labelling, same_labels, &columns, default)
            }
        }
    })
}

/// The labels: the checkpoint's where the training file has no others, else the file's. Also whether they are the
/// checkpoint's.
fn labelling(session: &Session, problem: ProblemType, rows: &[TextRow], path: &Path) -> Result<(Labelling, bool)> {
    let labelling = Labelling::from_rows(problem, ',', rows, path)?;
    let task = session.config.task();
    let fits = task.problem_type() == problem;
    let Some(labels) = labelling.labels() else { return Ok((labelling, fits && task.num_labels() == 1)) };
    let known: Vec<&String> = task.labels.iter().collect();
    if !fits || labels.names().len() != known.len() || !labels.names().iter().all(|label| known.contains(&label)) {
        return Ok((labelling, false));
    }
    let labels = Labels::new(task.labels.clone())?;
    Ok((
        match labelling {
            Labelling::Multi { separator, .. } => Labelling::Multi { labels, separator },
            _ => Labelling::Single(labels),
        },
        true,
    ))
}

fn train_on<B: Backbone>(
    session: &Session,
    config: &B::Config,
    labelling: &Labelling,
    same_labels: bool,
    columns: &TextColumns,
    default: Option<&Path>,
) -> Result<()> {
    let data = session.splits(default, |path, is_train| {
        let rows = read_table(path, columns)?;
        let targets = if is_train { labelling.training_targets(&rows, path) } else { labelling.targets(&rows, path) }?;
        let texts: Vec<_> = rows
            .iter()
            .map(|row| match &row.pair {
                Some(pair) => Text::from((row.text.as_str(), pair.as_str())),
                None => Text::from(&row.text),
            })
            .collect();
        let options = EncodeOptions { max_length: session.max_length, ..EncodeOptions::default() };
        Ok(Examples { encodings: session.tokenizer.encode(&texts, &options)?, targets })
    })?;
    let model = session.load(SequenceClassification::<B>::new(config, &session.device), same_labels)?;
    session.train(&ClassificationTask::new(session.collator(), data), model, default)
}
