//! The words of a text, as the reference finds them.

use std::sync::LazyLock;

use regex::Regex;

/// Python's `\w+(?:[-_]\w+)*|\S`. Its `\w` is letters, numbers and the underscore, without the marks of Rust's; and the
/// four separators from U+001C are white space there.
static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+(?:[-_][\p{L}\p{N}_]+)*|[^\s\x1c-\x1f]").expect("a valid pattern"));

/// A word of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    /// What it is.
    pub text: &'a str,
    /// Its first character in the text, counted in Unicode scalar values.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
}

/// The words of a text in order: letters and digits, also joined by hyphens and underscores, and each other character
/// that is no white space.
pub(crate) fn words(text: &str) -> Vec<Word<'_>> {
    let (mut byte, mut character) = (0, 0);
    let mut count_to = |to: usize| {
        character += text[byte..to].chars().count();
        byte = to;
        character
    };
    let word = |found: regex::Match<'_>| Word {
        text: &text[found.range()],
        start: count_to(found.start()),
        end: count_to(found.end()),
    };
    WORD.find_iter(text).map(word).collect()
}

/// The words of a text that is given as words. Their positions are those in the words with a space between them.
pub(crate) fn given_words(words: &[String]) -> Vec<Word<'_>> {
    let mut next = 0;
    let word = |text| {
        let (start, end) = (next, next + str::chars(text).count());
        next = end + 1;
        Word { text, start, end }
    };
    words.iter().map(String::as_str).map(word).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;
    use crate::repository::fixture;

    #[test]
    fn hyphens_and_underscores_join_words() {
        let texts = |text| words(text).iter().map(|word| word.text).collect::<Vec<_>>();
        assert_eq!(
            texts("state-of-the-art foo_bar -a- U.S. 5€"),
            ["state-of-the-art", "foo_bar", "-", "a", "-", "U", ".", "S", ".", "5", "€"]
        );
        assert_eq!(texts(" \u{1c}\u{85}"), [""; 0]);
    }

    #[test]
    fn positions_count_characters() {
        let found = words("« Zürich 🏔️");
        let spans: Vec<_> = found.iter().map(|word| (word.start, word.end)).collect();
        assert_eq!(spans, [(0, 1), (2, 8), (9, 10), (10, 11)]);
    }

    #[derive(Deserialize)]
    struct Ranges {
        word: Vec<(u32, u32)>,
        space: Vec<(u32, u32)>,
        unassigned: Vec<(u32, u32)>,
    }

    #[test]
    fn every_character_is_of_its_class_in_python() {
        let ranges = fs::read_to_string(fixture("gliner/python_classes.json")).unwrap();
        let ranges: Ranges = serde_json::from_str(&ranges).unwrap();
        let within =
            |ranges: &[(u32, u32)], c: char| ranges.iter().any(|(first, last)| (*first..=*last).contains(&(c as u32)));
        for c in ('\0'..=char::MAX).filter(|c| !within(&ranges.unassigned, *c)) {
            let text = format!("a{c}a");
            let expected = match (within(&ranges.word, c), within(&ranges.space, c)) {
                (true, _) => 1,
                (_, true) => 2,
                _ if c == '-' => 1,
                _ => 3,
            };
            assert_eq!(words(&text).len(), expected, "U+{:04X}", c as u32);
        }
    }
}
