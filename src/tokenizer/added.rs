//! Tokens that are added to a vocabulary: those that a folder lists, and the special tokens.

use std::path::Path;

use tokenizers::{AddedToken, NormalizedString, Normalizer};

use super::{Inner, sentencepiece::SPACE, settings::Settings, special::SpecialTokens};
use crate::{Error, Result};

/// How far the ids of added tokens may go beyond the vocabulary. Published models add a few tokens; a larger id is a
/// mistake.
const MOST_ADDED: u64 = 10_000;

/// What to do if the vocabulary has no mask token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingMask {
    /// Leave it out.
    Stays,
    /// Append it to the other tokens.
    IsAppended,
}

/// Adds the tokens that `settings` lists, with the ids given there, and makes special tokens recognised in texts. Ids
/// that the list skips become `[unused…]`. `source` is for error messages.
///
/// # Errors
/// A listed id that belongs to another token, or that is far from all others.
pub(super) fn add_tokens(
    inner: &mut Inner,
    source: &Path,
    settings: &Settings,
    special: &SpecialTokens,
    mask: MissingMask,
) -> Result<()> {
    let size = inner.get_vocab_size(true) as u64;
    let is_new = |token: &AddedToken| inner.token_to_id(&token.content).is_none();
    let new = settings.added.iter().filter(|&(&id, token)| id >= size && is_new(token));
    let mut tokens: Vec<AddedToken> = Vec::new();
    for (&id, token) in new {
        if id > size + MOST_ADDED {
            let problem = format!("has the id {id}, far beyond the {size} tokens of the vocabulary");
            return Err(Error::tokenizer(source, format!("the added token {:?} {problem}", token.content)));
        }
        let left_out = size + tokens.len() as u64..id;
        tokens.extend(left_out.map(|id| AddedToken::from(format!("[unused{id}]"), true)));
        tokens.push(token.clone());
    }
    // Those of a tokenizer.json that nothing is left of in normalised text; see `findable`.
    let own = inner.get_added_vocabulary().get_added_tokens_decoder().values();
    tokens.extend(own.filter(|token| token.normalized && normalised(inner, token).is_empty()).cloned());
    // A second time, to set the properties of tokens that were already in the vocabulary.
    tokens.extend(settings.added.values().cloned());
    add(inner, source, tokens)?;
    for (&id, AddedToken { content, .. }) in &settings.added {
        if inner.token_to_id(content).map(u64::from) != Some(id) {
            let problem = match (inner.token_to_id(content), inner.id_to_token(id as u32)) {
                (Some(other), None) => format!("the vocabulary has it at {other}"),
                (_, other) => format!("which belongs to {:?}", other.unwrap_or_default()),
            };
            return Err(Error::tokenizer(source, format!("the added token {content:?} has the id {id}, {problem}")));
        }
    }
    let is_known = |token: &AddedToken| inner.token_to_id(&token.content).is_some();
    let may_be_new = |token: &AddedToken| mask == MissingMask::IsAppended && *token == special.mask;
    let special = special.all().into_iter().filter(|token| is_known(token) || may_be_new(token));
    let listed = inner.get_added_vocabulary().get_vocab();
    let missing = special.chain(settings.extra()?).filter(|token| !listed.contains_key(&token.content)).collect();
    add(inner, source, missing)
}

fn add(inner: &mut Inner, source: &Path, tokens: Vec<AddedToken>) -> Result<()> {
    let tokens: Vec<_> = tokens.into_iter().map(|token| findable(inner, token)).collect();
    inner.add_tokens(tokens).map(drop).map_err(|error| Error::tokenizer(source, error.to_string()))
}

/// The token in a form that can be found. A token that is searched for in normalised text is normalised too. If that
/// puts a space in front of it, it would only be found after a space, and if that leaves nothing of it, everywhere; such a
/// token is searched for in the original text.
fn findable(inner: &Inner, token: AddedToken) -> AddedToken {
    let text = normalised(inner, &token);
    let is_behind_space = text.starts_with(SPACE) && !token.content.starts_with(SPACE);
    let normalized = token.normalized && !is_behind_space && !text.is_empty();
    token.normalized(normalized)
}

/// The token as it stands in normalised text.
fn normalised(inner: &Inner, token: &AddedToken) -> String {
    let mut text = NormalizedString::from(token.content.as_str());
    let normalizes = inner.get_normalizer().is_some_and(|normalizer| normalizer.normalize(&mut text).is_ok());
    if normalizes { text.get().to_owned() } else { token.content.clone() }
}
