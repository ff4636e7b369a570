//! Reading text files line by line, with errors that say where.

use std::{fmt::Display, path::Path};

use serde::de::DeserializeOwned;

use crate::{Error, Result, text_file};

/// The text of a UTF-8 file, without its byte order mark. `expected` says what the file should hold, for the error.
///
/// # Errors
/// The file cannot be read, is a Git LFS pointer, is not UTF-8, or is empty.
pub(super) fn read_text(path: &Path, expected: &str) -> Result<String> {
    let text = text_file::read_text(path)?;
    if text.trim().is_empty() {
        return Err(no_rows(path, expected));
    }
    Ok(text)
}

/// The error for a file without a single row.
pub(super) fn no_rows(path: &Path, expected: &str) -> Error {
    Error::file(path, format!("it holds no rows, expected {expected}"))
}

/// The name of a line in error messages; lines count from 1.
pub fn at_line(name: impl Display, line: usize) -> String {
    format!("{name}, line {line}")
}

/// Whether the file's name ends in `.jsonl`.
pub(super) fn is_jsonl(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"))
}

/// The JSON values of a text with one value on each line, each with its line number. Blank lines are skipped.
pub(super) fn json_lines<T: DeserializeOwned>(path: &Path, text: &str) -> impl Iterator<Item = Result<(usize, T)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| {
        let value = serde_json::from_str(line).map_err(Error::json(at_line(path.display(), index + 1)))?;
        Ok((index + 1, value))
    })
}

/// A file in a temporary folder, for the tests of the readers.
#[cfg(test)]
pub(super) fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let (_folder, path) = file("a.txt", "\u{feff}one\n");
        assert_eq!(read_text(&path, "text").unwrap(), "one\n");
    }

    #[test]
    fn unreadable_files_are_errors_that_say_where() {
        let (folder, path) = file("a.txt", b"one\ntwo\nthr\xff\n");
        let error = read_text(&path, "text").unwrap_err().to_string();
        assert!(error.contains("a.txt, line 3: it is not valid UTF-8"), "{error}");

        let missing = folder.path().join("b.txt");
        let error = read_text(&missing, "text").unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("b.txt"), "{error}");

        for empty in ["", " \n\n", "\u{feff}"] {
            let (_folder, path) = file("c.txt", empty);
            let error = read_text(&path, "a line of text").unwrap_err().to_string();
            assert!(error.ends_with("c.txt: it holds no rows, expected a line of text"), "{error}");
        }
    }

    #[test]
    fn json_lines_know_their_lines() {
        let text = "1\n\n2\r\n{\n";
        let values: Vec<Result<(usize, u32)>> = json_lines(Path::new("a.jsonl"), text).collect();
        assert!(matches!(values[..2], [Ok((1, 1)), Ok((3, 2))]), "{values:?}");
        let error = values[2].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("a.jsonl, line 4 is not valid JSON: "), "{error}");
    }
}
