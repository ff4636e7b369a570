//! Questions about a passage, from SQuAD files.

use std::{collections::HashSet, path::Path, sync::Arc};

use serde::Deserialize;

use super::lines::{no_rows, read_text};
use crate::{Error, Result};

/// A span of the context that answers the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer as it stands in the context.
    pub text: String,
    /// Its first character in the context, counted in Unicode scalar values.
    pub start: usize,
}

/// A question about a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What predictions refer to; no other question of the file has it.
    pub id: String,
    /// The question.
    pub question: String,
    /// The passage, shared by its questions.
    pub context: Arc<str>,
    /// The right answers: at least one, or none if the question is impossible.
    pub answers: Vec<Answer>,
    /// Whether the context does not answer the question.
    pub impossible: bool,
}

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<FileQuestion>,
}

#[derive(Deserialize)]
struct FileQuestion {
    id: String,
    question: String,
    answers: Vec<FileAnswer>,
    /// Version 1.1 does not have the key: all its questions have answers.
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct FileAnswer {
    text: String,
    answer_start: usize,
}

/// Reads the questions of a SQuAD file, version 1.1 or 2.0, in the file's order.
///
/// # Errors
/// The file cannot be read, is not UTF-8, is not JSON of this form, or has no question; a question has the id of
/// another, no answer without being impossible, an answer although it is, or an answer that the context does not hold
/// at its `answer_start`.
pub fn read_squad(path: impl AsRef<Path>) -> Result<Vec<Question>> {
    let path = path.as_ref();
    let expected = "at least one question in SQuAD's format";
    let text = read_text(path, expected)?;
    let file: File = serde_json::from_str(&text).map_err(Error::json(path.display()))?;
    let mut questions = Vec::new();
    for Paragraph { context, qas } in file.data.into_iter().flat_map(|article| article.paragraphs) {
        let context: Arc<str> = context.into();
        for question in qas {
            questions.push(check(path, question, &context)?);
        }
    }
    if questions.is_empty() {
        return Err(no_rows(path, expected));
    }
    let mut ids = HashSet::new();
    if let Some(twice) = questions.iter().find(|question| !ids.insert(question.id.as_str())) {
        return Err(problem(path, &twice.id, "another question has the same id, expected every id once".into()));
    }
    Ok(questions)
}

fn check(path: &Path, question: FileQuestion, context: &Arc<str>) -> Result<Question> {
    let FileQuestion { id, question, answers, is_impossible: impossible } = question;
    if answers.is_empty() != impossible {
        let found = if impossible { "is marked impossible, but has answers" } else { "has no answers" };
        let found = format!("it {found}: expected answers, or `is_impossible` true and none");
        return Err(problem(path, &id, found));
    }
    for FileAnswer { text, answer_start } in &answers {
        let rest = context.char_indices().nth(*answer_start).map_or("", |(byte, _)| &context[byte..]);
        if text.is_empty() || !rest.starts_with(text) {
            let there: String = rest.chars().take(text.chars().count().max(20)).collect();
            return Err(problem(
                path,
                &id,
                format!(
                    "its answer `{text}` is not in the context at character {answer_start} (there: `{there}`): \
                     expected `answer_start` to count Unicode characters from 0"
                ),
            ));
        }
    }
    let answers = answers.into_iter().map(|answer| Answer { text: answer.text, start: answer.answer_start }).collect();
    Ok(Question { id, question, context: Arc::clone(context), answers, impossible })
}

fn problem(path: &Path, id: &str, problem: String) -> Error {
    Error::input(format!("{}, question `{id}`", path.display()), problem)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::lines::file, *};

    fn read(content: &str) -> Result<Vec<Question>> {
        let (_folder, path) = file("a.json", content);
        read_squad(path)
    }

    /// A file with one paragraph.
    fn squad(questions: Value) -> String {
        let paragraph = json!({"context": "In Zürich 🏔 it snows.", "qas": questions});
        json!({"version": "v2.0", "data": [{"title": "t", "paragraphs": [paragraph]}]}).to_string()
    }

    #[test]
    fn both_versions_are_read() {
        let content = squad(json!([
            {"id": "1", "question": "Where?", "answers": [{"text": "Zürich", "answer_start": 3}]},
            {"id": "2", "question": "What?", "is_impossible": false,
             "answers": [{"text": "snows", "answer_start": 15}, {"text": "it snows", "answer_start": 12}]},
            {"id": "3", "question": "Who?", "is_impossible": true, "answers": [],
             "plausible_answers": [{"text": "it", "answer_start": 12}]},
        ]));
        let questions = read(&content).unwrap();
        assert_eq!(questions.iter().map(|question| question.impossible).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(questions[0].answers, [Answer { text: "Zürich".into(), start: 3 }]);
        // Characters, not bytes and not UTF-16: the mountain before it counts once.
        assert_eq!(questions[1].answers[0], Answer { text: "snows".into(), start: 15 });
        assert!(questions[2].answers.is_empty());
        assert_eq!((questions[2].id.as_str(), questions[2].question.as_str()), ("3", "Who?"));
        assert!(Arc::ptr_eq(&questions[0].context, &questions[2].context));
    }

    #[test]
    fn bad_questions_are_errors_that_name_the_id() {
        let question = |answers: Value| json!({"id": "q", "question": "?", "answers": answers});
        let answer = |text: &str, start: usize| question(json!([{"text": text, "answer_start": start}]));
        let mut impossible = answer("In", 0);
        impossible["is_impossible"] = json!(true);
        for (question, expected) in [
            (
                answer("Zürich", 4),
                "question `q`: its answer `Zürich` is not in the context at character 4 (there: `ürich ",
            ),
            (answer("snows", 16), "question `q`: its answer `snows` is not in the context at character 16"),
            (answer("snows", 900), "is not in the context at character 900 (there: ``)"),
            (answer("", 3), "question `q`: its answer `` is not in the context"),
            (question(json!([])), "question `q`: it has no answers"),
            (impossible, "question `q`: it is marked impossible, but has answers"),
        ] {
            let error = read(&squad(json!([question]))).unwrap_err().to_string();
            assert!(error.contains("a.json, ") && error.contains(expected), "{error}");
        }
        let error = read(&squad(json!([answer("In", 0), answer("In", 0)]))).unwrap_err().to_string();
        assert!(error.contains("question `q`: another question has the same id"), "{error}");
    }

    #[test]
    fn files_without_questions_are_errors() {
        for (content, expected) in [
            ("", "a.json: it holds no rows, expected at least one question"),
            (&squad(json!([])), "a.json: it holds no rows, expected at least one question"),
            ("{}", "a.json is not valid JSON: missing field `data`"),
            ("{\"data\": [", "a.json is not valid JSON: EOF"),
            (&squad(json!([{"id": "q", "question": "?"}])), "a.json is not valid JSON: missing field `answers`"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
