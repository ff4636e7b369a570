//! Dynamic masking: which tokens of a sequence a model has to guess, anew in each epoch.
//!
//! Sources: BERT (arXiv 1810.04805), section 3.1, for the 80/10/10 rule; microsoft/DeBERTa, `NGramMaskGenerator` of
//! `mlm_task.py`, for whole words and n-grams. What is masked is drawn otherwise here. The original goes through the
//! sequence from the left and stops when its budget is spent, so that the tail is masked less often than the rest; here
//! each token has the same probability, wherever it stands and however long its word is.

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
    /// Runs of whole words: n of them with a probability proportional to 1/n, fewer where the text ends.
    Span {
        /// Most words of a span, at least 1; DeBERTa's was 3.
        max: usize,
    },
}

/// How sequences are masked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskingOptions {
    /// What is masked together.
    pub strategy: MaskingStrategy,
    /// Expected share of masked tokens among all that are not special, in (0, 1).
    pub rate: f64,
    /// Share of masked tokens that become `[MASK]`, in [0, 1].
    pub to_mask: f64,
    /// Share of masked tokens that become a random token, in [0, 1]. Those that remain stay as they are.
    pub to_random: f64,
    /// Another seed masks other tokens.
    pub seed: u64,
}

impl MaskingOptions {
    /// For masked language modelling: 15 % of the tokens; of these, 80 % become `[MASK]`, 10 % a random token, and 10 %
    /// stay.
    pub fn masked_lm(strategy: MaskingStrategy, seed: u64) -> Self {
        Self { strategy, rate: 0.15, to_mask: 0.8, to_random: 0.1, seed }
    }

    /// For replaced token detection: 15 % of the tokens, all of which become `[MASK]` (arXiv 2111.09543).
    pub fn replaced_token(strategy: MaskingStrategy, seed: u64) -> Self {
        Self { to_mask: 1.0, to_random: 0.0, ..Self::masked_lm(strategy, seed) }
    }
}

/// A sequence with masked tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// The token ids as the model gets them.
    pub input_ids: Vec<u32>,
    /// Indices of the masked tokens, ascending. There may be none, if the sequence is short.
    pub positions: Vec<usize>,
    /// The original ids at [`Masked::positions`], to be guessed.
    pub labels: Vec<u32>,
}

/// Longest run of tokens that is taken for one word. Longer ones are no words but text without spaces (Chinese, Thai,
/// addresses), of which a model could guess nothing if all were masked.
const LONGEST_WORD: usize = 10;

/// Masks sequences, each as a pure function of the seed, the epoch and the sequence's index.
#[derive(Debug, Clone)]
pub struct Masking {
    options: MaskingOptions,
    mask_id: u32,
    /// All ids of the vocabulary that are not special, ascending: what is masked, and what random tokens are drawn from.
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

    /// The words between special tokens, those of more than `longest` tokens in parts.
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

/// Cuts a text of words into spans of random lengths; special tokens between words end a span.
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
    // The last length needs no comparison, nor can rounding miss it.
    (1..max)
        .find(|&n| {
            draw -= weight(n);
            draw < 0.0
        })
        .unwrap_or(max)
}

/// Chooses units so that each has the probability `rate`, and their tokens together are as near to that share as whole
/// units allow; their order becomes random.
///
/// The units, in random order, are laid around a circle as long as all their tokens, and an arc of `rate` times that
/// length starts at a random place. It covers a share of `rate` of each unit on average, whatever the unit's length. Units
/// that it covers in full are chosen; the ones at its two ends with the probability of the covered part, by systematic
/// sampling: one random threshold, which the running sum of the covered parts passes once for each unit chosen. So units
/// of one token are as many as the expected number, rounded down or up at random.
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
        // An arc that passes the circle's end goes on at its beginning.
        let covered = covered(unit_start, unit_end) + covered(unit_start + circle, unit_end + circle);
        let before = sum;
        sum += covered / length;
        (sum.floor() > before.floor()).then(|| unit.clone())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repository::fixture;

    const SEQUENCES: u64 = 10_000;
    /// How many standard deviations a statistic may be off. One that is off by more at random happens once in 150,000
    /// times; the tests below look at some 400 of them, with fixed seeds.
    const BOUND: f64 = 4.5;
    const STRATEGIES: [MaskingStrategy; 3] =
        [MaskingStrategy::Token, MaskingStrategy::WholeWord, MaskingStrategy::Span { max: 3 }];

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_folder(fixture("small_tokenizer")).unwrap()
    }

    /// `[CLS]`, 40 words of 1 to 4 tokens with a `[SEP]` and an `[UNK]` between them, `[SEP]`.
    fn sequence(tokenizer: &Tokenizer) -> Sequence {
        let mut sequence = Sequence { ids: vec![tokenizer.cls_id()], word_starts: vec![true] };
        for word in 0..40 {
            let ids = match word {
                13 => vec![tokenizer.sep_id()],
                29 => vec![tokenizer.unk_id()],
                _ => (0..1 + word * 7 % 4).map(|part| 100 + word * 4 + part).collect(),
            };
            sequence.word_starts.extend((0..ids.len()).map(|part| part == 0));
            sequence.ids.extend(ids);
        }
        sequence.ids.push(tokenizer.sep_id());
        sequence.word_starts.push(true);
        sequence
    }

    /// One sequence, masked 10,000 times.
    struct Sample {
        tokenizer: Tokenizer,
        sequence: Sequence,
        masked: Vec<Masked>,
    }

    impl Sample {
        fn new(options: MaskingOptions) -> Self {
            let tokenizer = tokenizer();
            let sequence = sequence(&tokenizer);
            let masking = Masking::new(&tokenizer, options).unwrap();
            let masked = (0..SEQUENCES).map(|index| masking.mask(&sequence, 3, index)).collect();
            Self { tokenizer, sequence, masked }
        }

        /// Positions that may be masked.
        fn ordinary(&self) -> Vec<usize> {
            let special = |&position: &usize| self.tokenizer.is_special(self.sequence.ids[position]);
            (0..self.sequence.ids.len()).filter(|position| !special(position)).collect()
        }

        /// How often each position was masked.
        fn counts(&self) -> Vec<usize> {
            let mut counts = vec![0; self.sequence.ids.len()];
            self.masked.iter().flat_map(|masked| &masked.positions).for_each(|&position| counts[position] += 1);
            counts
        }
    }

    /// The distance of a count from what is expected of `n` independent trials, in standard deviations.
    fn deviation(count: usize, n: usize, probability: f64) -> f64 {
        let n = n as f64;
        (count as f64 - n * probability) / (n * probability * (1.0 - probability)).sqrt()
    }

    #[test]
    fn the_rate_is_what_was_asked_for() {
        for strategy in STRATEGIES {
            let sample = Sample::new(MaskingOptions::masked_lm(strategy, 1));
            let expected = 0.15 * sample.ordinary().len() as f64;
            let numbers: Vec<f64> = sample.masked.iter().map(|masked| masked.positions.len() as f64).collect();
            let n = numbers.len() as f64;
            let mean = numbers.iter().sum::<f64>() / n;
            let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / (n - 1.0);
            let deviation = (mean - expected) / (variance / n).sqrt();
            assert!(deviation.abs() < BOUND, "{strategy:?}: mean {mean}, expected {expected}, {deviation} deviations");

            // The ends of the arc each may add or leave out one unit: a span of 3 words of at most 4 tokens.
            let widest = match strategy {
                MaskingStrategy::Token => 1.0,
                MaskingStrategy::WholeWord => 2.0 * 4.0,
                MaskingStrategy::Span { max } => 2.0 * 4.0 * max as f64,
            };
            assert!(numbers.iter().all(|number| (number - expected).abs() < widest), "{strategy:?}");
        }
    }

    #[test]
    fn every_position_is_masked_alike() {
        for (seed, strategy) in (2..).zip(STRATEGIES) {
            let sample = Sample::new(MaskingOptions::masked_lm(strategy, seed));
            let ordinary = sample.ordinary();
            let counts = sample.counts();
            for &position in &ordinary {
                let deviation = deviation(counts[position], SEQUENCES as usize, 0.15);
                assert!(deviation.abs() < BOUND, "{strategy:?}: position {position} is off by {deviation} deviations");
            }
            let special = counts.iter().enumerate().filter(|(position, _)| !ordinary.contains(position));
            assert!(special.map(|(_, count)| count).sum::<usize>() == 0, "{strategy:?} masks a special token");
        }
    }

    #[test]
    fn of_ten_tokens_eight_become_masks_one_random_and_one_stays() {
        for strategy in STRATEGIES {
            let sample = Sample::new(MaskingOptions::masked_lm(strategy, 5));
            let ordinary =
                (0..sample.tokenizer.vocab_size() as u32).filter(|&id| !sample.tokenizer.is_special(id)).count();
            let outcomes = sample.masked.iter().flat_map(|masked| {
                masked
                    .positions
                    .iter()
                    .zip(&masked.labels)
                    .map(|(&position, &label)| (masked.input_ids[position], label))
            });
            let outcomes: Vec<(u32, u32)> = outcomes.collect();
            let masks = outcomes.iter().filter(|(input, _)| *input == sample.tokenizer.mask_id()).count();
            let kept = outcomes.iter().filter(|(input, label)| input == label).count();
            // A random token is the one that was there before once in a vocabulary.
            let kept_share = 0.1 + 0.1 / ordinary as f64;
            for (count, share) in [(masks, 0.8), (kept, kept_share), (outcomes.len() - masks - kept, 0.2 - kept_share)]
            {
                let deviation = deviation(count, outcomes.len(), share);
                assert!(deviation.abs() < BOUND, "{strategy:?}: {count} of {} for {share}", outcomes.len());
            }
            let random = outcomes.iter().filter(|(input, _)| *input != sample.tokenizer.mask_id());
            assert!(random.clone().all(|(input, _)| !sample.tokenizer.is_special(*input)));
            let draws = 0.1 * outcomes.len() as f64;
            let different: std::collections::HashSet<u32> = random.map(|(input, _)| *input).collect();
            // Of V ids, V (1 - exp(-draws / V)) are expected among the draws, with a deviation below the root of V / 4
            // (below 2 % of V, from 1,000 ids on).
            let expected = ordinary as f64 * (1.0 - (-draws / ordinary as f64).exp());
            let missed = expected - different.len() as f64;
            assert!(missed < 0.05 * expected, "{} of {ordinary} ids are drawn, expected {expected}", different.len());
        }
    }

    #[test]
    fn replaced_token_detection_masks_all() {
        let sample = Sample::new(MaskingOptions::replaced_token(MaskingStrategy::Token, 6));
        for masked in &sample.masked {
            assert!(masked.positions.iter().all(|&position| masked.input_ids[position] == sample.tokenizer.mask_id()));
        }
    }

    #[test]
    fn whole_words_are_masked_whole() {
        let whole = |masked: &Masked, starts: &[bool]| {
            let chosen = |position: usize| masked.positions.binary_search(&position).is_ok();
            (1..starts.len()).filter(|&position| !starts[position]).all(|at| chosen(at) == chosen(at - 1))
        };
        for strategy in [MaskingStrategy::WholeWord, MaskingStrategy::Span { max: 3 }] {
            let sample = Sample::new(MaskingOptions::masked_lm(strategy, 7));
            assert!(sample.masked.iter().all(|masked| whole(masked, &sample.sequence.word_starts)), "{strategy:?}");
        }
        let sample = Sample::new(MaskingOptions::masked_lm(MaskingStrategy::Token, 7));
        assert!(!sample.masked.iter().all(|masked| whole(masked, &sample.sequence.word_starts)));
    }

    #[test]
    fn short_and_long_words_are_masked_alike() {
        let tokenizer = tokenizer();
        let masking = Masking::new(&tokenizer, MaskingOptions::masked_lm(MaskingStrategy::WholeWord, 11)).unwrap();
        // Few words of unlike lengths, where it would show most: one of 1 token and one of 9.
        let sequence = Sequence { ids: (100..110).collect(), word_starts: (0..10).map(|index| index < 2).collect() };
        let mut counts = [0; 2];
        for index in 0..SEQUENCES {
            let positions = masking.mask(&sequence, 0, index).positions;
            [0, 1].into_iter().for_each(|word| counts[word] += usize::from(positions.contains(&word)));
        }
        for count in counts {
            let deviation = deviation(count, SEQUENCES as usize, 0.15);
            assert!(deviation.abs() < BOUND, "{counts:?}");
        }
    }

    #[test]
    fn words_without_end_are_masked_in_parts() {
        let tokenizer = tokenizer();
        let masking = Masking::new(&tokenizer, MaskingOptions::masked_lm(MaskingStrategy::WholeWord, 8)).unwrap();
        let sequence = Sequence { ids: (100..500).collect(), word_starts: (0..400).map(|index| index == 0).collect() };
        for index in 0..100 {
            // 60 tokens, and a part at either end of the arc.
            assert!((50..=70).contains(&masking.mask(&sequence, 0, index).positions.len()));
        }
    }

    #[test]
    fn span_lengths_follow_the_harmonic_series() {
        let mut counts = [0; 3];
        let mut random = Random::new(&[9]);
        (0..60_000).for_each(|_| counts[span_length(3, &mut random) - 1] += 1);
        for (n, &count) in (1..).zip(&counts) {
            // 1 + 1/2 + 1/3 = 11/6
            let deviation = deviation(count, 60_000, 6.0 / 11.0 / n as f64);
            assert!(deviation.abs() < BOUND, "{counts:?}");
        }
    }

    #[test]
    fn spans_are_runs_of_words_of_the_lengths_drawn() {
        // 60,000 words in a row, with a gap behind each hundredth.
        let words: Vec<_> = (0..60_000).map(|word| word * 2 + word / 100..word * 2 + word / 100 + 2).collect();
        let spans = spans(&words, 3, &mut Random::new(&[10]));
        let mut words = words.iter();
        let mut longer = 0;
        for span in &spans {
            let mut end = span.start;
            while end < span.end {
                let word = words.next().unwrap();
                assert_eq!(word.start, end);
                end = word.end;
            }
            assert_eq!(end, span.end);
            assert!(span.len() <= 3 * 2);
            longer += usize::from(span.len() > 2);
        }
        assert!(words.next().is_none());
        // 5 of 11 are longer than a word, but for what a gap cuts off: one span of sixty or so, and not each of these.
        let share = longer as f64 / spans.len() as f64;
        assert!((0.44..5.0 / 11.0 + 0.01).contains(&share), "{share}");
    }

    #[test]
    fn each_epoch_masks_other_tokens_and_each_time_the_same() {
        let tokenizer = tokenizer();
        let sequence = sequence(&tokenizer);
        for strategy in STRATEGIES {
            let masking = |seed| Masking::new(&tokenizer, MaskingOptions::masked_lm(strategy, seed)).unwrap();
            let masked = masking(1).mask(&sequence, 0, 0);
            assert_eq!(masking(1).mask(&sequence, 0, 0), masked);
            for other in
                [masking(1).mask(&sequence, 1, 0), masking(1).mask(&sequence, 0, 1), masking(2).mask(&sequence, 0, 0)]
            {
                assert_ne!(other.positions, masked.positions);
            }
        }
    }

    #[test]
    fn options_out_of_range_are_errors() {
        let tokenizer = tokenizer();
        let options = MaskingOptions::masked_lm(MaskingStrategy::Token, 0);
        let error = |options| Masking::new(&tokenizer, options).unwrap_err().to_string();
        assert!(error(MaskingOptions { rate: 1.0, ..options }).contains("rate: it is 1, expected a number above 0"));
        assert!(error(MaskingOptions { rate: f64::NAN, ..options }).contains("rate: it is NaN"));
        assert!(error(MaskingOptions { to_mask: -0.1, ..options }).contains("to_mask: it is -0.1"));
        assert!(error(MaskingOptions { to_random: 0.5, ..options }).contains("to_mask + to_random: it is 1.3"));
        assert!(
            error(MaskingOptions { strategy: MaskingStrategy::Span { max: 0 }, ..options }).contains("max: it is 0")
        );
    }

    proptest! {
        #[test]
        fn only_ordinary_tokens_at_the_positions_change(
            tokens in proptest::collection::vec((0u32..1535, any::<bool>()), 0..60),
            rate in 0.01f64..0.99,
            strategy in proptest::sample::select(STRATEGIES.to_vec()),
            index in any::<u64>(),
        ) {
            let tokenizer = tokenizer();
            let (ids, word_starts): (Vec<u32>, Vec<bool>) = tokens.into_iter().unzip();
            let sequence = Sequence { ids, word_starts };
            let options = MaskingOptions { rate, ..MaskingOptions::masked_lm(strategy, 0) };
            let masked = Masking::new(&tokenizer, options).unwrap().mask(&sequence, 0, index);
            prop_assert!(masked.positions.is_sorted_by(|a, b| a < b));
            let labels: Vec<u32> = masked.positions.iter().map(|&position| sequence.ids[position]).collect();
            prop_assert!(labels.iter().all(|&label| !tokenizer.is_special(label)));
            prop_assert_eq!(&labels, &masked.labels);
            prop_assert_eq!(masked.input_ids.len(), sequence.ids.len());
            for (position, (input, original)) in masked.input_ids.iter().zip(&sequence.ids).enumerate() {
                prop_assert!(input == original || masked.positions.contains(&position));
            }
        }
    }
}
