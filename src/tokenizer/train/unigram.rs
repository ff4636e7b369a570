//! Pieces and their probabilities: the unigram language model of Kudo, "Subword regularization" (arXiv 1804.10959),
//! section 3.2, by expectation-maximisation and pruning.
//!
//! Constants and the sparse prior are those of sentencepiece's `unigram_model_trainer.cc` (behaviour, not code). The
//! `tokenizers` crate has such a trainer too, but it only considers a substring if different characters follow it in
//! different words. When words are cut at punctuation, nothing follows a whole word such as "sleeping", so it never
//! becomes a piece there.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

/// A piece with the logarithm of its probability.
pub(super) type Piece = (String, f64);

/// The longest piece in characters.
const LONGEST_PIECE: usize = 16;
/// Largest number of pieces to begin with.
const SEEDS: usize = 1_000_000;
/// First candidates are searched for in this many words, the most frequent ones.
const SEED_WORDS: usize = 1_000_000;
/// Words are counted in this many portions, and the counts are added in a fixed order, so that sums do not depend on
/// the number of threads.
const PORTIONS: usize = 16;
/// Rounds of expectation-maximisation between prunings.
const ROUNDS: usize = 2;
/// Pieces that are expected less often than this are dropped.
const LEAST_EXPECTED: f64 = 0.5;

/// Finds `size` pieces for these words and their counts, from likely to unlikely. All single characters are among them.
/// If the words do not have that many pieces, there are fewer.
pub(super) fn train(words: &[(String, u64)], size: usize) -> Vec<Piece> {
    let mut pieces = seeds(words);
    let nearly = size.saturating_mul(11) / 10;
    loop {
        for _ in 0..ROUNDS {
            let expected = Model::new(&pieces).expected(words);
            pieces = maximise(pieces, &expected);
        }
        if pieces.len() <= nearly {
            break;
        }
        let keep = nearly.max(pieces.len() * 3 / 4);
        pieces = prune(pieces, words, keep);
    }
    pieces.sort_unstable_by(|(a, a_score), (b, b_score)| b_score.total_cmp(a_score).then_with(|| a.cmp(b)));
    let mut longer = size.saturating_sub(pieces.iter().filter(|(piece, _)| is_character(piece)).count());
    pieces.retain(|(piece, _)| {
        let keep = is_character(piece) || longer > 0;
        longer -= usize::from(keep && !is_character(piece));
        keep
    });
    pieces
}

fn is_character(piece: &str) -> bool {
    piece.chars().nth(1).is_none()
}

/// Where the characters of a text start, and where it ends.
fn boundaries(text: &str) -> Vec<usize> {
    text.char_indices().map(|(start, _)| start).chain([text.len()]).collect()
}

/// All characters, and the substrings that cover most of the text.
fn seeds(words: &[(String, u64)]) -> Vec<Piece> {
    let mut characters: HashMap<&str, u64> = HashMap::new();
    for (word, count) in words {
        boundaries(word).windows(2).for_each(|pair| *characters.entry(&word[pair[0]..pair[1]]).or_default() += count);
    }
    let mut frequent: Vec<&(String, u64)> = words.iter().collect();
    frequent.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    let mut longer: HashMap<&str, u64> = HashMap::new();
    for (word, count) in frequent.into_iter().take(SEED_WORDS) {
        let boundaries = boundaries(word);
        for (first, &start) in boundaries.iter().enumerate() {
            let ends = boundaries[first..].iter().take(LONGEST_PIECE + 1).skip(2);
            ends.for_each(|&end| *longer.entry(&word[start..end]).or_default() += count);
        }
    }
    let weight = |(piece, count): (&str, u64)| (piece.to_owned(), count as f64 * piece.chars().count() as f64);
    let mut longer: Vec<Piece> = longer.into_iter().filter(|(_, count)| *count > 1).map(weight).collect();
    longer.sort_unstable_by(|(a, a_weight), (b, b_weight)| b_weight.total_cmp(a_weight).then_with(|| a.cmp(b)));
    longer.truncate(SEEDS);

    let mut pieces: Vec<Piece> = characters.into_iter().map(weight).collect();
    pieces.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    pieces.append(&mut longer);
    let total = pieces.iter().map(|(_, weight)| weight).sum::<f64>().ln();
    pieces.iter_mut().for_each(|(_, weight)| *weight = weight.ln() - total);
    pieces
}

/// New probabilities from expected counts. The digamma function in place of the logarithm acts as a sparse prior.
fn maximise(pieces: Vec<Piece>, expected: &[f64]) -> Vec<Piece> {
    let mut kept: Vec<Piece> = Vec::with_capacity(pieces.len());
    for ((piece, _), &count) in pieces.into_iter().zip(expected) {
        if is_character(&piece) || count >= LEAST_EXPECTED {
            kept.push((piece, count.max(LEAST_EXPECTED)));
        }
    }
    let total = digamma(kept.iter().map(|(_, count)| count).sum());
    kept.iter_mut().for_each(|(_, count)| *count = digamma(*count) - total);
    kept
}

/// Keeps about `keep` pieces: all characters, and the longer pieces whose removal would reduce the likelihood of the
/// text most.
fn prune(pieces: Vec<Piece>, words: &[(String, u64)], keep: usize) -> Vec<Piece> {
    let model = Model::new(&pieces);
    let counts = model.counts(words);
    let total: f64 = counts.iter().sum();
    // Without a piece, its occurrences would be split into other pieces, which would then be more frequent.
    let loss = |(index, (piece, _)): (usize, &Piece)| {
        let count = counts[index];
        if is_character(piece) || count == 0.0 {
            return None;
        }
        let instead = model.best(piece, Some(index));
        let total_instead = (total + count * (instead.len() as f64 - 1.0)).ln();
        let instead: f64 = instead.iter().map(|&other| (counts[other] + count).ln() - total_instead).sum();
        Some((index, count * (count.ln() - total.ln() - instead)))
    };
    let mut losses: Vec<(usize, f64)> = pieces.par_iter().enumerate().filter_map(loss).collect();
    losses.sort_unstable_by(|(a, a_loss), (b, b_loss)| b_loss.total_cmp(a_loss).then_with(|| a.cmp(b)));
    let characters = pieces.iter().filter(|(piece, _)| is_character(piece)).count();
    losses.truncate(keep.saturating_sub(characters));
    let kept: HashSet<usize> = losses.into_iter().map(|(index, _)| index).collect();
    let kept = |(index, piece): (usize, Piece)| (is_character(&piece.0) || kept.contains(&index)).then_some(piece);
    pieces.into_iter().enumerate().filter_map(kept).collect()
}

/// A piece in a word, and where it starts and ends, counted in characters.
struct Edge {
    start: usize,
    end: usize,
    piece: usize,
}

/// Pieces in a form that is fast to look up.
struct Model<'a> {
    pieces: &'a [Piece],
    indices: HashMap<&'a str, usize>,
}

impl<'a> Model<'a> {
    fn new(pieces: &'a [Piece]) -> Self {
        let indices = pieces.iter().enumerate().map(|(index, (piece, _))| (piece.as_str(), index)).collect();
        Self { pieces, indices }
    }

    fn score(&self, edge: &Edge) -> f64 {
        self.pieces[edge.piece].1
    }

    /// The number of characters, and all pieces that occur, by where they start.
    fn lattice(&self, text: &str) -> (usize, Vec<Edge>) {
        let boundaries = boundaries(text);
        let mut edges = Vec::new();
        for (start, &from) in boundaries.iter().enumerate() {
            for (end, &to) in boundaries.iter().enumerate().skip(start + 1).take(LONGEST_PIECE) {
                edges.extend(self.indices.get(&text[from..to]).map(|&piece| Edge { start, end, piece }));
            }
        }
        (boundaries.len() - 1, edges)
    }

    /// How often each piece is expected in these words, over all ways to split them.
    fn expected(&self, words: &[(String, u64)]) -> Vec<f64> {
        self.sum(words, |word, count, expected| {
            let (length, edges) = self.lattice(word);
            // Logarithms of the total probability of all splits up to a position, and from there to the end.
            let mut before = vec![f64::NEG_INFINITY; length + 1];
            let mut behind = before.clone();
            (before[0], behind[length]) = (0.0, 0.0);
            for edge in &edges {
                before[edge.end] = log_add(before[edge.end], before[edge.start] + self.score(edge));
            }
            for edge in edges.iter().rev() {
                behind[edge.start] = log_add(behind[edge.start], behind[edge.end] + self.score(edge));
            }
            for edge in &edges {
                let probability = before[edge.start] + self.score(edge) + behind[edge.end] - before[length];
                expected[edge.piece] += count * probability.exp();
            }
        })
    }

    /// How often each piece occurs if every word is split in the likeliest way.
    fn counts(&self, words: &[(String, u64)]) -> Vec<f64> {
        self.sum(words, |word, count, counts| {
            self.best(word, None).into_iter().for_each(|piece| counts[piece] += count)
        })
    }

    /// The likeliest way to split a text without one of the pieces.
    fn best(&self, text: &str, without: Option<usize>) -> Vec<usize> {
        let (length, edges) = self.lattice(text);
        let mut scores = vec![f64::NEG_INFINITY; length + 1];
        let mut last: Vec<Option<&Edge>> = vec![None; length + 1];
        scores[0] = 0.0;
        for edge in edges.iter().filter(|edge| Some(edge.piece) != without) {
            let score = scores[edge.start] + self.score(edge);
            if score > scores[edge.end] {
                (scores[edge.end], last[edge.end]) = (score, Some(edge));
            }
        }
        let mut pieces = Vec::new();
        let mut end = length;
        while let Some(edge) = last[end] {
            pieces.push(edge.piece);
            end = edge.start;
        }
        pieces
    }

    /// Calls `add` for each word and its count, to add to one number for each piece.
    fn sum(&self, words: &[(String, u64)], add: impl Fn(&str, f64, &mut [f64]) + Sync) -> Vec<f64> {
        let portions = words.par_chunks(words.len().div_ceil(PORTIONS).max(1)).map(|portion| {
            let mut sums = vec![0.0; self.pieces.len()];
            portion.iter().for_each(|(word, count)| add(word, *count as f64, &mut sums));
            sums
        });
        let portions: Vec<Vec<f64>> = portions.collect();
        let mut sums = vec![0.0; self.pieces.len()];
        for portion in portions {
            sums.iter_mut().zip(portion).for_each(|(sum, other)| *sum += other);
        }
        sums
    }
}

/// `ln(exp(a) + exp(b))`.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The derivative of the logarithm of the gamma function, for positive numbers (Abramowitz and Stegun, 6.3.5 and 6.3.18).
fn digamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < 8.0 {
        below += 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    x.ln() - 0.5 / x - square * (1.0 / 12.0 - square * (1.0 / 120.0 - square * (1.0 / 252.0 - square / 240.0))) - below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[(&str, u64)]) -> Vec<(String, u64)> {
        words.iter().map(|&(word, count)| (word.to_owned(), count)).collect()
    }

    #[test]
    fn digamma_has_its_known_values() {
        const EULER: f64 = 0.577_215_664_901_532_9;
        // The series is cut after x^-8; at x >= 8 the next term, 1/132 x^-10, is below 1e-11.
        for (x, expected) in
            [(1.0, -EULER), (0.5, -EULER - 2.0 * 2f64.ln()), (2.0, 1.0 - EULER), (100.0, 4.600_161_852_738_087)]
        {
            assert!((digamma(x) - expected).abs() < 1e-11, "{x}: {} {expected}", digamma(x));
        }
    }

    #[test]
    fn expectations_are_those_of_all_spellings() {
        let pieces: Vec<Piece> =
            [("a", 0.5f64), ("b", 0.2), ("ab", 0.2), ("ba", 0.1)].map(|(piece, p)| (piece.into(), p.ln())).into();
        let model = Model::new(&pieces);
        // "aba" is a+b+a (0.05), ab+a (0.1) or a+ba (0.05).
        let expected = model.expected(&words(&[("aba", 4)]));
        // Rounding of a few operations on numbers near 1.
        let close = expected.iter().zip([5.0, 1.0, 2.0, 1.0]).all(|(found, exact)| (found - exact).abs() < 1e-12);
        assert!(close, "{expected:?}");
        assert_eq!(model.counts(&words(&[("aba", 4)])), [4.0, 0.0, 4.0, 0.0]);
        assert_eq!(model.best("ab", Some(2)).len(), 2);
    }

    #[test]
    fn words_that_occur_become_pieces() {
        let pieces = train(&words(&[("walking", 50), ("walked", 40), ("talking", 30), ("x", 1)]), 13);
        assert_eq!(pieces.len(), 13);
        let found = |text: &str| pieces.iter().any(|(piece, _)| piece == text);
        assert!(found("walking") && found("x"), "{pieces:?}");
        assert!(pieces.is_sorted_by(|(_, a), (_, b)| a >= b));
        let total: f64 = pieces.iter().map(|(_, score)| score.exp()).sum();
        // Less than 1: the digamma function is smaller than the logarithm, and some pieces were dropped at the end.
        assert!((0.5..1.0).contains(&total), "{total}");
    }

    #[test]
    fn sums_do_not_depend_on_threads() {
        let text: Vec<(String, u64)> = (0..2000).map(|number| (format!("{}", number * number), number + 1)).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(&text, 50))
        };
        assert_eq!(with(1), with(3));
    }
}
