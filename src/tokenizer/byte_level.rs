//! `vocab.json` and `merges.txt` (DeBERTa v1, RoBERTa): GPT-2's byte-level byte-pair encoding.

use std::{collections::HashMap, fs, path::Path};

use tokenizers::{
    AddedToken, Result as TokenizersResult,
    models::bpe::{BPE, Merges, Vocab},
    pre_tokenizers::byte_level::ByteLevel,
};

use super::{Inner, special::SpecialTokens};
use crate::{Error, Result};

/// Builds the tokenizer from a folder's `vocab.json` and `merges.txt`, without a post-processor.
pub(super) fn read(folder: &Path, special: &SpecialTokens) -> Result<Inner> {
    let vocabulary_path = folder.join("vocab.json");
    let text = fs::read_to_string(&vocabulary_path).map_err(Error::io("read", &vocabulary_path))?;
    let vocabulary: Vocab = serde_json::from_str(&text).map_err(Error::json(vocabulary_path.display()))?;
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
    let text = fs::read_to_string(&merges_path).map_err(Error::io("read", &merges_path))?;
    let merges = parse_merges(&text).map_err(|problem| Error::tokenizer(&merges_path, problem))?;
    check_merges(&merges, |token| vocabulary.contains_key(token))
        .map_err(|problem| Error::tokenizer(&merges_path, problem))?;
    build(vocabulary, merges, special).map_err(|error| Error::tokenizer(folder, error.to_string()))
}

/// One merge a line: two tokens and a space between them; a first line `#version` is a comment.
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

/// Checks that both sides of every merge, and what they become, are tokens: `tokenizers` counts on it.
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

fn build(vocabulary: Vocab, merges: Merges, special: &SpecialTokens) -> TokenizersResult<Inner> {
    let model = BPE::builder().vocab_and_merges(vocabulary, merges);
    // Spaces stay outside the offsets through `Tokenizer::encode`, for every kind of tokenizer alike.
    let byte_level = ByteLevel::new(false, false, true);
    let mut tokenizer = Inner::new(model.build()?.into());
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    let plain = [&special.pad, &special.cls, &special.sep, &special.unk];
    tokenizer.add_tokens(plain.map(|token| AddedToken::from(token.clone(), true)))?;
    // The mask stands for a word, so it takes the space in front of it, as the words of such a vocabulary do.
    tokenizer.add_tokens([AddedToken::from(special.mask.clone(), true).lstrip(true)])?;
    Ok(tokenizer)
}
