//! From scores to entities: which spans are probable enough, and which of them may stand beside each other.

use burn::Tensor;

use super::spans;
use crate::{
    Result,
    config::{GlinerConfig, SpanMode},
    prompt::Positions,
    scores::{rows, sigmoid},
};

/// Which spans become entities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GlinerOptions {
    /// An entity's probability is above this, from 0 to 1.
    pub threshold: f32,
    /// Whether an entity may lie inside another one. Otherwise the more probable one of two that overlap counts.
    pub nested: bool,
    /// Whether a span may have several types.
    pub multi_label: bool,
}

impl Default for GlinerOptions {
    /// Above one half, flat, one type each.
    fn default() -> Self {
        Self { threshold: 0.5, nested: false, multi_label: false }
    }
}

/// The most words of what is scored, and the scores of each for one label.
pub(crate) fn scored(config: &GlinerConfig) -> (usize, usize) {
    match config.span_mode {
        SpanMode::TokenLevel => (1, 3),
        SpanMode::Marker | SpanMode::MarkerV0 => (config.max_width, 1),
    }
}

/// The logits of each sequence of a batch, without those of its padding.
///
/// # Errors
/// Logits that cannot be read from their device.
pub(crate) fn own_logits(logits: Tensor<3>, sequences: &[Positions], config: &GlinerConfig) -> Result<Vec<Vec<f32>>> {
    let (max_width, size) = scored(config);
    let [_, _, width] = logits.dims();
    let words = sequences.iter().map(|sequence| sequence.words.len()).max().unwrap_or(0);
    // What the longest text of the batch has, and what is left of it for each.
    let items: Vec<(usize, usize)> = spans(words, max_width).collect();
    let row = |(sequence, logits): (&Positions, Vec<f32>)| {
        let own = items.iter().zip(logits.chunks(width)).filter(|((_, last), _)| *last < sequence.words.len());
        own.flat_map(|(_, logits)| &logits[..size * sequence.labels.len()]).copied().collect()
    };
    Ok(sequences.iter().zip(rows(logits)?).map(row).collect())
}

/// The entities of a text, in its order, from the logits of its windows, which all have the same labels.
pub(crate) fn find(
    windows: &[Positions],
    logits: &[Vec<f32>],
    config: &GlinerConfig,
    options: GlinerOptions,
) -> Vec<Candidate> {
    let windows: Vec<Window> = windows.iter().map(Window::new).collect();
    let candidates = windows.iter().zip(logits).enumerate().flat_map(|(index, (window, logits))| {
        let found = match config.span_mode {
            SpanMode::TokenLevel => window.runs(logits, options.threshold),
            SpanMode::Marker | SpanMode::MarkerV0 => window.spans(logits, config.max_width, options.threshold),
        };
        let windows = &windows;
        found.into_iter().filter(move |candidate| candidate.window(windows) == index)
    });
    select(candidates.collect(), options)
}

/// A span that is probable enough.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Its first word in the text.
    pub start: usize,
    /// Its last word.
    pub end: usize,
    /// The index of its label.
    pub label: usize,
    /// Its probability.
    pub score: f32,
}

/// The words of a text that were read together.
struct Window {
    /// Their indices in the text.
    words: Vec<usize>,
    /// The number of labels.
    labels: usize,
}

impl Window {
    fn new(positions: &Positions) -> Self {
        Self { words: positions.words.iter().map(|(word, _)| *word).collect(), labels: positions.labels.len() }
    }

    /// The spans with a probability above the threshold. Logits: one for each span and label.
    fn spans(&self, logits: &[f32], max_width: usize, threshold: f32) -> Vec<Candidate> {
        let scored = spans(self.words.len(), max_width).zip(logits.chunks(self.labels));
        let mut candidates = Vec::new();
        for ((start, end), logits) in scored {
            let probable =
                logits.iter().map(|&logit| sigmoid(logit)).enumerate().filter(|(_, score)| *score > threshold);
            candidates.extend(probable.map(|(label, score)| self.candidate(start, end, label, score)));
        }
        // Of equal probabilities, the first one counts: by start, end and label.
        candidates.sort_by_key(|candidate| (candidate.start, candidate.end, candidate.label));
        candidates
    }

    /// The runs of words that start, end and are inside an entity of one label, each with the smallest of these probabilities.
    /// Logits: three for each word and label.
    fn runs(&self, logits: &[f32], threshold: f32) -> Vec<Candidate> {
        let scores: Vec<f32> = logits.iter().map(|&logit| sigmoid(logit)).collect();
        let score = |word: usize, label: usize| {
            let at = 3 * (word * self.labels + label);
            (scores[at], scores[at + 1], scores[at + 2])
        };
        let mut candidates = Vec::new();
        for start in 0..self.words.len() {
            for label in 0..self.labels {
                let (starts, _, _) = score(start, label);
                if starts <= threshold {
                    continue;
                }
                let mut least = starts;
                for end in start..self.words.len() {
                    let (_, ends, inside) = score(end, label);
                    if inside < threshold {
                        break;
                    }
                    least = least.min(inside);
                    if ends > threshold {
                        candidates.push(self.candidate(start, end, label, least.min(ends)));
                    }
                }
            }
        }
        candidates
    }

    fn candidate(&self, start: usize, end: usize, label: usize, score: f32) -> Candidate {
        Candidate { start: self.words[start], end: self.words[end], label, score }
    }
}

impl Candidate {
    /// The index of the window whose scores count for this span: the one with most words on the narrower side of it, where
    /// the ends of the text are no limit; the first one of several.
    fn window(&self, windows: &[Window]) -> usize {
        let context = |(index, window): (usize, &Window)| {
            let (first, last) = (*window.words.first()?, *window.words.last()?);
            let left = self.start.checked_sub(first)?;
            let right = last.checked_sub(self.end)?;
            let left = if index == 0 { usize::MAX } else { left };
            let right = if index + 1 == windows.len() { usize::MAX } else { right };
            Some((left.min(right), index))
        };
        let best = windows.iter().enumerate().filter_map(context).rev().max_by_key(|(context, _)| *context);
        best.map_or(0, |(_, index)| index)
    }

    /// Whether two spans exclude each other.
    fn excludes(&self, other: &Self, options: GlinerOptions) -> bool {
        if (self.start, self.end) == (other.start, other.end) {
            return !options.multi_label;
        }
        let inside = |a: &Self, b: &Self| b.start <= a.start && a.end <= b.end;
        let overlap = self.start <= other.end && other.start <= self.end;
        overlap && !(options.nested && (inside(self, other) || inside(other, self)))
    }
}

/// Takes the most probable candidate, then the next one that it does not exclude, and so on. The result is in the order of the
/// text; spans that start together have the most probable one first.
fn select(mut candidates: Vec<Candidate>, options: GlinerOptions) -> Vec<Candidate> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut selected: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if !selected.iter().any(|other| candidate.excludes(other, options)) {
            selected.push(candidate);
        }
    }
    selected.sort_by_key(|candidate| candidate.start);
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(start: usize, end: usize, label: usize, score: f32) -> Candidate {
        Candidate { start, end, label, score }
    }

    #[test]
    fn four_ways_to_decode() {
        let found = [
            candidate(2, 3, 0, 0.9),
            candidate(2, 3, 1, 0.8),
            candidate(2, 2, 0, 0.7),
            candidate(3, 4, 0, 0.6),
            candidate(0, 0, 1, 0.5),
        ];
        let selected = |nested, multi_label| {
            let options = GlinerOptions { nested, multi_label, ..GlinerOptions::default() };
            let selected = select(found.to_vec(), options);
            selected.iter().map(|span| (span.start, span.end, span.label)).collect::<Vec<_>>()
        };
        assert_eq!(selected(false, false), [(0, 0, 1), (2, 3, 0)]);
        assert_eq!(selected(false, true), [(0, 0, 1), (2, 3, 0), (2, 3, 1)]);
        assert_eq!(selected(true, false), [(0, 0, 1), (2, 3, 0), (2, 2, 0)]);
        assert_eq!(selected(true, true), [(0, 0, 1), (2, 3, 0), (2, 3, 1), (2, 2, 0)]);
    }

    #[test]
    fn the_window_with_most_context_counts() {
        let window = |words: std::ops::Range<usize>| Window { words: words.collect(), labels: 1 };
        let windows = [window(0..8), window(6..14), window(12..20)];
        let of = |start, end| candidate(start, end, 0, 1.0).window(&windows);
        assert_eq!(
            [of(0, 0), of(6, 6), of(7, 7), of(6, 7), of(7, 9), of(12, 12), of(13, 13), of(19, 19)],
            [0, 0, 1, 0, 1, 1, 2, 2]
        );
    }
}
