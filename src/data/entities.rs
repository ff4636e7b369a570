//! Words with entities of any type, from JSON lines: what GLiNER learns from.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use super::lines::{json_lines, no_rows, read_text};
use crate::{Error, Result};

/// An entity: the indices of its first and its last word, and its type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct WordSpan(pub usize, pub usize, pub String);

/// A text as words, with its entities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityText {
    /// The words.
    pub words: Vec<String>,
    /// The entities; they may lie inside each other.
    pub entities: Vec<WordSpan>,
    /// The types that the text is asked for, if the row says so.
    pub labels: Option<Vec<String>>,
    /// Types that it has no entity of, if the row says so.
    pub negatives: Option<Vec<String>>,
    /// Its line, from 1.
    pub line: usize,
}

impl EntityText {
    /// The types of its entities.
    pub fn types(&self) -> BTreeSet<&str> {
        self.entities.iter().map(|entity| entity.2.as_str()).collect()
    }
}

/// A row of the file. The names are the reference's.
#[derive(Deserialize)]
struct Row {
    tokenized_text: Vec<String>,
    ner: Vec<WordSpan>,
    ner_labels: Option<Vec<String>>,
    ner_negatives: Option<Vec<String>>,
}

/// Reads a file with one `{"tokenized_text": ["Ada", "wrote"], "ner": [[0, 0, "person"]]}` a line. `ner_labels` may list the
/// types that a row is asked for, and `ner_negatives` types that it has no entity of.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or has no entity at all; a line is not of this form; a word or a type is blank; an
/// entity is not within the words, or of a type that is not among the row's `ner_labels`.
pub fn read_entities(path: impl AsRef<Path>) -> Result<Vec<EntityText>> {
    let path = path.as_ref();
    let expected = "at least one line with tokenized_text and ner";
    let mut texts = Vec::new();
    for row in json_lines(path, &read_text(path, expected)?) {
        let (line, row): (usize, Row) = row?;
        row.check().map_err(|problem| Error::line(path, line, problem))?;
        let Row { tokenized_text: words, ner: entities, ner_labels: labels, ner_negatives: negatives } = row;
        texts.push(EntityText { words, entities, labels, negatives, line });
    }
    if texts.is_empty() {
        return Err(no_rows(path, expected));
    }
    if texts.iter().all(|text| text.entities.is_empty()) {
        return Err(Error::file(path, "no row has an entity in `ner`, expected some to learn from"));
    }
    Ok(texts)
}

impl Row {
    fn check(&self) -> Result<(), String> {
        let Self { tokenized_text: words, ner, ner_labels, ner_negatives } = self;
        let is_blank = |text: &String| text.trim().is_empty();
        if words.is_empty() {
            return Err("its tokenized_text is empty, expected words".into());
        }
        if let Some(word) = words.iter().position(is_blank) {
            return Err(format!("word {word} of its tokenized_text is blank, expected words"));
        }
        let named = [ner_labels, ner_negatives].into_iter().flatten().flatten();
        if ner.iter().map(|entity| &entity.2).chain(named).any(is_blank) {
            return Err("a type of entities is blank, expected a name".into());
        }
        for WordSpan(start, end, kind) in ner {
            if start > end || *end >= words.len() {
                let last = words.len() - 1;
                return Err(format!(
                    "its entity [{start}, {end}, \"{kind}\"] is not within its words, expected the indices of the first and \
                     the last word, from 0 to {last}"
                ));
            }
            if ner_labels.as_ref().is_some_and(|labels| !labels.contains(kind)) {
                return Err(format!("it has an entity of type `{kind}`, which is not among its ner_labels"));
            }
            if ner_negatives.as_ref().is_some_and(|negatives| negatives.contains(kind)) {
                return Err(format!("it has an entity of type `{kind}`, which is among its ner_negatives"));
            }
        }
        match ner_labels.as_ref().is_some_and(Vec::is_empty) {
            true => Err("its ner_labels are empty, expected the types that it is asked for".into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::lines::file, *};

    fn read(content: &str) -> Result<Vec<EntityText>> {
        let (_folder, path) = file("a.jsonl", content);
        read_entities(path)
    }

    #[test]
    fn rows_may_say_what_is_asked() {
        let texts = read(concat!(
            r#"{"tokenized_text": ["Ada", "in", "London"], "ner": [[2, 2, "place"], [0, 0, "person"]], "id": 1}"#,
            "\n\n",
            r#"{"tokenized_text": ["a"], "ner": [], "ner_labels": ["x"], "ner_negatives": ["y"]}"#,
        ))
        .unwrap();
        assert_eq!(texts[0].types().into_iter().collect::<Vec<_>>(), ["person", "place"]);
        assert_eq!((texts[0].entities[0].clone(), texts[0].line), (WordSpan(2, 2, "place".into()), 1));
        assert_eq!((texts[1].labels.clone(), texts[1].line), (Some(vec!["x".into()]), 3));
        assert_eq!(texts[1].negatives, Some(vec!["y".into()]));
    }

    #[test]
    fn bad_rows_are_errors_that_say_where() {
        for (row, expected) in [
            (r#"{"tokenized_text": [], "ner": []}"#, "its tokenized_text is empty"),
            (r#"{"tokenized_text": ["a", " "], "ner": []}"#, "word 1 of its tokenized_text is blank"),
            (r#"{"tokenized_text": ["a"], "ner": [[0, 1, "x"]]}"#, "its entity [0, 1, \"x\"] is not within its words"),
            (r#"{"tokenized_text": ["a", "b"], "ner": [[1, 0, "x"]]}"#, "from 0 to 1"),
            (r#"{"tokenized_text": ["a"], "ner": [[0, 0, ""]]}"#, "a type of entities is blank"),
            (
                r#"{"tokenized_text": ["a"], "ner": [[0, 0, "x"]], "ner_labels": ["y"]}"#,
                "type `x`, which is not among its ner_labels",
            ),
            (
                r#"{"tokenized_text": ["a"], "ner": [[0, 0, "x"]], "ner_negatives": ["x"]}"#,
                "type `x`, which is among its ner_negatives",
            ),
            (r#"{"tokenized_text": ["a"], "ner": [], "ner_labels": []}"#, "its ner_labels are empty"),
        ] {
            let error = read(&format!("\n{row}")).unwrap_err().to_string();
            assert!(error.contains("a.jsonl, line 2: ") && error.contains(expected), "{error}");
        }
        for (row, expected) in [
            (r#"{"tokenized_text": ["a"], "ner": [[0, "x"]]}"#, "a.jsonl, line 1 is not valid JSON"),
            (r#"{"tokenized_text": ["a"], "ner": []}"#, "a.jsonl: no row has an entity"),
            ("\n", "a.jsonl: it holds no rows"),
        ] {
            let error = read(row).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
