//! Reading text and JSON files in all their forms: with a byte order mark, as a Git LFS pointer, or with JSON as Python
//! writes it.

use std::{fmt::Display, fs, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};

/// The start of a Git LFS pointer: without Git LFS, `git clone` leaves such a file in place of a large one.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The numbers of Python's `json` that JSON does not have, the longest first.
const NOT_FINITE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Refuses a Git LFS pointer in place of a file; the first bytes of the file are enough.
///
/// # Errors
/// `bytes`, the start of the file at `path`, are such a pointer.
pub(crate) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    match bytes.starts_with(LFS_POINTER) {
        true => Err(Error::file(path, "this is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")),
        false => Ok(()),
    }
}

/// The bytes of a file.
///
/// # Errors
/// A file that cannot be read or is a Git LFS pointer.
pub fn read_bytes(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    refuse_pointer(path, &bytes)?;
    Ok(bytes)
}

/// The text of a UTF-8 file, without its byte order mark.
///
/// # Errors
/// A file that cannot be read, is a Git LFS pointer, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    decode_text(path.display(), read_bytes(path)?)
}

/// The text in the bytes of a file (or of standard input) of this name, without its byte order mark.
///
/// # Errors
/// The bytes are not UTF-8.
pub fn decode_text(name: impl Display, bytes: Vec<u8>) -> Result<String> {
    decode_lines(name, 1, bytes).map(drop_mark)
}

/// The text in the bytes of some lines of a file (or of standard input) of this name; `first` is the number of the first line.
///
/// # Errors
/// The bytes are not UTF-8.
pub(crate) fn decode_lines(name: impl Display, first: usize, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = first + valid.iter().filter(|&&byte| byte == b'\n').count();
        let problem = "it is not valid UTF-8: save the file in that encoding, or fetch it again";
        Error::line(name.to_string(), line, problem)
    })
}

/// Reads a JSON file; see [`parse_json`].
///
/// # Errors
/// As [`read_text`]; a text that is not JSON, or not that of a `T`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(&read_text(path)?).map_err(Error::json(path.display()))
}

/// Parses JSON with or without a byte order mark. Python writes `NaN`, `Infinity` and `-Infinity` for numbers that are
/// not finite. They become strings here: if such a key is not read, it does no harm; if it is read as a number, the
/// error shows the word.
pub(crate) fn parse_json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let text = without_mark(text);
    serde_json::from_str(text).or_else(|error| match quote_not_finite(text) {
        Some(quoted) => serde_json::from_str::<Value>(&quoted).and_then(serde_json::from_value),
        None => Err(error),
    })
}

/// The text without its byte order mark.
pub(crate) fn drop_mark(mut text: String) -> String {
    let mark = text.len() - without_mark(&text).len();
    text.drain(..mark);
    text
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The text with quotes around every number that is not finite; none if there is no such number.
fn quote_not_finite(text: &str) -> Option<String> {
    let mut quoted = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let word = NOT_FINITE.into_iter().find(|word| rest.starts_with(word));
        let length = match (word, next) {
            (Some(word), _) => word.len(),
            (None, '"') => string_length(rest),
            (None, other) => other.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        match word {
            Some(word) => quoted.extend(["\"", word, "\""]),
            None => quoted.push_str(token),
        }
        rest = behind;
    }
    (quoted.len() > text.len()).then_some(quoted)
}

/// The length in bytes of the JSON string at the start of a text, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = true;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        // The opening quote counts as escaped.
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_are_not_finite_become_words() {
        let text = r#"{"a": NaN, "b": [Infinity,-Infinity], "NaN": "say \"NaN\\", "c": -1}"#;
        let parsed: Value = parse_json(text).unwrap();
        assert_eq!(parsed, json!({"a": "NaN", "b": ["Infinity", "-Infinity"], "NaN": "say \"NaN\\", "c": -1}));
        assert!(parse_json::<f64>("NaN").is_err());
        for broken in ["{\"a\": NaN", "{\"a\": Nan}", "\"NaN", "{\"NaN"] {
            assert!(parse_json::<Value>(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "\u{feff}[1]").unwrap();
        assert_eq!(read_text(&path).unwrap(), "[1]");
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), [1]);
        assert_eq!(parse_json::<Vec<u8>>("\u{feff}[1]").unwrap(), [1]);
    }

    #[test]
    fn what_is_no_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let pointer: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        for (bytes, problem) in [(pointer, "Git LFS pointer"), (b"a\nb\xff", "not valid UTF-8")] {
            fs::write(&path, bytes).unwrap();
            let error = read_text(&path).unwrap_err().to_string();
            assert!(error.contains("a.json") && error.contains(problem), "{error}");
        }
    }
}
