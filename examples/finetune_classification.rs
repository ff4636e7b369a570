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
//! any number of them, between commas or in a list, or a list with a 0 or 1 for each; with `--problem regression` it has a
//! number. `--no-label` leaves out the rows that have none. The labels of a checkpoint that was
//! fine-tuned on the same ones keep their order and its head; any other head starts from random values.
//!
//! The run is saved at each evaluation: a run that was stopped goes on with `--resume` as if nothing had happened. The output
//! folder is a checkpoint that `classify` and Hugging Face transformers read, with `metrics.csv`, `curves.svg` and
//! `training.json` beside it.

mod training;

use std::{path::Path, process::ExitCode};

use clap::{Parser, ValueEnum};
use deberta_burn::{
    Result,
    config::{ProblemType, TaskConfig},
    data::{LabelEncoder, LabelNotation, Part, TextColumns, TextRow, read_table},
    heads::SequenceClassification,
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

    /// The label of rows that have none, such as - or -1: they are left out [default: - and -1 are refused]
    #[arg(long, value_name = "LABEL", allow_hyphen_values = true, help_heading = "Data")]
    no_label: Option<String>,
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

/// Which columns to read, and what their labels mean.
struct Reader {
    columns: TextColumns,
    notation: LabelNotation,
}

impl Reader {
    /// The rows of a file that have a label.
    fn read(&self, path: &Path) -> Result<Vec<TextRow>> {
        let rows = read_table(path, &self.columns)?;
        let all = rows.len();
        let rows = self.notation.labelled(rows, path)?;
        if rows.len() < all {
            eprintln!("{}: {} rows without a label are left out", path.display(), all - rows.len());
        }
        Ok(rows)
    }
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let mut session = Session::open(args.training.clone(), "runs/classification", None)?;
        session.data.insert("no_label".into(), args.no_label.clone().into());
        let reader = Reader {
            columns: TextColumns {
                text: args.text_column.clone(),
                pair: args.pair_column.clone(),
                label: Some(args.label_column.clone()),
            },
            notation: LabelNotation { no_label: args.no_label, ..LabelNotation::default() },
        };
        session.data.insert("columns".into(), json!([reader.columns.text, reader.columns.pair, reader.columns.label]));
        session.data.insert("problem".into(), json!(ProblemType::from(args.problem)));
        let default = session.flags.train.is_none().then(|| Path::new(DEFAULT_DATA));
        let train = session.flags.parts(default)?.train;
        let problem = args.problem.into();
        let encoder =
            LabelEncoder::from_rows(problem, &reader.notation, &read_table(&train, &reader.columns)?, &train)?;
        let (encoder, same_labels) = with_labels_of(session.config.task(), problem, encoder);
        let task = session.config.task_mut();
        task.problem_type = Some(problem);
        task.labels = encoder.labels().map_or_else(|| vec!["score".into()], |labels| labels.names().to_vec());
        session.config.set_architecture("ForSequenceClassification");
        run(&session, &encoder, same_labels, &reader, default)
    })
}

/// The checkpoint's labels where the training file has no others, else the file's; and whether they are the checkpoint's.
fn with_labels_of(task: &TaskConfig, problem: ProblemType, encoder: LabelEncoder) -> (LabelEncoder, bool) {
    let fits = task.problem_type() == problem;
    match encoder.with_order_of(&task.labels).filter(|_| fits) {
        Some(known) => (known, true),
        None => {
            let same = fits && encoder == LabelEncoder::Regression && task.num_labels() == 1;
            (encoder, same)
        }
    }
}

fn run(
    session: &Session,
    encoder: &LabelEncoder,
    same_labels: bool,
    reader: &Reader,
    default: Option<&Path>,
) -> Result<()> {
    let data = session.splits(default, |path, part| {
        let rows = reader.read(path)?;
        let targets = match part {
            Part::Train => encoder.training_targets(&rows, path)?,
            _ => encoder.targets(&rows, path)?,
        };
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
    let model = session.load(SequenceClassification::new(&session.config, &session.device), same_labels)?;
    session.train(&ClassificationTask::new(session.collator(), data), model, default)
}
