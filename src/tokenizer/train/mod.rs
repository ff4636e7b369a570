//! Training of a vocabulary: a unigram model as in SentencePiece, with DeBERTa's special tokens.
//!
//! Normalisation follows sentencepiece's default, `nmt_nfkc`. So do the rules for a piece: it consists of letters, or
//! of digits, or of other characters, and has a space only in front. There is no byte fallback: characters outside the
//! vocabulary become `[UNK]`.
//!
//! The different words of a text are counted first, so that time and memory grow with their number and not with the
//! length of the text.

mod unigram;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use tokenizers::{
    AddedToken, NormalizedString, Normalizer as _,
    models::unigram::Unigram,
    normalizers::{NFKC, Nmt},
    utils::SysRegex,
};

use super::{
    Tokenizer,
    charsmap::{Normalizer, Step},
    deberta_template, sentencepiece,
    special::SpecialTokens,
};
use crate::{Error, Result};

/// The size of a vocabulary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VocabularyOptions {
    /// Number of tokens, special tokens included.
    pub size: usize,
    /// Share of the text's characters that the vocabulary must cover, in (0, 1]; the rarest characters become `[UNK]`.
    /// Take 1 for clean text, and 0.9995 if thousands of different characters would fill the vocabulary.
    pub character_coverage: f64,
}

impl Default for VocabularyOptions {
    /// 8,000 tokens, all characters.
    fn default() -> Self {
        Self { size: 8000, character_coverage: 1.0 }
    }
}

/// The words of a text, to train a vocabulary from. Memory grows with the number of different words.
///
/// ```
/// use deberta_burn::tokenizer::train::{VocabularyOptions, VocabularyTrainer};
///
/// # fn main() -> deberta_burn::Result<()> {
/// let mut trainer = VocabularyTrainer::default();
/// trainer.add("How much wood would a woodchuck chuck, if a woodchuck could chuck wood?");
/// let tokenizer = trainer.train(&VocabularyOptions { size: 24, ..VocabularyOptions::default() })?;
/// assert_eq!(tokenizer.vocab_size(), 24);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct VocabularyTrainer {
    words: HashMap<String, u64>,
}

/// A text without spaces is cut into parts of this many characters.
const LONGEST_PART: usize = 256;

impl VocabularyTrainer {
    /// Counts the words of a text.
    pub fn add(&mut self, text: &str) {
        for word in text.split_whitespace() {
            match self.words.get_mut(word) {
                Some(count) => *count += 1,
                None => _ = self.words.insert(word.to_owned(), 1),
            }
        }
    }

    /// Number of words so far, repetitions included.
    pub fn words(&self) -> u64 {
        self.words.values().sum()
    }

    /// Trains the vocabulary: `[PAD]` 0, `[CLS]` 1, `[SEP]` 2, `[UNK]` 3, the pieces from likely to unlikely, `[MASK]`.
    /// The same words give the same vocabulary.
    ///
    /// # Errors
    /// A size too small for the text's characters, or too large for the number of different pieces in the text; a
    /// coverage outside its range; no words.
    pub fn train(&self, options: &VocabularyOptions) -> Result<Tokenizer> {
        let VocabularyOptions { size, character_coverage } = *options;
        if !(character_coverage > 0.0 && character_coverage <= 1.0) {
            return Err(Error::value("character_coverage", character_coverage, "above 0 and at most 1"));
        }
        let normalizer = normalizer().map_err(failure)?;
        let parts = self.parts(&normalizer)?;
        let characters = covered(&parts, character_coverage);
        if characters.is_empty() {
            return Err(Error::input("text", "it has no words, expected at least one"));
        }
        let tokens = SpecialTokens::deberta();
        let special = [&tokens.pad, &tokens.cls, &tokens.sep, &tokens.unk, &tokens.mask].map(AddedToken::clone);
        let least = special.len() + characters.len();
        if size < least {
            let expected = format!(
                "at least {least}, for the text has {} different characters; or lower the character_coverage",
                characters.len()
            );
            return Err(Error::value("size", size, expected));
        }
        let pieces = unigram::train(&spellable(parts, &characters), size - special.len());
        let found = special.len() + pieces.len();
        if found < size {
            let expected = format!("at most {found}, for the text gives no more pieces; or give more text");
            return Err(Error::value("size", size, expected));
        }

        // Six digits are more than enough to choose between pieces, and they are the same on every machine.
        let pieces = pieces.into_iter().map(|(piece, score)| (piece, (score * 1e6).round() / 1e6));
        let front = special[..4].iter().map(|token| (token.content.clone(), 0.0));
        let added = special.to_vec();
        let inner = Unigram::from(front.chain(pieces).collect(), Some(3), false)
            .and_then(|model| sentencepiece::assemble(model, normalizer, added))
            .map_err(failure)?;
        Tokenizer::new(Path::new("trained"), inner, tokens, deberta_template)
    }

    /// The parts of words in which pieces are searched for, with counts: normalised words, cut between letters, digits
    /// and other characters.
    fn parts(&self, normalizer: &Normalizer) -> Result<BTreeMap<String, u64>> {
        let space = sentencepiece::SPACE;
        let pattern =
            format!(r"{space}?[\p{{L}}\p{{M}}]+|{space}?\p{{N}}+|{space}?[^\p{{L}}\p{{M}}\p{{N}}{space}]+|{space}");
        let pattern = SysRegex::new(&pattern).expect("a valid pattern");
        let mut parts = BTreeMap::new();
        for (word, count) in &self.words {
            let mut normalized = NormalizedString::from(word.as_str());
            normalizer.normalize(&mut normalized).map_err(failure)?;
            for (start, end) in pattern.find_iter(normalized.get()) {
                let characters: Vec<char> = normalized.get()[start..end].chars().collect();
                for part in characters.chunks(LONGEST_PART) {
                    *parts.entry(part.iter().collect()).or_default() += count;
                }
            }
        }
        Ok(parts)
    }
}

fn failure(error: tokenizers::Error) -> Error {
    Error::input("vocabulary", format!("training failed: {error}"))
}

/// Close to sentencepiece's `nmt_nfkc`: control characters are removed, white space of all kinds becomes spaces, then
/// NFKC.
fn normalizer() -> tokenizers::Result<Normalizer> {
    let mut steps = vec![Step::Other(Nmt.into()), Step::Other(NFKC.into())];
    steps.extend(sentencepiece::escape_spaces(true, true)?);
    Ok(Normalizer(steps))
}

/// The most frequent characters that make up this share of the text.
fn covered(parts: &BTreeMap<String, u64>, coverage: f64) -> HashSet<char> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (part, count) in parts {
        part.chars().for_each(|character| *counts.entry(character).or_default() += count);
    }
    let wanted = coverage * counts.values().sum::<u64>() as f64;
    let mut counts: Vec<(char, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|&(character, count)| (Reverse(count), character));
    let mut sum = 0;
    let enough = counts.iter().position(|(_, count)| {
        sum += count;
        sum as f64 >= wanted
    });
    counts.truncate(enough.map_or(counts.len(), |last| last + 1));
    counts.into_iter().map(|(character, _)| character).collect()
}

/// The parts, cut at characters that are not covered.
fn spellable(parts: BTreeMap<String, u64>, characters: &HashSet<char>) -> Vec<(String, u64)> {
    let cut = |(part, count): (String, u64)| {
        let pieces = part.split(|character| !characters.contains(&character)).filter(|piece| !piece.is_empty());
        pieces.map(|piece| (piece.to_owned(), count)).collect::<Vec<_>>()
    };
    parts.into_iter().flat_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::EncodeOptions;

    const TEXT: &str =
        "The quick brown fox jumps over the lazy dog. The lazy dog sleeps; the fox, being quick, is gone.
        In 1851 and 1852, they said: \"Don't wake the sleeping dog!\" Nobody woke it. Everybody else was sleeping too.";

    fn trainer(texts: &[&str]) -> VocabularyTrainer {
        let mut trainer = VocabularyTrainer::default();
        texts.iter().for_each(|text| trainer.add(text));
        trainer
    }

    fn train(text: &str, size: usize, character_coverage: f64) -> Result<Tokenizer> {
        trainer(&[text; 5]).train(&VocabularyOptions { size, character_coverage })
    }

    fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let encoding = &tokenizer.encode(&[text.into()], &EncodeOptions::default()).unwrap()[0];
        encoding.ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect()
    }

    #[test]
    fn special_tokens_have_their_places() {
        let tokenizer = train(TEXT, 70, 1.0).unwrap();
        assert_eq!(tokenizer.vocab_size(), 70);
        let ids = [tokenizer.pad_id(), tokenizer.cls_id(), tokenizer.sep_id(), tokenizer.unk_id(), tokenizer.mask_id()];
        assert_eq!(ids, [0, 1, 2, 3, 69]);
        assert_eq!(tokens(&tokenizer, "[MASK]"), ["[CLS]", "[MASK]", "[SEP]"]);
    }

    #[test]
    fn frequent_words_become_pieces() {
        let tokenizer = train(TEXT, 70, 1.0).unwrap();
        assert_eq!(tokens(&tokenizer, " the\u{a0} ｄog\t")[1..3], ["▁the", "▁dog"]);
    }

    #[test]
    fn pieces_do_not_mix_letters_digits_and_marks() {
        let text = "(a1), (a1), (a1), é2! é2! b̈3 b̈3 ".repeat(10);
        let tokenizer = train(&text, 21, 1.0).unwrap();
        let kind = |character: char| match character {
            '\u{308}' => 0,
            _ if character.is_alphabetic() => 0,
            _ if character.is_numeric() => 1,
            _ => 2,
        };
        for id in 4..20 {
            let token = tokenizer.token(id).unwrap();
            let kinds: HashSet<_> = token.trim_start_matches('▁').chars().map(kind).collect();
            assert!(kinds.len() <= 1, "{token}");
        }
    }

    #[test]
    fn a_saved_tokenizer_gives_the_same_ids() {
        let folder = tempfile::tempdir().unwrap();
        let trained = train(TEXT, 70, 1.0).unwrap();
        trained.save(folder.path()).unwrap();
        let read = Tokenizer::from_folder(folder.path()).unwrap();
        let text = "The  sleepy dogs’ 1,852 foxes [MASK] quickly ﬁnd it\u{200b}.";
        assert_eq!(tokens(&read, text), tokens(&trained, text));
        assert_eq!(tokens(&read, text).iter().filter(|token| *token == "[MASK]").count(), 1);
    }

    #[test]
    fn the_same_text_gives_the_same_vocabulary() {
        let first = train(TEXT, 70, 1.0).unwrap().to_json().unwrap();
        let lines: Vec<&str> = TEXT.lines().rev().collect();
        let options = VocabularyOptions { size: 70, character_coverage: 1.0 };
        for _ in 0..3 {
            assert_eq!(trainer(&lines.repeat(5)).train(&options).unwrap().to_json().unwrap(), first);
        }
    }

    #[test]
    fn rare_characters_are_left_out() {
        let text = format!("{} Ω", "abc abd ".repeat(1000));
        let tokenizer = train(&text, 11, 0.999).unwrap();
        assert_eq!(tokens(&tokenizer, "Ω")[1..3], ["▁", "[UNK]"]);
        assert!(train(&text, 11, 1.0).unwrap().id("Ω").is_some());
    }

    #[test]
    fn long_text_without_spaces_and_control_characters_do_no_harm() {
        let text = "字典\0".repeat(5000) + "<UNK> \u{1}[PAD]";
        train(&text, 20, 1.0).unwrap();
    }

    #[test]
    fn impossible_sizes_are_errors() {
        let error = |text, size, coverage| train(text, size, coverage).unwrap_err().to_string();
        let message = error("abc", 8, 1.0);
        assert!(
            message.contains("size: it is 8, expected at least 9, for the text has 4 different characters"),
            "{message}"
        );
        let message = error("abc", 1000, 1.0);
        assert!(message.contains("size: it is 1000, expected at most "), "{message}");
        let message = error("abc", 1000, 0.0);
        assert!(message.contains("character_coverage: it is 0, expected above 0"), "{message}");
        assert_eq!(error(" \u{1} ", 1000, 1.0), "text: it has no words, expected at least one");
    }
}
