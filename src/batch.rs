//! Host data between the tokenizer and the model: one encoded sequence, and a padded batch of them.

use std::{cmp::Reverse, collections::HashSet, fmt};

use crate::{Error, Result};

/// One sequence of token ids, ready for the model, and the positions of its tokens in the text.
///
/// All lists have one entry for each token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Index of the input text that the sequence was cut from.
    pub text: usize,
    /// Index of the window of that text; 0 if the text was not cut into windows.
    pub window: usize,
    /// Number of tokens that were cut off the text (or pair), on the tokenizer's
    /// [side](crate::tokenizer::TruncationSide); 0 if it was cut into windows.
    pub cut: usize,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token type ids: 0 for the first text, 1 for the second (RoBERTa: always 0).
    pub type_ids: Vec<u32>,
    /// First character and the one after the last, counted in Unicode scalar values of the source text (of the word, if
    /// the text was given as words). White space at either end is left out. `(0, 0)` for special tokens.
    pub offsets: Vec<(usize, usize)>,
    /// Index of the word that the token belongs to: among the given words, or among those that the tokenizer found.
    /// `None` for special tokens that are not in the text.
    pub word_ids: Vec<Option<u32>>,
    /// 0 for tokens of the first text, 1 for tokens of the second, `None` for special tokens around them.
    pub sequence_ids: Vec<Option<usize>>,
    /// Whether the token was added around the texts (`[CLS]`, `[SEP]`).
    pub special: Vec<bool>,
}

impl Encoding {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The number of texts that were too long and were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// How many texts were cut.
    pub texts: usize,
    /// How many tokens each has now, special tokens included.
    pub max_length: usize,
}

impl Truncated {
    /// Counts the texts that were cut to `max_length` tokens; none if all are whole.
    pub fn count(encodings: &[Encoding], max_length: usize) -> Option<Self> {
        let cut: HashSet<usize> = encodings.iter().filter(|text| text.cut > 0).map(|text| text.text).collect();
        (!cut.is_empty()).then_some(Self { texts: cut.len(), max_length })
    }
}

impl fmt::Display for Truncated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { texts, max_length } = self;
        let were = if *texts == 1 { "text was" } else { "texts were" };
        write!(formatter, "{texts} {were} too long and cut to {max_length} tokens, special tokens included")
    }
}

/// The length of the rows of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// As long as the longest row.
    #[default]
    Longest,
    /// This many tokens; a longer row is an error.
    Fixed(usize),
}

/// Sequences padded on the right to one length, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of sequences.
    pub rows: usize,
    /// Tokens in each row, padding included.
    pub length: usize,
    /// Token ids, `[rows, length]` row-major.
    pub input_ids: Vec<i32>,
    /// `true` at real tokens, `[rows, length]` row-major.
    pub attention_mask: Vec<bool>,
    /// Token type ids, 0 at padding, `[rows, length]` row-major.
    pub token_type_ids: Vec<i32>,
}

/// The largest number of tokens of a batch, padding included: many times what any model can compute at once.
const MAX_CELLS: usize = 1 << 31;

impl Batch {
    /// Pads the sequences with `pad_id` and makes them the rows of a batch.
    ///
    /// # Errors
    /// No sequence at all, or only empty ones; a sequence that is longer than [`Padding::Fixed`] allows, or whose
    /// numbers of tokens and token types differ; more than 2^31 tokens; an id beyond any vocabulary.
    pub fn collate<'a>(
        encodings: impl IntoIterator<Item = &'a Encoding>,
        pad_id: u32,
        padding: Padding,
    ) -> Result<Self> {
        let encodings: Vec<_> = encodings.into_iter().collect();
        let longest = encodings.iter().map(|encoding| encoding.len()).max().unwrap_or(0);
        let length = match padding {
            Padding::Longest => longest,
            Padding::Fixed(length) => length,
        };
        if length == 0 {
            return Err(Error::input("batch", "it holds no tokens, expected at least one sequence"));
        }
        if longest > length {
            return Err(Error::input(
                "batch",
                format!(
                    "a sequence has {longest} tokens, but rows are padded to {length}: encode with a max_length of {length}"
                ),
            ));
        }

        let cells = encodings.len().checked_mul(length).filter(|cells| *cells <= MAX_CELLS).ok_or_else(|| {
            let problem = format!("{} rows of {length} tokens are more than fit into memory", encodings.len());
            Error::input("batch", format!("{problem}, expected at most 2^31; take fewer or shorter ones"))
        })?;
        let mut batch = Self {
            rows: encodings.len(),
            length,
            input_ids: Vec::with_capacity(cells),
            attention_mask: Vec::with_capacity(cells),
            token_type_ids: Vec::with_capacity(cells),
        };
        for encoding in encodings {
            if encoding.type_ids.len() != encoding.len() {
                let (types, ids) = (encoding.type_ids.len(), encoding.len());
                let problem = format!("a sequence has {types} token types for {ids} tokens, expected one for each");
                return Err(Error::input("batch", problem));
            }
            let padding = length - encoding.len();
            let row = encoding.ids.iter().copied().chain(std::iter::repeat_n(pad_id, padding));
            for id in row {
                let id = i32::try_from(id).map_err(|_| Error::input("batch", format!("{id} is no token id")))?;
                batch.input_ids.push(id);
            }
            batch.token_type_ids.extend(encoding.type_ids.iter().map(|&type_id| type_id as i32));
            batch.token_type_ids.extend(std::iter::repeat_n(0, padding));
            batch.attention_mask.extend((0..length).map(|position| position < encoding.len()));
        }
        Ok(batch)
    }
}

/// Groups sequences of similar length, so that little padding is needed.
///
/// Returns groups of indices into `lengths`, each of at most `budget` tokens; a longer sequence is a group of its own.
/// The longest sequences come first, so that a lack of memory shows at once.
///
/// # Errors
/// A `budget` of 0.
pub fn batches_by_length(lengths: &[usize], budget: usize) -> Result<Vec<Vec<usize>>> {
    if budget == 0 {
        return Err(Error::value("batch tokens", 0, "at least 1"));
    }
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| Reverse(lengths[index]));
    Ok(batches_in_order(order, |index| lengths[index], budget))
}

/// Groups sequences in the order given, each group of at most `budget` tokens or of one sequence.
pub(crate) fn batches_in_order(
    order: impl IntoIterator<Item = usize>,
    length: impl Fn(usize) -> usize,
    budget: usize,
) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for index in order {
        let length = length(index);
        match batches.last_mut().filter(|_| length <= room) {
            Some(batch) => batch.push(index),
            None => {
                batches.push(vec![index]);
                room = budget;
            }
        }
        room = room.saturating_sub(length);
    }
    batches
}

/// Calls `compute` for batches of similar length and at most `budget` tokens, given as indices into `encodings`. It
/// returns one value for each sequence of the batch. The result has all values in the order of `encodings`.
///
/// # Errors
/// A `budget` of 0, or what `compute` fails with.
pub(crate) fn in_batches<T>(
    encodings: &[Encoding],
    budget: usize,
    mut compute: impl FnMut(&[usize]) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let lengths: Vec<usize> = encodings.iter().map(Encoding::len).collect();
    let mut values: Vec<(usize, T)> = Vec::with_capacity(encodings.len());
    for indices in batches_by_length(&lengths, budget)? {
        let computed = compute(&indices)?;
        values.extend(indices.into_iter().zip(computed));
    }
    values.sort_by_key(|(index, _)| *index);
    Ok(values.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(ids: &[u32]) -> Encoding {
        Encoding { ids: ids.to_vec(), type_ids: vec![1; ids.len()], ..Encoding::default() }
    }

    #[test]
    fn pads_to_the_longest_row() {
        let batch = Batch::collate(&[encoding(&[5, 6, 7]), encoding(&[8])], 9, Padding::Longest).unwrap();
        assert_eq!((batch.rows, batch.length), (2, 3));
        assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 9]);
        assert_eq!(batch.attention_mask, [true, true, true, true, false, false]);
        assert_eq!(batch.token_type_ids, [1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn pads_to_a_fixed_length() {
        let batch = Batch::collate(&[encoding(&[5])], 0, Padding::Fixed(4)).unwrap();
        assert_eq!(batch.input_ids, [5, 0, 0, 0]);
        let error = Batch::collate(&[encoding(&[1, 2, 3])], 0, Padding::Fixed(2)).unwrap_err().to_string();
        assert!(error.contains("3 tokens") && error.contains("padded to 2"), "{error}");
    }

    #[test]
    fn an_empty_batch_is_an_error() {
        for empty in [vec![], vec![encoding(&[])]] {
            let error = Batch::collate(&empty, 0, Padding::Longest).unwrap_err().to_string();
            assert_eq!(error, "batch: it holds no tokens, expected at least one sequence");
        }
    }

    #[test]
    fn what_makes_no_batch_is_an_error() {
        let error = |encoding: Encoding, padding| Batch::collate(&[encoding], 0, padding).unwrap_err().to_string();
        assert!(error(encoding(&[5]), Padding::Fixed(usize::MAX)).contains("1 rows of 18446744073709551615 tokens"));
        let typeless = Encoding { ids: vec![5, 6], ..Encoding::default() };
        assert!(error(typeless, Padding::Longest).contains("0 token types for 2 tokens"));
    }

    #[test]
    fn an_id_beyond_every_vocabulary_is_an_error() {
        let error = Batch::collate(&[encoding(&[u32::MAX])], 0, Padding::Longest).unwrap_err().to_string();
        assert!(error.contains("4294967295 is no token id"), "{error}");
    }

    #[test]
    fn groups_by_length_longest_first() {
        let lengths = [1, 4, 2, 4, 3];
        assert_eq!(batches_by_length(&lengths, 8).unwrap(), [vec![1, 3], vec![4, 2, 0]]);
        assert_eq!(batches_by_length(&lengths, 5).unwrap(), [vec![1], vec![3], vec![4, 2], vec![0]]);
        // What is longer than the budget is a batch of its own.
        assert_eq!(batches_by_length(&lengths, 3).unwrap(), [vec![1], vec![3], vec![4], vec![2, 0]]);
        assert!(batches_by_length(&[], 2).unwrap().is_empty());
        assert!(batches_by_length(&lengths, 0).unwrap_err().to_string().contains("expected at least 1"));
    }

    #[test]
    fn values_of_batches_come_back_in_order() {
        let encodings = [1, 4, 2, 4, 3].map(|length| encoding(&vec![0; length]));
        let lengths = |batch: &[usize]| Ok(batch.iter().map(|&index| encodings[index].len()).collect());
        assert_eq!(in_batches(&encodings, 5, lengths).unwrap(), [1, 4, 2, 4, 3]);
    }

    #[test]
    fn cut_texts_are_counted_once() {
        let cut = |text, cut| Encoding { text, cut, ..encoding(&[1]) };
        assert_eq!(Truncated::count(&[cut(0, 0), cut(1, 0)], 8), None);
        let truncated = Truncated::count(&[cut(0, 3), cut(0, 1), cut(1, 0), cut(2, 5)], 8).unwrap();
        assert_eq!(truncated.to_string(), "2 texts were too long and cut to 8 tokens, special tokens included");
    }
}
