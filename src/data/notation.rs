//! How labels are written: marks for "no label", spellings of a number, and lists in JSON, Python and NumPy.

use std::{borrow::Cow, iter::Peekable, path::Path, str::Chars};

use serde_json::Value;

use super::TextRow;
use crate::{Error, Result};

/// How labels are written in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelNotation {
    /// The character between the labels of a row that has several.
    pub separator: char,
    /// The mark of a row without a label. In many data sets (SNLI, the test sets of GLUE) that is `-` or `-1`. If no
    /// mark is given, these two are refused; if one is given, only that one means "no label".
    pub no_label: Option<String>,
}

impl Default for LabelNotation {
    /// Commas; every row has a label.
    fn default() -> Self {
        Self { separator: ',', no_label: None }
    }
}

impl LabelNotation {
    /// Whether the row has the mark of a row without a label.
    pub(super) fn is_unlabelled(&self, row: &TextRow) -> bool {
        let (Some(mark), Some(label)) = (&self.no_label, &row.label) else { return false };
        canonical(mark.trim()) == canonical(label.trim())
    }

    /// The rows that have a label; `path` is their file.
    ///
    /// # Errors
    /// No row has one.
    pub fn labelled(&self, mut rows: Vec<TextRow>, path: impl AsRef<Path>) -> Result<Vec<TextRow>> {
        rows.retain(|row| !self.is_unlabelled(row));
        if rows.is_empty() {
            let mark = self.no_label.as_deref().unwrap_or_default();
            let problem = format!("every row has the label `{mark}`, which means none: check the label column");
            return Err(Error::file(path, problem));
        }
        Ok(rows)
    }

    /// Refuses a label that probably means "no label".
    pub(super) fn check(&self, row: &TextRow, path: &Path) -> Result<()> {
        let label = row.label.as_deref().map_or("", str::trim);
        if self.no_label.is_none() && matches!(canonical(label).as_ref(), "-" | "-1") {
            let problem = format!(
                "its label is `{label}`, by which many data sets mean that there is none: say what rows without a label \
                 have there (`--no-label={label}` leaves them out; with another word, `{label}` is a label)"
            );
            return Err(Error::line(path, row.line, problem));
        }
        Ok(())
    }
}

/// A whole number in its shortest form: without needless fraction, sign or exponent. Everything else stays as it is.
/// What has leading zeros is a code, not a number.
pub(super) fn canonical(label: &str) -> Cow<'_, str> {
    match number(label).filter(|number| number.fract() == 0.0) {
        None => label.into(),
        // Beyond 2^53, neighbouring integers are the same f64.
        Some(number) if number.abs() < 9e15 => (number as i64).to_string().into(),
        Some(_) => label.into(),
    }
}

/// The value of a label, if it is written as a number.
pub(super) fn number(label: &str) -> Option<f64> {
    let digits = label.trim_start_matches(['+', '-']);
    let is_code = digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    if is_code || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    label.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The labels of a row that may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelList {
    /// None of them is empty, and whole numbers are [canonical].
    pub(super) labels: Vec<String>,
    /// Whether they were written as a list.
    pub(super) bracketed: bool,
}

impl LabelList {
    /// Reads a field: a list, or labels with a separator between them.
    pub(super) fn of_field(field: &str, separator: char) -> Result<Self, String> {
        let (labels, bracketed) = match Self::parse(field) {
            Some(list) => (list?, true),
            None if field.is_empty() => (Vec::new(), false),
            None if field.starts_with(['[', '{']) => {
                return Err(
                    "it looks like a list and cannot be read as one, expected a JSON list such as [\"a\", \"b\"]"
                        .to_owned(),
                );
            }
            None => (field.split(separator).map(|label| label.trim().to_owned()).collect(), false),
        };
        if labels.iter().any(String::is_empty) {
            return Err(format!(
                "one of the labels is empty, expected labels with a `{separator}` between them, or a JSON list"
            ));
        }
        Ok(Self { labels: labels.iter().map(|label| canonical(label).into_owned()).collect(), bracketed })
    }

    /// The labels of a list, or why one of its items is no label; none if the text is no list.
    pub(super) fn parse(text: &str) -> Option<Result<Vec<String>, String>> {
        if let Ok(values) = serde_json::from_str::<Vec<Value>>(text) {
            let item = |value| match value {
                Value::String(text) => Item::Text(text),
                other => Item::Word(other.to_string()),
            };
            return Some(values.into_iter().map(|value| item(value).into_label()).collect());
        }
        let mut items = Vec::new();
        let mut reader = Reader { rest: text.chars().peekable() };
        let closing = match reader.rest.next()? {
            '[' => ']',
            '(' => ')',
            '{' => '}',
            _ => return None,
        };
        loop {
            reader.skip_spaces();
            if reader.rest.next_if_eq(&closing).is_some() {
                break;
            }
            items.push(reader.item()?);
            reader.skip_spaces();
            // NumPy separates items by spaces only.
            reader.rest.next_if_eq(&',');
        }
        reader.skip_spaces();
        reader.rest.next().is_none().then(|| items.into_iter().map(Item::into_label).collect())
    }
}

/// An item of a list: a text in quotes, or anything else.
enum Item {
    Text(String),
    Word(String),
}

impl Item {
    fn into_label(self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.trim().to_owned()),
            Self::Word(word) => match word.as_str() {
                "true" | "True" => Ok("true".into()),
                "false" | "False" => Ok("false".into()),
                _ => match number(&word) {
                    Some(number) if number.fract() == 0.0 => Ok(word),
                    Some(_) => Err(format!("{word} is no label, expected names, whole numbers, or a 0 or 1 for each")),
                    None => Err(format!("{word} is no label, expected strings, numbers or booleans in a list")),
                },
            },
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn skip_spaces(&mut self) {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
    }

    /// A string in single or double quotes, or a word without quotes; none if there is neither.
    fn item(&mut self) -> Option<Item> {
        match self.rest.next_if(|c| matches!(c, '"' | '\'')) {
            Some(quote) => self.string(quote).map(Item::Text),
            None => {
                let mut word = String::new();
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || "+-._".contains(*c)) {
                    word.push(c);
                }
                let is_value = number(&word).is_some()
                    || matches!(word.as_str(), "true" | "false" | "null" | "True" | "False" | "None" | "nan" | "NaN");
                is_value.then_some(Item::Word(word))
            }
        }
    }

    fn string(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.rest.next()? {
                c if c == quote => return Some(text),
                '\\' => text.push(match self.rest.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    c => c,
                }),
                c => text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_one_spelling() {
        for (label, expected) in [
            ("1.0", "1"),
            ("1.", "1"),
            ("+1", "1"),
            ("-0", "0"),
            ("1e2", "100"),
            ("1.5", "1.5"),
            ("01", "01"),
            ("1.0.0", "1.0.0"),
            ("nan", "nan"),
            ("inf", "inf"),
            ("-", "-"),
            ("1e400", "1e400"),
            ("12345678901234567891", "12345678901234567891"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(canonical(label), expected, "{label}");
        }
    }

    #[test]
    fn lists_of_every_kind() {
        for text in [
            r#"["a", "b c", "1", "it's"]"#,
            r#"['a', 'b c', 1.0, "it's"]"#,
            r"('a', 'b c', 1, 'it\'s')",
            r#"{'a', 'b c', 1, "it's",}"#,
            r#"["\u0061", "b\u0020c", 1.0, "it's"]"#,
            r#"['a' "b c" 1. 'it\'s']"#,
        ] {
            let list = LabelList::of_field(text, ',').unwrap();
            assert_eq!(
                list,
                LabelList { labels: ["a", "b c", "1", "it's"].map(str::to_owned).into(), bracketed: true }
            );
        }
        assert_eq!(LabelList::parse("[]"), Some(Ok(vec![])));
        for text in ["", "a, b", "(a), (b)", "(a", "1", "a]"] {
            assert_eq!(LabelList::parse(text), None, "{text}");
        }
        for (text, problem) in [
            ("[a, b]", "cannot be read as one"),
            ("['a', 'b'", "cannot be read as one"),
            ("[[1], [0]]", "[1] is no label"),
            ("{\"a\": 1}", "cannot be read as one"),
            ("[0.3, 0.7]", "0.3 is no label"),
            ("[None]", "None is no label"),
            ("['a', '']", "one of the labels is empty"),
        ] {
            let error = LabelList::of_field(text, ',').unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
        let plain = LabelList::of_field("(a), (b)", ',').unwrap();
        assert_eq!(plain, LabelList { labels: ["(a)", "(b)"].map(str::to_owned).into(), bracketed: false });
    }
}
