//! Where labels and words stand in a batch, as indices on the device.

use burn::{
    Tensor,
    tensor::{Device, Int},
};

use crate::{
    config::{GlinerConfig, SubtokenPooling},
    heads::means::means,
    kernels::{matmul, select_rows},
    prompt::Positions,
};

/// The spans of a text: first and last word of each, the short ones first, each width from left to right.
pub fn spans(words: usize, max_width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..max_width.min(words)).flat_map(move |more| (0..words - more).map(move |start| (start, start + more)))
}

/// The place of a span in that order, if it is among the spans.
pub(crate) fn span_index(words: usize, max_width: usize, (start, end): (usize, usize)) -> Option<usize> {
    let more = end.checked_sub(start).filter(|more| *more < max_width && end < words)?;
    // Before it are all narrower spans: one less for each further word of width.
    Some(more * words - more * more.saturating_sub(1) / 2 + start)
}

/// Where labels and words stand in a padded batch.
#[derive(Clone, Debug)]
pub struct GlinerLayout {
    /// For each label, its row among all tokens, [batch * labels].
    labels: Tensor<1, Int>,
    words: WordTokens,
    /// For each word, the row of the one that is as far from the end of its text as it is from the start, [batch * words].
    reversed: Tensor<1, Int>,
    batch: usize,
}

/// The tokens of each word.
#[allow(clippy::large_enum_variant, reason = "there is one in a forward pass")]
#[derive(Clone, Debug)]
enum WordTokens {
    /// The rows of tokens, [batch * words] each, whose largest values count. A word with fewer tokens repeats its last one.
    Largest(Vec<Tensor<1, Int>>),
    /// The part of each token in the mean, [batch, words, length].
    Mean(Tensor<3>),
}

impl GlinerLayout {
    /// The layout of a batch that is padded to `length` tokens, with at least one label and one word.
    pub(crate) fn new(sequences: &[Positions], length: usize, config: &GlinerConfig, device: &Device) -> Self {
        let batch = sequences.len();
        let most = |count: fn(&Positions) -> usize| sequences.iter().map(count).max().unwrap_or(0);
        let (labels, words) = (most(|sequence| sequence.labels.len()), most(|sequence| sequence.words.len()));
        let behind = usize::from(!config.embed_ent_token);
        let markers = rows(sequences, labels, |row, sequence, label| {
            row * length + sequence.labels.get(label).map_or(0, |marker| marker + behind)
        });
        let reversed = rows(sequences, words, |row, sequence, word| {
            row * words + sequence.words.len().checked_sub(word + 1).unwrap_or(word)
        });
        Self {
            labels: indices(markers, device),
            words: WordTokens::new(sequences, words, length, config.subtoken_pooling, device),
            reversed: indices(reversed, device),
            batch,
        }
    }

    /// The vectors of the labels.
    ///
    /// # Shapes
    /// - states: [batch, length, hidden]
    /// - output: [batch, labels, hidden]
    pub(super) fn labels(&self, states: Tensor<3>) -> Tensor<3> {
        self.select(states, &self.labels)
    }

    /// The vectors of the words.
    ///
    /// # Shapes
    /// - states: [batch, length, hidden]
    /// - output: [batch, words, hidden]
    pub(super) fn words(&self, states: Tensor<3>) -> Tensor<3> {
        match &self.words {
            WordTokens::Largest(tokens) => {
                let vectors = tokens.iter().map(|rows| self.select(states.clone(), rows));
                vectors.reduce(Tensor::max_pair).expect("a word has a token")
            }
            WordTokens::Mean(parts) => matmul(parts.clone().cast(states.dtype()), states),
        }
    }

    /// The words of each text from the last to the first; padding stays where it is. Twice, it changes nothing.
    ///
    /// # Shapes
    /// - words, output: [batch, words, hidden]
    pub(super) fn reverse(&self, words: Tensor<3>) -> Tensor<3> {
        self.select(words, &self.reversed)
    }

    /// Picks rows out of all rows of a batch.
    fn select(&self, from: Tensor<3>, rows: &Tensor<1, Int>) -> Tensor<3> {
        let [_, _, hidden] = from.dims();
        let selected = select_rows(from.flatten(0, 1), rows.clone());
        selected.reshape([self.batch, rows.dims()[0] / self.batch, hidden])
    }
}

impl WordTokens {
    fn new(sequences: &[Positions], words: usize, length: usize, pooling: SubtokenPooling, device: &Device) -> Self {
        // Where a text has fewer words than the batch, its first token stands for them.
        let tokens =
            |sequence: &Positions, word: usize| sequence.words.get(word).map_or(0..1, |(_, tokens)| tokens.clone());
        let largest = |picks: usize, pick: fn(usize, std::ops::Range<usize>) -> usize| {
            let picks = (0..picks).map(|nth| {
                rows(sequences, words, |row, sequence, word| row * length + pick(nth, tokens(sequence, word)))
            });
            Self::Largest(picks.map(|rows| indices(rows, device)).collect())
        };
        match pooling {
            SubtokenPooling::First => largest(1, |_, tokens| tokens.start),
            SubtokenPooling::Last => largest(1, |_, tokens| tokens.end - 1),
            SubtokenPooling::Max => {
                let sizes = sequences.iter().flat_map(|sequence| &sequence.words).map(|(_, tokens)| tokens.len());
                largest(sizes.max().unwrap_or(1), |nth, tokens| (tokens.start + nth).min(tokens.end - 1))
            }
            SubtokenPooling::Mean => {
                let tokens = |sequence: &Positions| sequence.words.iter().map(|(_, tokens)| tokens.clone()).collect();
                Self::Mean(means(&sequences.iter().map(tokens).collect::<Vec<_>>(), length, device))
            }
        }
    }
}

/// One row for each of `count` items of each sequence.
fn rows(sequences: &[Positions], count: usize, row: impl Fn(usize, &Positions, usize) -> usize) -> Vec<i32> {
    let numbered = sequences.iter().enumerate();
    numbered
        .flat_map(|(index, sequence)| (0..count).map(move |item| (index, sequence, item)))
        .map(|(index, sequence, item)| row(index, sequence, item) as i32)
        .collect()
}

fn indices(rows: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(&rows[..], device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_all_that_fit() {
        let found: Vec<_> = spans(3, 2).collect();
        assert_eq!(found, [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2)]);
        assert_eq!(spans(2, 12).count(), 3);
        assert_eq!(spans(0, 12).count(), 0);
        for (words, max_width) in [(3, 2), (7, 12), (9, 4), (1, 1)] {
            for (index, span) in spans(words, max_width).enumerate() {
                assert_eq!(span_index(words, max_width, span), Some(index));
            }
        }
        for impossible in [(1, 0), (0, 2), (2, 3)] {
            assert_eq!(span_index(3, 2, impossible), None);
        }
    }

    #[test]
    fn texts_are_reversed_without_their_padding() {
        let words = |count: usize| Positions {
            labels: vec![1],
            words: (0..count).map(|word| (word, word..word + 1)).collect(),
        };
        let config = GlinerConfig::new(crate::DebertaConfig::new(crate::config::DebertaVersion::V2));
        let device = Device::flex();
        let layout = GlinerLayout::new(&[words(3), words(2)], 5, &config, &device);
        let states = Tensor::<1>::from_floats([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &device).reshape([2, 3, 1]);
        let reversed = layout.reverse(states.clone());
        assert_eq!(reversed.to_data().iter::<f32>().collect::<Vec<_>>(), [2.0, 1.0, 0.0, 4.0, 3.0, 5.0]);
        assert_eq!(layout.reverse(reversed).to_data(), states.to_data());
    }
}
