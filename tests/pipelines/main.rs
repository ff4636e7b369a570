//! Pipelines on small random checkpoints: the answers are no wiser than their weights, but order, offsets, batching, windows
//! and errors are what they will be with trained ones.

mod classification;
mod embedding;
mod fill_mask;
mod limits;
mod refusals;
mod spans;
mod stages;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use burn::{
    Tensor,
    tensor::{Device, Int},
};
use deberta_burn::{
    DebertaConfig, ModelInput, Result,
    heads::{MaskedLm, MaskedLmLayout, SequenceClassification},
    pipeline::{PipelineOptions, Question},
    tokenizer::{EncodeOptions, Tokenizer},
};
use support::{config, folder};
use tempfile::TempDir;

/// Batches differ from single texts by the order of f32 sums; scores are below 1, states a few units.
const TOLERANCE: f32 = 1e-4;

const TEXTS: [&str; 5] =
    ["war", "The laws of nature and of nations.", "a", "It is true, « ça va » 🏔️ of the people", "to be"];

fn options() -> PipelineOptions {
    PipelineOptions { batch_tokens: 24, ..PipelineOptions::new(Device::flex()) }
}

fn sequence(config: DebertaConfig) -> TempDir {
    folder(config, SequenceClassification::new)
}

fn masked_lm(layout: MaskedLmLayout) -> TempDir {
    folder(config(&[]), |config, device| MaskedLm::new(config, layout, device).unwrap())
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

fn assert_close(left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len());
    let close = left.iter().zip(right).all(|(left, right)| (left - right).abs() <= TOLERANCE);
    assert!(close, "{left:?} is not {right:?}");
}

/// The part of a text between two offsets in characters.
fn slice(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}

/// A text far longer than the model's input.
fn long_text() -> String {
    (0..40)
        .map(|index| ["war", "peace", "the law", "of «nations»", "🏔️ people"][index % 5])
        .collect::<Vec<_>>()
        .join(" ")
}

/// Token ids as the pipelines make them.
fn input(folder: &Path, text: &str) -> ModelInput {
    let tokenizer = Tokenizer::from_folder(folder).unwrap();
    let encodings = tokenizer.encode(&[text.into()], &EncodeOptions::default()).unwrap();
    let ids: Vec<i32> = encodings[0].ids.iter().map(|&id| id as i32).collect();
    ModelInput::new(Tensor::<1, Int>::from_data(&ids[..], &Device::flex()).unsqueeze())
}

fn question(question: &str, context: &str) -> Question {
    Question { question: question.to_owned(), context: context.to_owned() }
}
