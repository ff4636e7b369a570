//! Tokenizers against the `sentencepiece` package and transformers, and against damaged files.
//!
//! Fixtures: `fixtures/make_tokenizer_fixtures.py`.

mod damage;
mod encodings;
mod files;
mod length;
mod reference;
#[path = "../common/repository.rs"]
mod repository;

use std::{
    fs,
    path::{Path, PathBuf},
};

use deberta_burn::tokenizer::{EncodeOptions, Encoding, Text, Tokenizer};
use serde::Deserialize;

fn fixture(name: &str) -> PathBuf {
    repository::fixture(&format!("tokenizers/{name}"))
}

fn load(name: &str) -> Tokenizer {
    Tokenizer::from_folder(fixture(name)).unwrap()
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn encode<'a>(tokenizer: &Tokenizer, text: impl Into<Text<'a>>, options: &EncodeOptions) -> Vec<Encoding> {
    tokenizer.encode(&[text.into()], options).unwrap()
}

fn one<'a>(tokenizer: &Tokenizer, text: impl Into<Text<'a>>) -> Encoding {
    encode(tokenizer, text, &EncodeOptions::default()).remove(0)
}

fn ids_of(tokenizer: &Tokenizer, texts: &[Text<'_>], add_special_tokens: bool) -> Vec<Vec<u32>> {
    let options = EncodeOptions { max_length: usize::MAX, add_special_tokens, ..EncodeOptions::default() };
    tokenizer.encode(texts, &options).unwrap().into_iter().map(|encoding| encoding.ids).collect()
}
