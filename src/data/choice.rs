//! Multiple choice examples, from JSON lines.

use std::path::Path;

use serde::Deserialize;

use super::lines::{json_lines, no_rows, read_text};
use crate::{Error, Result};

/// A prompt with possible continuations or answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceExample {
    /// The text that each choice continues or answers.
    pub prompt: String,
    /// The choices: at least two, and the same number in every example of a file.
    pub choices: Vec<String>,
    /// Index of the right choice.
    pub label: usize,
    /// The line that the example stands on, from 1.
    pub line: usize,
}

#[derive(Deserialize)]
struct Row {
    prompt: String,
    choices: Vec<String>,
    label: usize,
}

/// Reads a file with one `{"prompt": "…", "choices": ["…", "…"], "label": 0}` a line, in the file's order.
///
/// # Errors
/// The file cannot be read, is not UTF-8 or has no example; a line is not of this form; a prompt or choice is blank;
/// there are fewer than two choices, or not as many as in the first example (the model scores a batch of them at once);
/// the label is no index of a choice.
pub fn read_choices(path: impl AsRef<Path>) -> Result<Vec<ChoiceExample>> {
    let path = path.as_ref();
    let expected = "at least one line with a prompt, choices and a label";
    let mut examples: Vec<ChoiceExample> = Vec::new();
    for row in json_lines(path, &read_text(path, expected)?) {
        let (line, Row { prompt, choices, label }) = row?;
        let count = choices.len();
        let problem = if prompt.trim().is_empty() || choices.iter().any(|choice| choice.trim().is_empty()) {
            Some("its prompt or one of its choices is blank, expected texts".to_owned())
        } else if count < 2 {
            Some(format!("its number of choices is {count}, expected at least 2"))
        } else if label >= count {
            Some(format!("its label is {label}, expected the index of one of its choices: 0 to {}", count - 1))
        } else {
            examples.first().filter(|first| first.choices.len() != count).map(|first| {
                format!(
                    "its number of choices is {count}, expected {} as on line {}: every example needs the same number",
                    first.choices.len(),
                    first.line
                )
            })
        };
        if let Some(problem) = problem {
            return Err(Error::line(path, line, problem));
        }
        examples.push(ChoiceExample { prompt, choices, label, line });
    }
    if examples.is_empty() {
        return Err(no_rows(path, expected));
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use super::{super::lines::file, *};

    fn read(content: &str) -> Result<Vec<ChoiceExample>> {
        let (_folder, path) = file("a.jsonl", content);
        read_choices(path)
    }

    const GOOD: &str = r#"{"prompt": "p", "choices": ["a", "b"], "label": 1, "id": 7}"#;

    #[test]
    fn examples_come_with_their_lines() {
        let example =
            |line| ChoiceExample { prompt: "p".into(), choices: vec!["a".into(), "b".into()], label: 1, line };
        assert_eq!(read(&format!("{GOOD}\n\n{GOOD}\n")).unwrap(), [example(1), example(3)]);
    }

    #[test]
    fn bad_rows_are_errors_that_say_where() {
        for (row, expected) in [
            (r#"{"prompt": "p", "choices": ["a"], "label": 0}"#, "its number of choices is 1, expected at least 2"),
            (
                r#"{"prompt": "p", "choices": ["a", "b", "c"], "label": 0}"#,
                "its number of choices is 3, expected 2 as on line 1: every example needs the same number",
            ),
            (r#"{"prompt": "p", "choices": ["a", "b"], "label": 2}"#, "its label is 2, expected the index of one"),
            (r#"{"prompt": " ", "choices": ["a", "b"], "label": 0}"#, "its prompt or one of its choices is blank"),
            (r#"{"prompt": "p", "choices": ["a", ""], "label": 0}"#, "its prompt or one of its choices is blank"),
        ] {
            let error = read(&format!("{GOOD}\n{row}")).unwrap_err().to_string();
            assert!(error.contains(&format!("a.jsonl, line 2: {expected}")), "{error}");
        }
        for (row, expected) in [
            (r#"{"prompt": "p", "choices": ["a", "b"], "label": -1}"#, "line 2 is not valid JSON: invalid value"),
            (r#"{"prompt": "p", "choices": ["a", "b"]}"#, "line 2 is not valid JSON: missing field `label`"),
        ] {
            let error = read(&format!("{GOOD}\n{row}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read("\n").unwrap_err().to_string();
        assert!(error.contains("a.jsonl: it holds no rows"), "{error}");
    }
}
