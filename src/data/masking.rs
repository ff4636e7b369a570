//! Dynamic masking: which tokens of a sequence a model has to guess. They are other ones in each epoch.
//!
//! Sources: BERT (arXiv 1810.04805), section 3.1, for the 80/10/10 rule; microsoft/DeBERTa, `NGramMaskGenerator` of
//! `mlm_task.py`, for whole words and n-grams. The draw differs from the original, which goes through the sequence from
//! the left and stops when enough is masked, so that the end is masked less often than the rest. Here each token has
//! the same probability, wherever it stands and however long its word is.

use std::ops::Range;

use super::{Random, corpus::Sequence};
use crate::{Error, Result, tokenizer::Tokenizer};

/// What is masked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskingStrategy {
    /// Each token by itself.
    Token,
    /// Whole words: all their tokens or none.
    WholeWord,
    /// Spans of n whole words, n with a probability proportional to 1/n. A span is shorter where the text ends.
    Span {
        /// The longest span in words, at least 1; 3 in DeBERTa.
        max: usize,
    },
}

/// How sequences are masked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskingOptions {
    /// What is masked together.
    pub strategy: MaskingStrategy,
    /// Expected share of masked tokens among those that are not special, in (0, 1).
    pub rate: f64,
    /// Share of masked tokens that become `[MASK]`, in [0, 1].
    pub to_mask: f64,
    /// Share of masked tokens that become a random token, in [0, 1]. The others stay as they are.
    pub to_random: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl MaskingOptions {
    /// For masked language modelling: 15 % of the tokens; of these, 80 % become `[MASK]`, 10 % a random token, and 10 %
    /// stay.
    pub fn masked_lm(strategy: MaskingStrategy, seed: u64) -> Self {
        Self { strategy, rate: 0.15, to_mask: 0.8, to_random: 0.1, seed }
    }

    /// For replaced token detection: 15 % of the tokens; all of these become `[MASK]` (arXiv 2111.09543).
    pub fn replaced_token(strategy: MaskingStrategy, seed: u64) -> Self {
        Self { to_mask: 1.0, to_random: 0.0, ..Self::masked_lm(strategy, seed) }
    }
}

/// A sequence with masked tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// The token ids that the model gets.
    pub input_ids: Vec<u32>,
    /// Indices of the masked tokens, ascending. A short sequence may have none.
    pub positions: Vec<usize>,
    /// The original ids at [`Masked::positions`], which the model has to guess.
    pub labels: Vec<u32>,
}

/// The longest word in tokens. What is longer is text without spaces (Chinese, Thai, web addresses): if all of it were
/// masked, a model could guess nothing.
const LONGEST_WORD: usize = 10;

/// Masks sequences. What is masked depends on the seed, the epoch and the sequence's index alone.
#[derive(Debug, Clone)]
pub struct Masking {
    options: MaskingOptions,
    mask_id: u32,
    /// All ids of the vocabulary that are not special, ascending. Only these are masked, and random tokens are drawn
    /// from them.
    ordinary: Vec<u32>,
}

impl Masking {
    /// Prepares the masking of this tokenizer's sequences.
    ///
    /// # Errors
    /// Options outside their ranges.
    pub fn new(tokenizer: &Tokenizer, options: MaskingOptions) -> Result<Self> {
        let MaskingOptions { strategy, rate, to_mask, to_random, .. } = options;
        if !(rate > 0.0 && rate < 1.0) {
            return Err(Error::value("rate", rate, "a number above 0 and below 1"));
        }
        for (key, share) in
            [("to_mask", to_mask), ("to_random", to_random), ("to_mask + to_random", to_mask + to_random)]
        {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::value(key, share, "a number from 0 to 1"));
            }
        }
        if strategy == (MaskingStrategy::Span { max: 0 }) {
            return Err(Error::value("max", 0, "at least 1 word"));
        }
        let ordinary = (0..tokenizer.vocab_size() as u32).filter(|&id| !tokenizer.is_special(id)).collect();
        Ok(Self { options, mask_id: tokenizer.mask_id(), ordinary })
    }

    /// Masks the sequence with this index in this epoch. Special tokens are never masked.
    pub fn mask(&self, sequence: &Sequence, epoch: u64, index: u64) -> Masked {
        let random = &mut Random::new(&[self.options.seed, epoch, index]);
        let mut units = match self.options.strategy {
            MaskingStrategy::Token => self.words(sequence, 1),
            MaskingStrategy::WholeWord => self.words(sequence, LONGEST_WORD),
            MaskingStrategy::Span { max } => spans(&self.words(sequence, LONGEST_WORD), max, random),
        };
        let mut positions: Vec<usize> = choose(&mut units, self.options.rate, random).flatten().collect();
        positions.sort_unstable();
        let mut input_ids = sequence.ids.clone();
        for &position in &positions {
            let draw = random.uniform();
            if draw < self.options.to_mask {
                input_ids[position] = self.mask_id;
            } else if draw < self.options.to_mask + self.options.to_random {
                input_ids[position] = self.ordinary[random.below(self.ordinary.len())];
            }
        }
        let labels = positions.iter().map(|&position| sequence.ids[position]).collect();
        Masked { input_ids, positions, labels }
    }

    /// The words between special tokens. Those of more than `longest` tokens are cut into parts.
    fn words(&self, sequence: &Sequence, longest: usize) -> Vec<Range<usize>> {
        let mut words: Vec<Range<usize>> = Vec::new();
        for (position, (id, &starts)) in sequence.ids.iter().zip(&sequence.word_starts).enumerate() {
            if self.ordinary.binary_search(id).is_err() {
                continue;
            }
            match words.last_mut() {
                Some(word) if word.end == position && !starts && word.len() < longest => word.end += 1,
                _ => words.push(position..position + 1),
            }
        }
        words
    }
}

/// Joins words into spans of random lengths. A special token between words ends a span.
fn spans(words: &[Range<usize>], max: usize, random: &mut Random) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut missing = 0;
    for word in words {
        match spans.last_mut() {
            Some(span) if span.end == word.start && missing > 0 => {
                span.end = word.end;
                missing -= 1;
            }
            _ => {
                spans.push(word.clone());
                missing = span_length(max, random) - 1;
            }
        }
    }
    spans
}

/// A number n in `1..=max`, with a probability proportional to 1/n.
fn span_length(max: usize, random: &mut Random) -> usize {
    let weight = |n: usize| 1.0 / n as f64;
    let mut draw = random.uniform() * (1..=max).map(weight).sum::<f64>();
    // The last length is not compared: rounding cannot miss it.
    (1..max)
        .find(|&n| {
            draw -= weight(n);
            draw < 0.0
        })
        .unwrap_or(max)
}

/// Chooses units, each with the probability `rate`. The chosen tokens together come as near to that share as whole
/// units allow. The order of `units` becomes random.
///
/// The units are laid around a circle in random order; its length is the number of their tokens. An arc of `rate` times
/// that length starts at a random place. On average it covers a share of `rate` of each unit, whatever the unit's
/// length. A unit that it covers in full is chosen. A unit at one of its two ends is chosen with the probability of the
/// covered part. This is systematic sampling: the covered parts are added up, and a unit is chosen when the sum passes
/// a whole number, starting from a random fraction. So the number of chosen one-token units is the expected number,
/// rounded down or up at random.
fn choose<'a>(
    units: &'a mut [Range<usize>],
    rate: f64,
    random: &mut Random,
) -> impl Iterator<Item = Range<usize>> + use<'a> {
    random.shuffle(units);
    let circle: usize = units.iter().map(|unit| unit.len()).sum();
    let circle = circle as f64;
    let start = random.uniform() * circle;
    let end = start + rate * circle;
    let mut sum = random.uniform();
    let mut unit_end = 0.0;
    units.iter().filter_map(move |unit| {
        let length = unit.len() as f64;
        let unit_start = unit_end;
        unit_end += length;
        let covered = |from: f64, to: f64| (end.min(to) - start.max(from)).max(0.0);
        // An arc that passes the end of the circle goes on at its beginning.
        let covered = covered(unit_start, unit_end) + covered(unit_start + circle, unit_end + circle);
        let before = sum;
        sum += covered / length;
        (sum.floor() > before.floor()).then(|| unit.clone())
    })
}

#[cfg(test)]
mod tests;
