//! Answers as spans of a passage, the second text of a pair: from characters to tokens for training, and from scores to
//! the best spans for inference.

use std::ops::Range;

use crate::batch::Encoding;

/// The longest answer in SQuAD's usual evaluation, in tokens.
pub(crate) const LONGEST_ANSWER: usize = 30;

/// The tokens of a passage that have characters: an answer may start and end at these.
pub(crate) fn passage(window: &Encoding) -> impl DoubleEndedIterator<Item = usize> + Clone {
    let Encoding { sequence_ids, special, offsets, .. } = window;
    (0..window.len()).filter(|&i| sequence_ids[i] == Some(1) && !special[i] && offsets[i].0 < offsets[i].1)
}

/// The first and last token of an answer in each window of its passage; none in a window that does not contain all of
/// it. Characters at the ends of the answer that have no token (a space, a character of no width) are ignored; if there
/// are no others, there is no answer.
pub(crate) fn answer_tokens(windows: &[Encoding], answer: Range<usize>) -> Option<Vec<Option<(usize, usize)>>> {
    let inside = |&(start, end): &(usize, usize)| start < answer.end && end > answer.start;
    let tokens = || windows.iter().flat_map(|window| passage(window).map(|token| window.offsets[token])).filter(inside);
    let (start, end) = (tokens().map(|token| token.0).min()?, tokens().map(|token| token.1).max()?);
    let in_window = |window: &Encoding| {
        let mut tokens = passage(window).filter(|&token| inside(&window.offsets[token]));
        let first = tokens.next()?;
        let last = tokens.next_back().unwrap_or(first);
        (window.offsets[first].0 == start && window.offsets[last].1 == end).then_some((first, last))
    };
    Some(windows.iter().map(in_window).collect())
}

/// A window, and for each token its score as the first and as the last token of the answer.
#[derive(Clone, Copy)]
pub(crate) struct ScoredWindow<'a> {
    pub encoding: &'a Encoding,
    pub start: &'a [f32],
    pub end: &'a [f32],
}

/// A span of the passage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AnswerSpan {
    /// The score of its first token as start plus that of its last token as end.
    pub score: f32,
    /// Its first character.
    pub from: usize,
    /// The character after its last.
    pub to: usize,
}

impl<'a> ScoredWindow<'a> {
    /// The score of "no answer": that of the first token, `[CLS]`, as start and end.
    pub fn null_score(self) -> f32 {
        self.start[0] + self.end[0]
    }

    /// All spans of up to `longest` tokens.
    pub fn spans(self, longest: usize) -> impl Iterator<Item = AnswerSpan> + 'a {
        let Self { encoding, start, end } = self;
        let tokens: Vec<usize> = passage(encoding).collect();
        (0..tokens.len()).flat_map(move |index| {
            let first = tokens[index];
            let lasts: Vec<usize> = tokens[index..].iter().copied().take(longest).collect();
            lasts.into_iter().map(move |last| AnswerSpan {
                score: start[first] + end[last],
                from: encoding.offsets[first].0,
                to: encoding.offsets[last].1,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[CLS] who [SEP] … [SEP]` with these tokens of the passage, the numbers being their characters.
    fn window(offsets: &[(usize, usize)]) -> Encoding {
        let length = offsets.len() + 4;
        let around = |inner: Vec<Option<usize>>| [vec![None, Some(0), None], inner, vec![None]].concat();
        Encoding {
            ids: vec![0; length],
            offsets: [&[(0, 0), (0, 3), (0, 0)], offsets, &[(0, 0)]].concat(),
            sequence_ids: around(vec![Some(1); offsets.len()]),
            special: around(vec![Some(1); offsets.len()]).iter().map(Option::is_none).collect(),
            ..Encoding::default()
        }
    }

    #[test]
    fn an_answer_is_the_tokens_that_it_touches() {
        // "In 1948 it_", the last character without a token.
        let windows = [window(&[(0, 2), (3, 7), (8, 10)])];
        for (answer, tokens) in [
            (3..7, Some((4, 4))),
            // Blanks around it.
            (2..8, Some((4, 4))),
            // A part of a token.
            (5..6, Some((4, 4))),
            (0..10, Some((3, 5))),
            // A character at its end that no token stands for.
            (8..11, Some((5, 5))),
            // Nothing but such characters.
            (10..11, None),
        ] {
            assert_eq!(answer_tokens(&windows, answer.clone()), tokens.map(|tokens| vec![Some(tokens)]), "{answer:?}");
        }
    }

    #[test]
    fn a_window_holds_an_answer_whole_or_not_at_all() {
        let windows = [window(&[(0, 1), (2, 3), (4, 5)]), window(&[(2, 3), (4, 5), (6, 7)])];
        for (answer, tokens) in [
            (0..3, [Some((3, 4)), None]),
            (2..5, [Some((4, 5)), Some((3, 4))]),
            (4..7, [None, Some((4, 5))]),
            (0..7, [None, None]),
        ] {
            assert_eq!(answer_tokens(&windows, answer.clone()).unwrap(), tokens, "{answer:?}");
        }
    }

    #[test]
    fn spans_are_as_long_as_they_may_be() {
        let encoding = window(&[(0, 1), (2, 3), (3, 3), (4, 5)]);
        let scores: Vec<f32> = (0..8).map(|token| token as f32).collect();
        let window = ScoredWindow { encoding: &encoding, start: &scores, end: &scores };
        let found = |longest| window.spans(longest).map(|span| (span.from, span.to)).collect::<Vec<_>>();
        // The third token stands for no character.
        assert_eq!(found(2), [(0, 1), (0, 3), (2, 3), (2, 5), (4, 5)]);
        assert_eq!(found(usize::MAX).len(), 6);
        assert_eq!(window.spans(1).last().unwrap().score, 12.0);
    }
}
