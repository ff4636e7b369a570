//! Queries with passages and their relevance, from JSON lines.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;

use super::lines::{json_lines, no_rows, read_text};
use crate::{Error, Result};

/// A query, and passages with their relevance.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedQuery {
    /// What is looked for.
    pub query: String,
    /// Passages, each with its relevance: 0 for none, larger is better.
    pub passages: Vec<(String, f32)>,
    /// The line of its first row, from 1.
    pub line: usize,
}

/// A row: one passage, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Pair {
        query: String,
        passage: String,
        #[serde(alias = "score")]
        label: f32,
    },
    List {
        query: String,
        passages: Vec<String>,
        #[serde(alias = "scores")]
        labels: Vec<f32>,
    },
}

/// Reads a file whose lines are `{"query": "…", "passage": "…", "label": 1}` or `{"query": "…", "passages": ["…", "…"],
/// "labels": [1, 0]}` (or `score`, `scores`). Rows of the same query become one, in the order of its first row.
///
/// # Errors
/// The file cannot be read, is not UTF-8 or has no row; a line is of neither form; a text is blank; there are not as many
/// labels as passages; a label is negative or not finite.
pub fn read_rankings(path: impl AsRef<Path>) -> Result<Vec<RankedQuery>> {
    let path = path.as_ref();
    let expected = "at least one line with a query, passages and labels";
    let (mut queries, mut known) = (Vec::<RankedQuery>::new(), HashMap::<String, usize>::new());
    for row in json_lines(path, &read_text(path, expected)?) {
        let (line, row) = row?;
        let (query, passages, labels) = match row {
            Row::Pair { query, passage, label } => (query, vec![passage], vec![label]),
            Row::List { query, passages, labels } => (query, passages, labels),
        };
        let is_blank = |text: &String| text.trim().is_empty();
        let problem = if is_blank(&query) || passages.is_empty() || passages.iter().any(is_blank) {
            Some("its query or one of its passages is blank, expected texts".to_owned())
        } else if passages.len() != labels.len() {
            Some(format!("it has {} passages and {} labels, expected as many", passages.len(), labels.len()))
        } else {
            let wrong = labels.iter().find(|label| !(label.is_finite() && **label >= 0.0));
            wrong.map(|label| format!("one of its labels is {label}, expected a number of at least 0"))
        };
        if let Some(problem) = problem {
            return Err(Error::line(path, line, problem));
        }
        let index = *known.entry(query.clone()).or_insert_with(|| {
            queries.push(RankedQuery { query, passages: Vec::new(), line });
            queries.len() - 1
        });
        queries[index].passages.extend(passages.into_iter().zip(labels));
    }
    if queries.is_empty() {
        return Err(no_rows(path, expected));
    }
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use super::{super::lines::file, *};

    fn read(content: &str) -> Result<Vec<RankedQuery>> {
        let (_folder, path) = file("a.jsonl", content);
        read_rankings(path)
    }

    #[test]
    fn rows_of_a_query_become_one() {
        let queries = read(concat!(
            r#"{"query": "q", "passage": "a", "label": 1}"#,
            "\n\n",
            r#"{"query": "r", "passages": ["b", "c"], "scores": [0, 2.5]}"#,
            "\n",
            r#"{"query": "q", "passage": "d", "score": 0}"#,
        ))
        .unwrap();
        let passages = |pairs: &[(&str, f32)]| pairs.iter().map(|(text, label)| ((*text).to_owned(), *label)).collect();
        let of = |query: &str, pairs, line| RankedQuery { query: query.into(), passages: passages(pairs), line };
        assert_eq!(queries, [of("q", &[("a", 1.0), ("d", 0.0)], 1), of("r", &[("b", 0.0), ("c", 2.5)], 3)]);
    }

    #[test]
    fn bad_rows_are_errors_that_say_where() {
        for (row, expected) in [
            (r#"{"query": " ", "passage": "a", "label": 1}"#, "its query or one of its passages is blank"),
            (r#"{"query": "q", "passages": [], "labels": []}"#, "its query or one of its passages is blank"),
            (r#"{"query": "q", "passages": ["a"], "labels": [1, 0]}"#, "it has 1 passages and 2 labels"),
            (r#"{"query": "q", "passage": "a", "label": -1}"#, "one of its labels is -1"),
        ] {
            let error = read(&format!("\n{row}")).unwrap_err().to_string();
            assert!(error.contains("a.jsonl, line 2: ") && error.contains(expected), "{error}");
        }
        let error = read(r#"{"query": "q", "passage": "a"}"#).unwrap_err().to_string();
        assert!(error.contains("a.jsonl, line 1 is not valid JSON"), "{error}");
    }
}
