//! Rows of text with labels, from CSV, TSV and JSON lines.

use std::path::Path;

use serde_json::{Map, Value};

use super::lines::{json_lines, no_rows, read_text};
use crate::{Error, Result};

/// The names of the columns (in JSON lines: of the keys) that hold a task's inputs and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextColumns {
    /// The text, or the first text of a pair.
    pub text: String,
    /// The second text of a pair; none if the task reads single texts.
    pub pair: Option<String>,
    /// The label; none if there are no labels to read.
    pub label: Option<String>,
}

/// A row of labelled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRow {
    /// The text, or the first text of a pair.
    pub text: String,
    /// The second text, if a column was named for it.
    pub pair: Option<String>,
    /// The label as it is written, if a column was named for it. An empty field is an empty label; a JSON number,
    /// boolean or list is kept as JSON. [`LabelEncoder`](super::LabelEncoder) interprets it.
    pub label: Option<String>,
    /// The line that the row starts on, from 1.
    pub line: usize,
}

/// Reads the rows of a table, in the file's order.
///
/// The extension decides the format:
/// - `.csv`: comma separated, fields may be quoted (RFC 4180), the first line names the columns;
/// - `.tsv`: tab separated, a quote is a character like any other, the first line names the columns;
/// - `.jsonl`: one object a line; the texts are strings, the label is a string, number or boolean, or a list of these.
///
/// # Errors
/// The file cannot be read, is not UTF-8, has no rows or another extension; a named column is missing or there twice; a
/// row has more or fewer fields than the header, a blank text, or (in JSON) a value of another type.
pub fn read_table(path: impl AsRef<Path>, columns: &TextColumns) -> Result<Vec<TextRow>> {
    let path = path.as_ref();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let read = match extension.as_deref() {
        Some("csv") => read_csv,
        Some("tsv") => read_tsv,
        Some("jsonl") => read_jsonl,
        _ => {
            let problem = "its extension does not tell its format, expected `.csv`, `.tsv` or `.jsonl`";
            return Err(Error::file(path, problem));
        }
    };
    let expected = "a header (not in .jsonl) and at least one row below it";
    let rows = read(path, &read_text(path, expected)?, columns)?;
    if rows.is_empty() {
        return Err(no_rows(path, expected));
    }
    for row in &rows {
        check_text(path, row.line, &columns.text, &row.text)?;
        if let (Some(name), Some(pair)) = (&columns.pair, &row.pair) {
            check_text(path, row.line, name, pair)?;
        }
    }
    Ok(rows)
}

/// A blank text is an error: probably the row is damaged.
fn check_text(path: &Path, line: usize, column: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        let problem = format!("column `{column}` is blank, expected a text: fill it in or remove the row");
        return Err(Error::line(path, line, problem));
    }
    Ok(())
}

fn read_csv(path: &Path, text: &str, columns: &TextColumns) -> Result<Vec<TextRow>> {
    read_delimited(path, text, columns, csv::ReaderBuilder::new().delimiter(b','))
}

/// Tab separated files usually contain quotes as plain characters.
fn read_tsv(path: &Path, text: &str, columns: &TextColumns) -> Result<Vec<TextRow>> {
    read_delimited(path, text, columns, csv::ReaderBuilder::new().delimiter(b'\t').quoting(false))
}

fn read_delimited(
    path: &Path,
    text: &str,
    columns: &TextColumns,
    format: &mut csv::ReaderBuilder,
) -> Result<Vec<TextRow>> {
    let mut records = records(path, text, format)?.into_iter();
    let Some((_, names)) = records.next() else {
        return Ok(Vec::new());
    };
    let header = Header::find(path, &names, columns)?;
    records.map(|(line, record)| header.row(path, line, &record)).collect()
}

/// The records of a delimited text, header included, each with the line that it starts on.
fn records(path: &Path, text: &str, format: &mut csv::ReaderBuilder) -> Result<Vec<(usize, csv::StringRecord)>> {
    // Flexible: `Header::row` checks the number of fields, and names the row.
    let mut reader = format.has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = Vec::new();
    let (mut start, mut line) = (0, 1);
    loop {
        // The reader counts line ends and blank lines in front of a record as part of it.
        let rest = text[reader.position().byte() as usize..].trim_start_matches(['\r', '\n']);
        let next = text.len() - rest.len();
        line += text[start..next].matches('\n').count();
        start = next;

        let mut record = csv::StringRecord::new();
        if !reader.read_record(&mut record).map_err(|error| Error::line(path, line, error.to_string()))? {
            return Ok(records);
        }
        // At the end of the text, the reader silently closes a field that is still in quotes. That is the case if one
        // more line would also become part of it.
        let at_end = reader.position().byte() as usize == text.len();
        if at_end && format.from_reader(format!("{rest}\n-").as_bytes()).records().count() == 1 {
            let problem =
                "a quote opens a field and none closes it: close it, or double a quote that is part of a text";
            return Err(Error::line(path, line, problem));
        }
        records.push((line, record));
    }
}

/// Where the columns are.
struct Header {
    width: usize,
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
}

impl Header {
    fn find(path: &Path, names: &csv::StringRecord, columns: &TextColumns) -> Result<Self> {
        let find = |column: &String| {
            let mut places = names.iter().enumerate().filter(|(_, name)| name == column).map(|(place, _)| place);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (None, _) => Err(missing_column(path, 1, column, names.iter())),
                (Some(_), Some(_)) => {
                    let problem = format!("there are several columns `{column}`, expected one: rename the others");
                    Err(Error::file(path, problem))
                }
            }
        };
        Ok(Self {
            width: names.len(),
            text: find(&columns.text)?,
            pair: columns.pair.as_ref().map(find).transpose()?,
            label: columns.label.as_ref().map(find).transpose()?,
        })
    }

    fn row(&self, path: &Path, line: usize, fields: &csv::StringRecord) -> Result<TextRow> {
        if fields.len() != self.width {
            let problem = format!("its number of fields is {}, expected {} as in the header", fields.len(), self.width);
            return Err(Error::line(path, line, problem));
        }
        Ok(TextRow {
            text: fields[self.text].to_owned(),
            pair: self.pair.map(|place| fields[place].to_owned()),
            label: self.label.map(|place| fields[place].to_owned()),
            line,
        })
    }
}

fn read_jsonl(path: &Path, text: &str, columns: &TextColumns) -> Result<Vec<TextRow>> {
    json_lines::<Map<String, Value>>(path, text)
        .map(|row| {
            let (line, row) = row?;
            let find = |key: &String| {
                row.get(key).ok_or_else(|| missing_column(path, line, key, row.keys().map(String::as_str)))
            };
            let wrong = |key: &str, value: &Value, expected: &str| {
                Error::line(path, line, format!("`{key}` is {value}, expected {expected}"))
            };
            let string = |key: &String| match find(key)? {
                Value::String(text) => Ok(text.clone()),
                other => Err(wrong(key, other, "a string")),
            };
            let label = |key: &String| match find(key)? {
                Value::String(label) => Ok(label.clone()),
                value @ (Value::Number(_) | Value::Bool(_) | Value::Array(_)) => Ok(value.to_string()),
                other => Err(wrong(key, other, "a label: a string, a number, a boolean, or a list of these")),
            };
            Ok(TextRow {
                text: string(&columns.text)?,
                pair: columns.pair.as_ref().map(string).transpose()?,
                label: columns.label.as_ref().map(label).transpose()?,
                line,
            })
        })
        .collect()
}

fn missing_column<'a>(path: &Path, line: usize, column: &str, there: impl Iterator<Item = &'a str>) -> Error {
    let there: Vec<String> = there.map(|name| format!("`{name}`")).collect();
    let problem = format!("there is no column `{column}`, expected one of those here: {}", there.join(", "));
    Error::line(path, line, problem)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::lines::file, *};

    fn columns(pair: Option<&str>) -> TextColumns {
        TextColumns { text: "text".into(), pair: pair.map(str::to_owned), label: Some("label".into()) }
    }

    fn read(name: &str, content: impl AsRef<[u8]>, pair: Option<&str>) -> Result<Vec<TextRow>> {
        let (_folder, path) = file(name, content);
        read_table(path, &columns(pair))
    }

    /// Text, label and line of each row.
    fn rows(name: &str, content: &str) -> Vec<(String, String, usize)> {
        let rows = read(name, content, None).unwrap();
        rows.into_iter().map(|row| (row.text, row.label.unwrap(), row.line)).collect()
    }

    fn row(text: &str, label: &str, line: usize) -> (String, String, usize) {
        (text.to_owned(), label.to_owned(), line)
    }

    #[test]
    fn csv_fields_may_be_quoted_and_span_lines() {
        let content = "label,id,text\r\npos,1,\"good, \"\"very\"\"\r\ngood\"\r\n\r\n,2,\"5\"\nneg,3,5\" disk";
        let expected = [row("good, \"very\"\r\ngood", "pos", 2), row("5", "", 5), row("5\" disk", "neg", 6)];
        assert_eq!(rows("a.csv", content), expected);
    }

    #[test]
    fn tsv_keeps_quotes() {
        let content = "\u{feff}text\tlabel\n\"so\" he said\t1\n\"open\t0\n\nit''s\t1\n";
        let expected = [row("\"so\" he said", "1", 2), row("\"open", "0", 3), row("it''s", "1", 5)];
        assert_eq!(rows("a.TSV", content), expected);
    }

    #[test]
    fn json_labels_of_every_kind() {
        let labels = [r#""a""#, "1", "-0.5", "true", r#"["a","b"]"#, "[]"];
        let content = labels.map(|label| format!(r#"{{"text": "t", "label": {label}, "id": null}}"#)).join("\n\n");
        let found: Vec<_> = rows("a.jsonl", &content).into_iter().map(|(_, label, line)| (label, line)).collect();
        let expected = ["a", "1", "-0.5", "true", r#"["a","b"]"#, "[]"];
        assert_eq!(found, expected.into_iter().map(str::to_owned).zip((1..).step_by(2)).collect::<Vec<_>>());
    }

    #[test]
    fn pairs_and_unlabelled_rows() {
        for (name, content) in [
            ("a.csv", "label,more,text\n1,b,a"),
            ("a.tsv", "text\tmore\tlabel\na\tb\t1"),
            ("a.jsonl", r#"{"text": "a", "more": "b", "label": 1}"#),
        ] {
            let row = read(name, content, Some("more")).unwrap().remove(0);
            assert_eq!((row.text.as_str(), row.pair.as_deref(), row.label.as_deref()), ("a", Some("b"), Some("1")));

            let (_folder, path) = file(name, content);
            let row = read_table(path, &TextColumns { label: None, ..columns(None) }).unwrap().remove(0);
            assert_eq!((row.text.as_str(), row.pair, row.label), ("a", None, None));
        }
    }

    #[test]
    fn bad_files_are_errors_that_say_where() {
        for (name, content, expected) in [
            ("a.txt", "text,label\na,1", "a.txt: its extension does not tell its format"),
            ("a.csv", "", "a.csv: it holds no rows, expected a header"),
            ("a.csv", "text,label\n", "a.csv: it holds no rows, expected a header"),
            ("a.tsv", "text\tlabel\n\n", "a.tsv: it holds no rows, expected a header"),
            (
                "a.csv",
                "Text,label\na,1",
                "line 1: there is no column `text`, expected one of those here: `Text`, `label`",
            ),
            ("a.csv", "text,label,text\na,1,b", "there are several columns `text`"),
            ("a.csv", "text,label\na,1\n\nb\n", "line 4: its number of fields is 1, expected 2 as in the header"),
            ("a.csv", "text,label\na,1\nb, c,1\n", "line 3: its number of fields is 3, expected 2"),
            ("a.csv", "text,label\na,1\n\"b,1\nc,1\n", "line 3: a quote opens a field and none closes it"),
            ("a.csv", "text,label\na,1\nb,\"1", "line 3: a quote opens a field and none closes it"),
            ("a.csv", "text,label\na,1\n \t,0\n", "line 3: column `text` is blank"),
            ("a.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\"}", "line 2: there is no column `label`"),
            ("a.jsonl", r#"{"text": 1, "label": 1}"#, "line 1: `text` is 1, expected a string"),
            ("a.jsonl", r#"{"text": "a", "label": null}"#, "line 1: `label` is null, expected a label"),
            ("a.jsonl", "[1]", "line 1 is not valid JSON"),
        ] {
            let error = read(name, content, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{content:?}: {error}");
        }
        let error = read("a.csv", b"text,label\na,1\n\xe9,1\n", None).unwrap_err().to_string();
        assert!(error.contains("a.csv, line 3: it is not valid UTF-8"), "{error}");
        let error = read("a.csv", "text,more,label\na,,1", Some("more")).unwrap_err().to_string();
        assert!(error.contains("line 2: column `more` is blank"), "{error}");
    }

    proptest! {
        /// Whatever texts are written as CSV come back, and on the lines where they are.
        #[test]
        fn csv_comes_back(texts in proptest::collection::vec("[a\",\r\n\t' é]{0,12}", 1..8)) {
            let texts: Vec<String> = texts.into_iter().map(|text| format!("x{text}")).collect();
            let mut content = String::from("text,label\n");
            let mut expected = Vec::new();
            for text in &texts {
                expected.push((text.clone(), "1".to_owned(), 1 + content.matches('\n').count()));
                content += &format!("\"{}\",1\n", text.replace('"', "\"\""));
            }
            prop_assert_eq!(rows("a.csv", &content), expected);
        }
    }
}
