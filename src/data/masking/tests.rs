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
        let ordinary = (0..sample.tokenizer.vocab_size() as u32).filter(|&id| !sample.tokenizer.is_special(id)).count();
        let outcomes = sample.masked.iter().flat_map(|masked| {
            masked.positions.iter().zip(&masked.labels).map(|(&position, &label)| (masked.input_ids[position], label))
        });
        let outcomes: Vec<(u32, u32)> = outcomes.collect();
        let masks = outcomes.iter().filter(|(input, _)| *input == sample.tokenizer.mask_id()).count();
        let kept = outcomes.iter().filter(|(input, label)| input == label).count();
        // A random token is the one that was there before once in a vocabulary.
        let kept_share = 0.1 + 0.1 / ordinary as f64;
        for (count, share) in [(masks, 0.8), (kept, kept_share), (outcomes.len() - masks - kept, 0.2 - kept_share)] {
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
    assert!(error(MaskingOptions { strategy: MaskingStrategy::Span { max: 0 }, ..options }).contains("max: it is 0"));
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
