//! Labels and the words of a text as one sequence: what GLiNER reads.
//!
//! ```text
//! [CLS] <<ENT>> person <<ENT>> place <<SEP>> Ada was born in London [SEP]
//! word       0      1       2     3       4   5   6    7  8      9
//! ```
//!
//! An [`Encoding`] of this kind numbers markers, labels, separator and words in one row, as `word_ids`. Markers stand at even
//! numbers, so that no label can be taken for one.

mod markers;
mod words;

use std::ops::Range;

pub(crate) use markers::{Markers, open_tokenizer};
pub(crate) use words::{Word, given_words, words};

use crate::{
    Error, Result,
    batch::Encoding,
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation},
};

/// How much of a text is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Words.
    pub words: usize,
    /// Tokens of the whole sequence.
    pub tokens: usize,
}

/// Turns labels and words into sequences: one, or several overlapping windows of the words, each with all labels. Windows
/// overlap by a quarter. A word whose tokens do not fit into a window alone is cut, which is counted.
///
/// # Errors
/// So many labels that there is no room for words.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    markers: Markers,
    labels: &[impl AsRef<str>],
    words: &[Word<'_>],
    limits: Limits,
) -> Result<Vec<Encoding>> {
    let options = EncodeOptions {
        max_length: usize::MAX,
        truncation: Truncation::Error,
        stride: None,
        add_special_tokens: false,
    };
    let texts = [Text::words(labels.iter().map(AsRef::as_ref)), Text::words(words.iter().map(|word| word.text))];
    let [names, pieces] = &tokenizer.encode(&texts, &options)?[..] else { unreachable!("one encoding a text") };

    let mut prompt = Sequence::default();
    prompt.push_special(tokenizer.cls_id(), None);
    let tokens_of_labels = groups(names);
    for label in 0..labels.len() {
        prompt.push_special(markers.label, Some(2 * label));
        let tokens = tokens_of_labels.iter().find(|(index, _)| *index == label);
        tokens.into_iter().flat_map(|(_, tokens)| tokens.clone()).for_each(|token| {
            prompt.push(names.ids[token], 2 * label + 1, names.offsets[token], 0);
        });
    }
    prompt.push_special(markers.separator, Some(2 * labels.len()));

    // The last special token follows the words.
    let room = limits.tokens.saturating_sub(prompt.encoding.len() + 1);
    if room == 0 {
        let (labels, tokens) = (labels.len(), prompt.encoding.len() + 1);
        let problem =
            format!("the {labels} labels take {tokens} tokens of {}, and leave no room for the text", limits.tokens);
        return Err(Error::input("labels", format!("{problem}; allow a longer input, or give fewer labels")));
    }
    let tokens_of_words = groups(pieces);
    let windows = windows(&tokens_of_words, limits.words, room);
    let sequences = windows.into_iter().enumerate().map(|(window, range)| {
        let mut sequence = prompt.clone();
        for (word, tokens) in &tokens_of_words[range] {
            let kept = tokens.len().min(room);
            sequence.encoding.cut += tokens.len() - kept;
            for token in tokens.start..tokens.start + kept {
                let (start, end) = pieces.offsets[token];
                let first = words[*word].start;
                sequence.push(pieces.ids[token], 2 * labels.len() + 1 + word, (first + start, first + end), 1);
            }
        }
        sequence.push_special(tokenizer.sep_id(), None);
        Encoding { window, ..sequence.encoding }
    });
    Ok(sequences.collect())
}

/// The tokens of each word that has any.
fn groups(encoding: &Encoding) -> Vec<(usize, Range<usize>)> {
    let mut groups: Vec<(usize, Range<usize>)> = Vec::new();
    for (token, word) in encoding.word_ids.iter().enumerate() {
        let Some(word) = word.map(|word| word as usize) else { continue };
        match groups.last_mut().filter(|(last, _)| *last == word) {
            Some((_, tokens)) => tokens.end = token + 1,
            None => groups.push((word, token..token + 1)),
        }
    }
    groups
}

/// Which words are read together; one window, if a text has no words.
fn windows(words: &[(usize, Range<usize>)], most_words: usize, most_tokens: usize) -> Vec<Range<usize>> {
    let mut windows = Vec::new();
    let mut start = 0;
    loop {
        let (mut end, mut tokens) = (start, 0);
        while end < words.len()
            && end - start < most_words
            && (end == start || tokens + words[end].1.len() <= most_tokens)
        {
            tokens += words[end].1.len();
            end += 1;
        }
        windows.push(start..end);
        if end == words.len() {
            return windows;
        }
        start = end - (end - start) / 4;
    }
}

/// A sequence in the making.
#[derive(Clone, Default)]
struct Sequence {
    encoding: Encoding,
}

impl Sequence {
    fn push(&mut self, id: u32, word: usize, offsets: (usize, usize), part: usize) {
        self.push_token(id, Some(word), offsets, Some(part));
    }

    fn push_special(&mut self, id: u32, word: Option<usize>) {
        self.push_token(id, word, (0, 0), None);
    }

    fn push_token(&mut self, id: u32, word: Option<usize>, offsets: (usize, usize), part: Option<usize>) {
        let encoding = &mut self.encoding;
        encoding.ids.push(id);
        encoding.type_ids.push(0);
        encoding.offsets.push(offsets);
        encoding.word_ids.push(word.map(|word| word as u32));
        encoding.sequence_ids.push(part);
        encoding.special.push(part.is_none());
    }
}

/// Where labels and words stand in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    /// The marker of each label.
    pub labels: Vec<usize>,
    /// The words of the text that are in the sequence, and their tokens.
    pub words: Vec<(usize, Range<usize>)>,
}

impl Positions {
    /// Finds them in a sequence that [`encode`] made.
    pub fn of(encoding: &Encoding, markers: Markers) -> Self {
        let (mut labels, mut words, mut separator) = (Vec::new(), Vec::new(), None);
        for (word, tokens) in groups(encoding) {
            match (separator, encoding.ids[tokens.start]) {
                (Some(separator), _) => words.push((word - separator - 1, tokens)),
                (None, id) if word.is_multiple_of(2) && id == markers.label => labels.push(tokens.start),
                (None, id) if word.is_multiple_of(2) && id == markers.separator => separator = Some(word),
                (None, _) => {}
            }
        }
        Self { labels, words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(counts: &[usize]) -> Vec<(usize, Range<usize>)> {
        let mut next = 0;
        let group = |(word, count): (usize, &usize)| {
            next += count;
            (word, next - count..next)
        };
        counts.iter().enumerate().map(group).collect()
    }

    #[test]
    fn windows_overlap_by_a_quarter_and_reach_the_end() {
        let found = |counts: &[usize], most_words, most_tokens| {
            let windows = windows(&tokens(counts), most_words, most_tokens);
            windows.iter().map(|window| (window.start, window.end)).collect::<Vec<_>>()
        };
        assert_eq!(found(&[1; 10], 4, 100), [(0, 4), (3, 7), (6, 10)]);
        assert_eq!(found(&[1; 4], 4, 100), [(0, 4)]);
        assert_eq!(found(&[], 4, 100), [(0, 0)]);
        // By tokens: two words of two, and then one that is too long by itself.
        assert_eq!(found(&[2, 2, 9, 1], 10, 4), [(0, 2), (2, 3), (3, 4)]);
    }

    const MARKERS: Markers = Markers { label: 1000, separator: 1001 };
    const NO_LIMITS: Limits = Limits { words: 384, tokens: usize::MAX };

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_folder(crate::repository::fixture("small_tokenizer")).unwrap()
    }

    #[test]
    fn labels_words_and_their_positions() {
        let text = "The laws  of «nations».";
        let words = words(text);
        let [sequence] = &encode(&tokenizer(), MARKERS, &["law", "people <<ENT>>"], &words, NO_LIMITS).unwrap()[..]
        else {
            panic!("one window")
        };
        let positions = Positions::of(sequence, MARKERS);
        assert_eq!(positions.labels.len(), 2);
        assert!(positions.labels.iter().all(|&label| sequence.ids[label] == MARKERS.label));
        let found: Vec<usize> = positions.words.iter().map(|(word, _)| *word).collect();
        assert_eq!(found, (0..words.len()).collect::<Vec<_>>());
        for (word, tokens) in &positions.words {
            assert_eq!(sequence.offsets[tokens.start].0, words[*word].start);
            assert_eq!(sequence.offsets[tokens.end - 1].1, words[*word].end);
        }
    }

    #[test]
    fn a_label_is_never_taken_for_a_marker() {
        let tokenizer = tokenizer();
        let markers = Markers { label: tokenizer.mask_id(), separator: tokenizer.sep_id() };
        let sequences = encode(&tokenizer, markers, &["[MASK]", "[SEP]"], &words("a war"), NO_LIMITS).unwrap();
        let positions = Positions::of(&sequences[0], markers);
        assert_eq!((positions.labels, positions.words.len()), (vec![1, 3], 2));
    }

    #[test]
    fn a_word_that_fills_no_window_alone_is_cut_and_counted() {
        let text = "a".repeat(10_000) + " war";
        let limits = Limits { words: 384, tokens: 16 };
        let sequences = encode(&tokenizer(), MARKERS, &["law"], &words(&text), limits).unwrap();
        assert_eq!(sequences.len(), 2);
        assert!(sequences[0].cut > 0 && sequences[0].len() == 16 && sequences[1].cut == 0);
        let error = encode(&tokenizer(), MARKERS, &["law"; 20], &words(&text), limits).unwrap_err().to_string();
        assert!(error.contains("the 20 labels take") && error.contains("of 16"), "{error}");
    }
}
