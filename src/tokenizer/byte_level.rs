//! `vocab.json` and `merges.txt` (DeBERTa v1, RoBERTa): GPT-2's byte-level byte-pair encoding.

use std::{collections::HashMap, path::Path};

use tokenizers::{
    PreTokenizerWrapper, Result as TokenizersResult,
    models::bpe::{BPE, Merges, Vocab},
    pre_tokenizers::byte_level::ByteLevel,
};

use super::Inner;
use crate::{Error, Result, text_file};

/// Builds the tokenizer from a folder's `vocab.json` and `merges.txt`, without a post-processor and without special
/// tokens. With `prefix_space`, a text is read as if it began with a space.
pub(super) fn read(folder: &Path, prefix_space: bool) -> Result<Inner> {
    let vocabulary_path = folder.join("vocab.json");
    let vocabulary: Vocab = text_file::read_json(&vocabulary_path)?;
    if vocabulary.is_empty() {
        return Err(Error::tokenizer(vocabulary_path, "the vocabulary is empty; fetch the file again"));
    }
    let mut owners = HashMap::new();
    for (token, &id) in &vocabulary {
        if let Some(other) = owners.insert(id, token) {
            let problem = format!("the tokens {token:?} and {other:?} have the same id {id}; fetch the file again");
            return Err(Error::tokenizer(vocabulary_path, problem));
        }
    }
    let merges_path = folder.join("merges.txt");
    let text = text_file::read_text(&merges_path)?;
    let merges = parse_merges(&text).map_err(|problem| Error::tokenizer(&merges_path, problem))?;
    check_merges(&merges, |token| vocabulary.contains_key(token))
        .map_err(|problem| Error::tokenizer(&merges_path, problem))?;
    build(vocabulary, merges, prefix_space).map_err(|error| Error::tokenizer(folder, error.to_string()))
}

/// The byte-level steps of a tokenizer, none if its vocabulary is of another kind.
pub(super) fn steps(inner: &Inner) -> impl Iterator<Item = &ByteLevel> {
    let steps: &[PreTokenizerWrapper] = match inner.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::Sequence(steps)) => steps.as_ref(),
        Some(step) => std::slice::from_ref(step),
        None => &[],
    };
    steps.iter().filter_map(|step| match step {
        PreTokenizerWrapper::ByteLevel(step) => Some(step),
        _ => None,
    })
}

/// Reads one merge from each line: two tokens with a space between them. A first line `#version` is a comment.
fn parse_merges(text: &str) -> Result<Merges, String> {
    let lines = text.lines().enumerate().filter(|(index, line)| !(*index == 0 && line.starts_with("#version")));
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                Ok((left.to_owned(), right.to_owned()))
            }
            _ => Err(format!("line {} is {line:?}, expected two tokens with one space between them", index + 1)),
        })
        .collect()
}

/// Checks that both sides of every merge and the merged token are in the vocabulary: `tokenizers` relies on it.
pub(super) fn check_merges(merges: &Merges, is_token: impl Fn(&str) -> bool) -> Result<(), String> {
    for (left, right) in merges {
        let merged = format!("{left}{right}");
        if let Some(unknown) = [left, right, &merged].into_iter().find(|token| !is_token(token)) {
            return Err(format!(
                "the merge {left:?} {right:?} needs the token {unknown:?}, which the vocabulary lacks"
            ));
        }
    }
    Ok(())
}

fn build(vocabulary: Vocab, merges: Merges, prefix_space: bool) -> TokenizersResult<Inner> {
    let model = BPE::builder().vocab_and_merges(vocabulary, merges);
    // `Tokenizer::encode` takes spaces out of the offsets, for every kind of tokenizer.
    let byte_level = ByteLevel::new(prefix_space, false, true);
    let mut tokenizer = Inner::new(model.build()?.into());
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    Ok(tokenizer)
}
