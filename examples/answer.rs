//! Answers to questions as spans of a context, by a question answering checkpoint (SQuAD 1 or 2).
//!
//! ```sh
//! cargo run --release --example answer -- --model path/to/squad-checkpoint \
//!     --question "Where was Ada Lovelace born?" "Ada Lovelace was born in London in 1815."
//! cargo run --release --example answer -- --model path/to/squad2-checkpoint --no-answer 0 \
//!     --question "Who wrote it?" --whole --file article.txt --json
//! ```
//!
//! Each answer becomes one line: first character, end (the character after the last), probability and text, separated by
//! tabs; the answers to several questions are separated by an empty line. Characters are Unicode scalar values, as in Python.
//! Contexts of any length are read in overlapping windows.
//!
//! With `--no-answer T`, for models trained on questions without an answer, the line is `no answer` and the margin if "no
//! answer" scores higher than the best span by more than T. With `--json`, each question becomes
//! `{"no_answer": .., "no_answer_margin": .., "spans": [{"text": .., "start": .., "end": .., "score": .., "probability": ..}]}`.
//!
//! JSON lines have the fields `question` and `context`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::{CommonArgs, Failure};
use deberta_burn::pipeline::{AnswerOptions, Question, QuestionAnswerer};

/// Answer questions with spans of their contexts, by a question answering checkpoint
#[derive(Parser)]
#[command(after_help = "JSON lines have the fields `question` and `context`.")]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// What is asked of each plain text, which is the context
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, help_heading = "Input")]
    question: String,

    /// How many answers to show
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Answers")]
    top_k: usize,

    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 30, help_heading = "Answers")]
    max_answer_tokens: usize,

    /// By how many tokens the windows of a long context overlap [default: a quarter of --max-length]
    #[arg(long, value_name = "N", help_heading = "Answers")]
    stride: Option<usize>,

    /// For SQuAD 2 models: no answer if that scores higher than the best one by more than this (try 0)
    #[arg(long, value_name = "MARGIN", allow_negative_numbers = true, help_heading = "Answers")]
    no_answer: Option<f32>,
}

fn main() -> ExitCode {
    common::run(|| answer(Args::parse()))
}

fn answer(args: Args) -> Result<(), Failure> {
    let Args { common, question, .. } = args;
    common.input.refuse_beside_json("--question", !question.is_empty())?;
    let (questions, locations) = common.input.read(|context| Question { question: question.clone(), context })?;
    let answerer = QuestionAnswerer::from_folder(common.folder()?, common.options()?)?;
    common::warn(answerer.report());
    let options = AnswerOptions {
        top_k: args.top_k,
        max_answer_tokens: args.max_answer_tokens,
        stride: args.stride,
        no_answer_threshold: args.no_answer,
    };
    let mut output = common.output.open();
    for (index, answers) in locations.locate(answerer.answer(&questions, &options))?.iter().enumerate() {
        output.write(answers, |out| {
            if index > 0 {
                writeln!(out)?;
            }
            if answers.no_answer {
                return writeln!(out, "no answer\t{:.4}", answers.no_answer_margin);
            }
            answers.spans.iter().try_for_each(|span| {
                writeln!(out, "{}\t{}\t{:.4}\t{}", span.start, span.end, span.probability, span.text)
            })
        })?;
    }
    output.finish()
}
