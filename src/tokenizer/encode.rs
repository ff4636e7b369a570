//! From texts to [`Encoding`]s: input forms, truncation, overlapping windows, offsets.

use std::{borrow::Cow, iter};

use tokenizers::{
    EncodeInput, Encoding as RawEncoding, InputSequence, PostProcessor, TruncationDirection, TruncationParams,
    TruncationStrategy, truncate_encodings,
};

use super::Tokenizer;
use crate::{Error, Result, batch::Encoding};

/// One input: a text or a pair of texts.
#[derive(Debug, Clone)]
pub struct Text<'a> {
    first: Sequence<'a>,
    second: Option<Sequence<'a>>,
    side: Option<TruncationSide>,
}

/// A plain text, or one that is already split into words.
#[derive(Debug, Clone)]
enum Sequence<'a> {
    Running(Cow<'a, str>),
    Words(Vec<Cow<'a, str>>),
}

impl<'a> Text<'a> {
    /// A text that is already split into words, such as named-entity data. Word ids refer to these words, and offsets
    /// count from the start of each word.
    pub fn words(words: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) -> Self {
        Self::new(Sequence::Words(words.into_iter().map(Into::into).collect()), None)
    }

    fn new(first: Sequence<'a>, second: Option<Sequence<'a>>) -> Self {
        Self { first, second, side: None }
    }

    /// If the text is too long, it loses tokens on this side, whatever the tokenizer's settings say.
    pub fn cut_on(self, side: TruncationSide) -> Self {
        Self { side: Some(side), ..self }
    }

    /// The same with strings of its own.
    pub fn into_owned(self) -> Text<'static> {
        Text { first: self.first.into_owned(), second: self.second.map(Sequence::into_owned), side: self.side }
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(Sequence::Running(text.into()), None)
    }
}

impl<'a> From<&'a String> for Text<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::new(Sequence::Running(text.into()), None)
    }
}

impl<'a, A: Into<Cow<'a, str>>, B: Into<Cow<'a, str>>> From<(A, B)> for Text<'a> {
    fn from((first, second): (A, B)) -> Self {
        Self::new(Sequence::Running(first.into()), Some(Sequence::Running(second.into())))
    }
}

/// What to do with an input that has more than [`EncodeOptions::max_length`] tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// Shorten the longer text of a pair until both are equally long, then both in turn.
    #[default]
    LongestFirst,
    /// Shorten the first text only.
    OnlyFirst,
    /// Shorten the second text only.
    OnlySecond,
    /// Refuse it.
    Error,
}

/// The side on which a text loses tokens: `truncation_side` in `tokenizer_config.json`, `truncation.direction` in
/// `tokenizer.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TruncationSide {
    /// The first tokens are removed.
    Left,
    /// The last tokens are removed.
    #[default]
    Right,
}

/// The default overlap of the windows of long texts, in tokens: a quarter of their length.
pub fn default_stride(max_length: usize) -> usize {
    max_length / 4
}

/// How texts become token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Most tokens of one encoding, special tokens included.
    pub max_length: usize,
    /// What happens to longer inputs.
    pub truncation: Truncation,
    /// If set, a text that is too long is cut into windows that overlap by this many tokens, instead of being
    /// shortened: the first text under [`Truncation::OnlyFirst`], otherwise the last one (the context of a question). The
    /// first window begins where the text does, whatever the [`TruncationSide`].
    pub stride: Option<usize>,
    /// Whether the model's special tokens are put around the texts.
    pub add_special_tokens: bool,
}

impl Default for EncodeOptions {
    /// 512 tokens, longest first, special tokens, no windows.
    fn default() -> Self {
        Self { max_length: 512, truncation: Truncation::default(), stride: None, add_special_tokens: true }
    }
}

impl<'a> Sequence<'a> {
    fn into_owned(self) -> Sequence<'static> {
        match self {
            Self::Running(text) => Sequence::Running(text.into_owned().into()),
            Self::Words(words) => {
                Sequence::Words(words.into_iter().map(|word| Cow::Owned(word.into_owned())).collect())
            }
        }
    }

    /// In a byte-level vocabulary, a word includes the space in front of it. So every word but the first gets a space.
    fn with_spaces(self, byte_level: bool) -> Self {
        match self {
            Self::Words(words) if byte_level => {
                let spaced = words.into_iter().enumerate();
                Self::Words(spaced.map(|(i, word)| if i == 0 { word } else { format!(" {word}").into() }).collect())
            }
            sequence => sequence,
        }
    }

    fn as_input(&self) -> EncodeInput<'_> {
        EncodeInput::Single(match self {
            Self::Running(text) => InputSequence::Raw(Cow::Borrowed(text)),
            Self::Words(words) => InputSequence::PreTokenizedCow(Cow::Borrowed(words)),
        })
    }

    /// Moves every offset to the token as a reader sees it: without white space at its ends, and including the
    /// characters after it that normalisation merged into it (a combining accent) or removed.
    fn tidy_offsets(&self, encoding: &mut RawEncoding, byte_level: bool) {
        let words = encoding.get_word_ids().to_vec();
        let offsets = encoding.get_offsets_mut();
        match self {
            Self::Running(text) => {
                let characters: Vec<char> = text.chars().collect();
                tidy(offsets, &characters);
            }
            Self::Words(texts) => {
                let mut start = 0;
                while let Some(&word) = words.get(start) {
                    let end = start + words[start..].iter().take_while(|&&other| other == word).count();
                    let index = word.map_or(0, |word| word as usize);
                    let characters: Vec<char> = texts[index].chars().collect();
                    tidy(&mut offsets[start..end], &characters);
                    let added_space = usize::from(byte_level && index > 0);
                    for (from, to) in &mut offsets[start..end] {
                        *from = from.saturating_sub(added_space);
                        *to = to.saturating_sub(added_space);
                    }
                    start = end;
                }
            }
        }
    }
}

/// See [`Sequence::tidy_offsets`]; `characters` are those of the text that the offsets refer to.
fn tidy(offsets: &mut [(usize, usize)], characters: &[char]) {
    let space = |index: usize| characters[index].is_whitespace();
    let mut limit = characters.len();
    for (start, end) in offsets.iter_mut().rev() {
        let next = std::mem::replace(&mut limit, *start);
        while *end < next && *end > *start && !space(*end) {
            *end += 1;
        }
        while start < end && space(*start) {
            *start += 1;
        }
        while start < end && space(*end - 1) {
            *end -= 1;
        }
    }
}

impl Tokenizer {
    /// Turns texts into token ids, in parallel; the encodings come in the order of the texts, and the windows of a long
    /// text in the order of reading.
    ///
    /// If a text contains the name of a special token (`[MASK]`), it is read as that token.
    ///
    /// # Errors
    /// A text that is too long under [`Truncation::Error`] or that the chosen truncation cannot shorten enough; a
    /// `max_length` that leaves no room for text beside the special tokens; a `stride` so large that windows do not
    /// advance. The message numbers the texts from 0.
    pub fn encode(&self, texts: &[Text<'_>], options: &EncodeOptions) -> Result<Vec<Encoding>> {
        let sequences: Vec<Sequence> = texts
            .iter()
            .flat_map(|text| iter::once(&text.first).chain(&text.second))
            .map(|sequence| sequence.clone().with_spaces(self.byte_level))
            .collect();
        let inputs = sequences.iter().map(Sequence::as_input).collect();
        let mut raw = self
            .inner
            .encode_batch_char_offsets(inputs, false)
            .map_err(|error| Error::input("text", format!("the tokenizer cannot encode it: {error}")))?;
        for (encoding, sequence) in raw.iter_mut().zip(&sequences) {
            sequence.tidy_offsets(encoding, self.byte_level);
        }

        let mut raw = raw.into_iter();
        let mut encodings = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let first = raw.next().expect("one encoding a sequence");
            let second = text.second.as_ref().map(|_| raw.next().expect("one encoding a sequence"));
            let problem = |problem: String| Error::text(index, problem);
            let whole = length(&first, second.as_ref());
            for (window, (first, second)) in
                self.fit(first, second, text.side, options).map_err(problem)?.into_iter().enumerate()
            {
                let cut = if options.stride.is_none() { whole - length(&first, second.as_ref()) } else { 0 };
                let processed = self.post_processor.process(first, second, options.add_special_tokens);
                let processed =
                    processed.map_err(|error| problem(format!("the special tokens do not fit: {error}")))?;
                encodings.push(encoding(index, window, cut, &processed));
            }
        }
        Ok(encodings)
    }

    /// Shortens a text or pair to the wanted length, or cuts it into windows.
    fn fit(
        &self,
        mut first: RawEncoding,
        mut second: Option<RawEncoding>,
        side: Option<TruncationSide>,
        options: &EncodeOptions,
    ) -> Result<Vec<(RawEncoding, Option<RawEncoding>)>, String> {
        let special = if options.add_special_tokens { self.post_processor.added_tokens(second.is_some()) } else { 0 };
        let max_length = options.max_length;
        let room = max_length
            .checked_sub(special)
            .filter(|&room| room > 0)
            .ok_or_else(|| format!("max_length is {max_length}, expected more than the {special} special tokens"))?;
        let total = length(&first, second.as_ref());
        if total <= room {
            return Ok(vec![(first, second)]);
        }
        let too_long =
            format!("it has {total} tokens, and {room} fit into max_length {max_length} beside special tokens");

        let strategy = match options.truncation {
            Truncation::Error => return Err(format!("{too_long}; shorten it or allow truncation")),
            Truncation::LongestFirst => TruncationStrategy::LongestFirst,
            Truncation::OnlyFirst => TruncationStrategy::OnlyFirst,
            Truncation::OnlySecond => TruncationStrategy::OnlySecond,
        };
        let Some(stride) = options.stride else {
            let direction = match side.unwrap_or(self.truncation_side) {
                TruncationSide::Left => TruncationDirection::Left,
                TruncationSide::Right => TruncationDirection::Right,
            };
            let params = TruncationParams { max_length: room, strategy, direction, stride: 0 };
            let (mut first, mut second) = truncate_encodings(first, second, &params)
                .map_err(|_| format!("{too_long}; {:?} cannot shorten it enough", options.truncation))?;
            first.take_overflowing();
            second.as_mut().map(RawEncoding::take_overflowing);
            return Ok(vec![(first, second)]);
        };

        let windowed_first = second.is_none() || options.truncation == Truncation::OnlyFirst;
        let (windowed, other) = if windowed_first {
            (&mut first, second.as_ref())
        } else {
            (second.as_mut().expect("a pair"), Some(&first))
        };
        let window = room.saturating_sub(other.map_or(0, RawEncoding::len));
        if stride >= window {
            return Err(format!("{too_long}; a window holds {window} of them, so a stride of {stride} leaves no step"));
        }
        windowed.truncate(window, stride, TruncationDirection::Right);
        let rest = windowed.take_overflowing();
        let windows = iter::once(windowed.clone()).chain(rest);
        let pairs =
            windows.map(|window| if windowed_first { (window, second.clone()) } else { (first.clone(), Some(window)) });
        Ok(pairs.collect())
    }
}

/// Tokens of a text or pair.
fn length(first: &RawEncoding, second: Option<&RawEncoding>) -> usize {
    first.len() + second.map_or(0, RawEncoding::len)
}

fn encoding(text: usize, window: usize, cut: usize, raw: &RawEncoding) -> Encoding {
    Encoding {
        text,
        window,
        cut,
        ids: raw.get_ids().to_vec(),
        type_ids: raw.get_type_ids().to_vec(),
        offsets: raw.get_offsets().to_vec(),
        word_ids: raw.get_word_ids().to_vec(),
        sequence_ids: raw.get_sequence_ids(),
        special: raw.get_special_tokens_mask().iter().map(|&mask| mask != 0).collect(),
    }
}
