//! Trains a vocabulary for pretraining, on your own text.
//!
//! ```sh
//! cargo run --release --example train_tokenizer -- books.txt.gz articles.jsonl --vocab-size 8000 --output my-model \
//!     --held-out other-books.txt
//! ```
//!
//! The result is a unigram model as SentencePiece trains it for DeBERTa v2 and v3: `tokenizer.json` and
//! `tokenizer_config.json`, which this crate and transformers' `AutoTokenizer` read. `[PAD]`, `[CLS]`, `[SEP]` and `[UNK]` have
//! the ids 0 to 3, `[MASK]` the last one. DeBERTa and RoBERTa models may both be pretrained with it.
//!
//! How large? Each token of the vocabulary costs a row of the embedding table, and more of them make texts shorter: 8,000
//! suit a model of a few million parameters, DeBERTa v3 has 128,000.

#[path = "common/allocator.rs"]
mod allocator;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;
use deberta_burn::{
    data::corpus::Paragraphs,
    tokenizer::{
        EncodeOptions, Text, Tokenizer, Truncation,
        train::{VocabularyOptions, VocabularyTrainer},
    },
};
use indicatif::{ProgressBar, ProgressStyle};

/// Train a vocabulary for pretraining on text files: a SentencePiece-like unigram model with DeBERTa's special tokens
#[derive(Parser)]
#[command(
    after_help = "Text files hold one paragraph a line, and an empty line between documents (.txt), or one JSON object \
                        a line, whose `text` is a document (.jsonl). Either may be compressed (.txt.gz, .jsonl.gz)."
)]
struct Args {
    /// Text to train on: .txt, .jsonl, also .gz
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Folder for tokenizer.json and tokenizer_config.json, made if it is not there
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Number of tokens, special tokens included
    #[arg(long, value_name = "N", default_value_t = 8000)]
    vocab_size: usize,

    /// Share of the characters that the vocabulary must spell; the rarest beyond it become [UNK]. 0.9995 keeps thousands
    /// of rare characters (Chinese names in English text) from filling a small vocabulary
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    character_coverage: f64,

    /// Most paragraphs to train on, taken evenly from the whole text [default: all of them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Other text, to measure how many bytes a token holds on average
    #[arg(long, value_name = "FILE")]
    held_out: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let step = match args.limit {
        Some(limit) => Paragraphs::open(&args.files)?.count().div_ceil(limit as usize).max(1),
        None => 1,
    };
    let mut trainer = VocabularyTrainer::default();
    let mut paragraphs = Paragraphs::open(&args.files)?;
    let bar = bytes_bar("reading", paragraphs.total_bytes());
    let mut used = 0;
    for index in 0.. {
        let Some(paragraph) = paragraphs.next().transpose()? else { break };
        if index % step == 0 {
            trainer.add(&paragraph.text);
            used += 1;
        }
        bar.set_position(paragraphs.bytes_read());
    }
    bar.finish_and_clear();
    println!("text        {used} paragraphs, {} words", trainer.words());

    let spinner = ProgressBar::new_spinner().with_message("training");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let options = VocabularyOptions { size: args.vocab_size, character_coverage: args.character_coverage };
    let tokenizer = trainer.train(&options)?;
    spinner.finish_and_clear();
    tokenizer.save(&args.output)?;
    println!("vocabulary  {} tokens, in {}", tokenizer.vocab_size(), args.output.display());

    if !args.held_out.is_empty() {
        let (bytes, tokens, unknown) = measure(&tokenizer, &args.held_out)?;
        println!("held-out    {:.3} bytes a token, {unknown} of {tokens} tokens unknown", bytes as f64 / tokens as f64);
    }
    Ok(())
}

/// Bytes, tokens and unknown tokens of a text.
fn measure(tokenizer: &Tokenizer, files: &[PathBuf]) -> Result<(usize, usize, usize)> {
    let options = EncodeOptions {
        max_length: usize::MAX,
        truncation: Truncation::Error,
        add_special_tokens: false,
        ..EncodeOptions::default()
    };
    let mut paragraphs = Paragraphs::open(files)?;
    let bar = bytes_bar("measuring", paragraphs.total_bytes());
    let (mut bytes, mut tokens, mut unknown) = (0, 0, 0);
    while let Some(paragraph) = paragraphs.next().transpose()? {
        bytes += paragraph.text.len();
        for encoding in tokenizer.encode(&[Text::from(paragraph.text)], &options)? {
            tokens += encoding.ids.len();
            unknown += encoding.ids.iter().filter(|&&id| id == tokenizer.unk_id()).count();
        }
        bar.set_position(paragraphs.bytes_read());
    }
    bar.finish_and_clear();
    Ok((bytes, tokens, unknown))
}

fn bytes_bar(message: &'static str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left");
    ProgressBar::new(bytes).with_style(style.expect("a valid template")).with_message(message)
}
