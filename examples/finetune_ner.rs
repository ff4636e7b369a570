//! Fine-tunes DeBERTa (or RoBERTa) to tag words, such as named entities.
//!
//! ```sh
//! cargo run --release --example finetune_ner -- --model path/to/deberta-v3-base --train train.txt --valid valid.txt \
//!     --test test.txt --recipe ner-base --output entities
//! ```
//!
//! Data files are CoNLL columns (a word a line, an empty line between sentences; the tags are the last column unless --tag-column
//! says otherwise; words may hold spaces if columns stand between tabs) or .jsonl with `{"tokens": [..], "tags": [..]}`. Tags are
//! IOB1, IOB2 or BIOES; the model learns IOB2. A checkpoint that has all the tags as its labels keeps them and its head. The
//! output folder is a checkpoint that `ner` and Hugging Face transformers read; interrupted runs go on with `--resume`.

mod training;

use std::{path::Path, process::ExitCode};

use clap::Parser;
use deberta_burn::{
    Result,
    data::{LabelSet, WordColumns, read_sentences, tag_labels},
    heads::TokenClassification,
    training::tasks::TaggingTask,
};
use serde_json::json;
use training::{Session, TrainingFlags};

/// Fine-tune a model to tag the words of sentences
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingFlags,

    /// Column of the words, from 0
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Data")]
    word_column: usize,

    /// Column of the tags, from 0 [default: the last]
    #[arg(long, value_name = "N", help_heading = "Data")]
    tag_column: Option<usize>,
}

fn main() -> ExitCode {
    training::run(|| {
        let args = Args::parse();
        let mut session = Session::open(args.training, "runs/ner", None)?;
        let columns = WordColumns { word: args.word_column, tag: args.tag_column };
        session.data.insert("columns".into(), json!([columns.word, columns.tag]));
        let train = session.flags.parts(None)?.train;
        let known = &session.config.task().labels;
        let labels = tag_labels(&read_sentences(&train, columns)?, known, &train)?;
        let same_labels = known == labels.names();
        session.config.task_mut().labels = labels.names().to_vec();
        session.config.set_architecture("ForTokenClassification");
        run(&session, &labels, same_labels, columns)
    })
}

fn run(session: &Session, labels: &LabelSet, same_labels: bool, columns: WordColumns) -> Result<()> {
    let data = session.splits(None, |path: &Path, _| {
        let sentences = read_sentences(path, columns)?;
        TaggingTask::examples(&session.tokenizer, &sentences, labels, session.max_length, path)
    })?;
    let model = session.load(TokenClassification::new(&session.config, &session.device), same_labels)?;
    session.train(&TaggingTask::new(session.collator(), labels.clone(), data), model, None)
}
