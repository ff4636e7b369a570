//! Pairs of texts that belong together, from JSON lines.

use std::path::Path;

use serde::Deserialize;

use super::lines::{json_lines, no_rows, read_text};
use crate::{Error, Result};

/// A text and its counterpart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TextPair {
    /// A text, such as a question.
    pub text: String,
    /// What belongs to it, such as its answer.
    pub positive: String,
    /// What resembles it, but does not belong to it, if the row has such a text.
    pub negative: Option<String>,
}

/// Reads a file with one `{"text": "…", "positive": "…", "negative": "…"}` a line, `negative` where there is one.
///
/// # Errors
/// The file cannot be read, is not UTF-8 or has fewer than two rows, among which nothing can be told apart; a line is not of
/// this form; a text is blank.
pub fn read_pairs(path: impl AsRef<Path>) -> Result<Vec<TextPair>> {
    let path = path.as_ref();
    let expected = "at least two lines with a text and a positive";
    let mut pairs = Vec::new();
    for row in json_lines(path, &read_text(path, expected)?) {
        let (line, pair): (usize, TextPair) = row?;
        if [Some(&pair.text), Some(&pair.positive), pair.negative.as_ref()]
            .into_iter()
            .flatten()
            .any(|text| text.trim().is_empty())
        {
            return Err(Error::line(path, line, "one of its texts is blank, expected texts"));
        }
        pairs.push(pair);
    }
    match pairs.len() {
        0 => Err(no_rows(path, expected)),
        1 => Err(Error::file(path, format!("it holds one row, expected {expected}"))),
        _ => Ok(pairs),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::lines::file, *};

    #[test]
    fn negatives_are_optional_and_bad_rows_are_named() {
        let read = |content: &str| {
            let (_folder, path) = file("a.jsonl", content);
            read_pairs(path)
        };
        let good = r#"{"text": "a", "positive": "b"}"#;
        let pairs =
            read(&format!("{good}\n{}", r#"{"text": "c", "positive": "d", "negative": "e", "id": 1}"#)).unwrap();
        assert_eq!((pairs[0].negative.as_deref(), pairs[1].negative.as_deref()), (None, Some("e")));
        for (rows, expected) in [
            (format!("{good}\n{}", r#"{"text": "a", "positive": " "}"#), "a.jsonl, line 2: one of its texts is blank"),
            (format!("{good}\n{}", r#"{"text": "a"}"#), "a.jsonl, line 2 is not valid JSON"),
            (good.to_owned(), "a.jsonl: it holds one row, expected at least two lines"),
            ("\n".to_owned(), "a.jsonl: it holds no rows"),
        ] {
            let error = read(&rows).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
