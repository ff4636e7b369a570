//! Questions about a passage, from SQuAD files.

use std::{collections::HashSet, path::Path, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Deserializer, Map, Value};

use super::lines::{no_rows, read_text};
use crate::{Error, Result, error};

/// A span of the context that answers the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer as it stands in the context, without white space at its ends.
    pub text: String,
    /// Its first character in the context, counted in Unicode scalar values.
    pub start: usize,
}

/// A question about a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The id that predictions refer to, unique in the file.
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

/// Reads the questions of a file, in its order. It holds either
/// - SQuAD's JSON, version 1.1 or 2.0, or
/// - rows as the `datasets` library writes them, one JSON object on each line or all in one list: `id`, `context`,
///   `question`, and `answers` as `{"text": [..], "answer_start": [..]}`, with empty lists where the question is
///   impossible.
///
/// Ids may be numbers. An impossible question may lack `answers`. White space at the ends of an answer is cut off.
///
/// # Errors
/// The file cannot be read, is not UTF-8, is not JSON of either form, or has no question; two questions have one id; a
/// question has no answer and is not marked impossible, or has one and is; an answer is blank, or is not in the context
/// at its `answer_start`.
pub fn read_squad(path: impl AsRef<Path>) -> Result<Vec<Question>> {
    let path = path.as_ref();
    let expected = "at least one question in SQuAD's format";
    let text = read_text(path, expected)?;
    let mut questions = Vec::new();
    for value in Deserializer::from_str(&text).into_iter() {
        read_value(path, value.map_err(Error::json(path.display()))?, &mut questions)?;
    }
    if questions.is_empty() {
        return Err(no_rows(path, expected));
    }
    let mut ids = HashSet::new();
    if let Some(twice) = questions.iter().find(|question| !ids.insert(question.id.as_str())) {
        let problem = "another question has the same id, expected every id once";
        return Err(in_question(path, format!("`{}`", twice.id), problem));
    }
    Ok(questions)
}

/// Reads the questions in a JSON value: a whole file, an article, a paragraph, a row, or a list of these.
fn read_value(path: &Path, value: Value, questions: &mut Vec<Question>) -> Result<()> {
    let mut object = match value {
        Value::Array(values) => return values.into_iter().try_for_each(|value| read_value(path, value, questions)),
        Value::Object(object) => object,
        other => {
            let problem = format!("it holds {other}, expected SQuAD's JSON, or an object for each question");
            return Err(Error::file(path, problem));
        }
    };
    for key in ["data", "paragraphs"] {
        if let Some(inner) = object.remove(key) {
            return read_value(path, inner, questions);
        }
    }
    let Some(qas) = object.remove("qas") else {
        questions.push(Row { path, number: questions.len(), object }.question(None)?);
        return Ok(());
    };
    let paragraph = Row { path, number: questions.len(), object };
    let context: Arc<str> = paragraph.get::<String>("context", "a text")?.into();
    let Value::Array(qas) = qas else { return Err(paragraph.problem("`qas` of its paragraph is no list".into())) };
    for question in qas {
        let Value::Object(object) = question else {
            return Err(paragraph.problem(format!("`qas` of its paragraph holds {question}, expected objects")));
        };
        questions.push(Row { path, number: questions.len(), object }.question(Some(&context))?);
    }
    Ok(())
}

/// An error about a question of a file.
fn in_question(file: &Path, name: String, problem: impl Into<String>) -> Error {
    Error::Row { file: file.display().to_string(), row: error::Row::Question(name), problem: problem.into() }
}

/// A question in the file.
struct Row<'a> {
    path: &'a Path,
    /// How many questions come before it.
    number: usize,
    object: Map<String, Value>,
}

/// One answer, in a list of answers.
#[derive(Deserialize)]
struct FileAnswer {
    text: String,
    answer_start: usize,
}

#[derive(Deserialize)]
struct AnswerColumns {
    text: Vec<String>,
    answer_start: Vec<usize>,
}

impl Row<'_> {
    /// An error that names the file and the question (by its number, if it has no id).
    fn problem(&self, problem: String) -> Error {
        let name = self.id().map_or_else(|| format!("{}", self.number + 1), |id| format!("`{id}`"));
        in_question(self.path, name, problem)
    }

    fn id(&self) -> Option<String> {
        match &self.object.get("id")? {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        }
    }

    fn parse<T: DeserializeOwned>(&self, key: &str, value: &Value, expected: &str) -> Result<T> {
        T::deserialize(value).map_err(|_| self.problem(format!("its `{key}` is {value}, expected {expected}")))
    }

    fn get<T: DeserializeOwned>(&self, key: &str, expected: &str) -> Result<T> {
        match self.object.get(key) {
            Some(value) => self.parse(key, value, expected),
            None => Err(self.problem(format!("it has no `{key}`, expected {expected}"))),
        }
    }

    /// The question, with the context of its paragraph or of its own.
    fn question(&self, context: Option<&Arc<str>>) -> Result<Question> {
        let id = self.id().ok_or_else(|| self.problem("it has no `id`, expected a text or a number".into()))?;
        let context = match context {
            Some(context) => Arc::clone(context),
            None => self.get::<String>("context", "a text")?.into(),
        };
        let expected = "a list of {\"text\": .., \"answer_start\": ..}, or {\"text\": [..], \"answer_start\": [..]}";
        let (answers, by_columns) = match self.object.get("answers") {
            None | Some(Value::Null) => (Vec::new(), false),
            Some(columns @ Value::Object(_)) => {
                let AnswerColumns { text, answer_start } = self.parse("answers", columns, expected)?;
                if text.len() != answer_start.len() {
                    let problem = format!("its `answers` have {} texts and {} starts", text.len(), answer_start.len());
                    return Err(self.problem(problem));
                }
                let answers = text.into_iter().zip(answer_start);
                (answers.map(|(text, answer_start)| FileAnswer { text, answer_start }).collect(), true)
            }
            Some(list) => (self.parse("answers", list, expected)?, false),
        };
        // Two forms lack the key: version 1.1, where all questions have answers, and the rows of `datasets`.
        let impossible = match self.object.get("is_impossible") {
            None | Some(Value::Null) => by_columns && answers.is_empty(),
            Some(value) => self.parse("is_impossible", value, "true or false")?,
        };
        if answers.is_empty() != impossible {
            let found = if impossible { "is marked impossible, but has answers" } else { "has no answers" };
            return Err(self.problem(format!("it {found}: expected answers, or `is_impossible` true and none")));
        }
        let answers = answers.into_iter().map(|answer| self.answer(answer, &context)).collect::<Result<_>>()?;
        Ok(Question { id, question: self.get("question", "a text")?, context, answers, impossible })
    }

    fn answer(&self, FileAnswer { text, answer_start }: FileAnswer, context: &str) -> Result<Answer> {
        let rest = context.char_indices().nth(answer_start).map_or("", |(byte, _)| &context[byte..]);
        if text.trim().is_empty() || !rest.starts_with(&text) {
            let there: String = rest.chars().take(text.chars().count().max(20)).collect();
            return Err(self.problem(format!(
                "its answer `{text}` is not in the context at character {answer_start} (there: `{there}`): expected a \
                 text that is not blank, and `answer_start` to count Unicode characters from 0"
            )));
        }
        let blanks = text.chars().take_while(|c| c.is_whitespace()).count();
        Ok(Answer { text: text.trim().to_owned(), start: answer_start + blanks })
    }
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
    fn rows_of_the_datasets_library_give_the_same() {
        let nested = squad(json!([
            {"id": 65723, "question": "Where?", "answers": [{"text": "Zürich", "answer_start": 3}], "is_impossible": false},
            {"id": "2", "question": "Who?", "is_impossible": true},
        ]));
        let row = |id: Value, question: &str, answers: Value| json!({"id": id, "title": "t", "context": "In Zürich 🏔 it snows.", "question": question, "answers": answers});
        let rows = [
            row(json!(65723), "Where?", json!({"text": ["Zürich"], "answer_start": [3]})),
            row(json!("2"), "Who?", json!({"text": [], "answer_start": []})),
        ];
        let expected = read(&nested).unwrap();
        assert_eq!((expected[0].id.as_str(), expected[1].impossible), ("65723", true));
        for flat in [
            format!("\u{feff}{}\r\n\n{}\n\n", rows[0], rows[1]),
            json!(rows).to_string(),
            json!({"version": 1, "data": rows}).to_string(),
        ] {
            assert_eq!(read(&flat).unwrap(), expected, "{flat}");
        }
    }

    #[test]
    fn blanks_around_an_answer_are_no_part_of_it() {
        for (text, start) in [("Zürich", 3), (" Zürich", 2), ("Zürich ", 3), (" Zürich ", 2)] {
            let content =
                squad(json!([{"id": "1", "question": "?", "answers": [{"text": text, "answer_start": start}]}]));
            assert_eq!(read(&content).unwrap()[0].answers, [Answer { text: "Zürich".into(), start: 3 }], "{text:?}");
        }
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
            (answer(" ", 2), "question `q`: its answer ` ` is not in the context"),
            (question(json!([{"text": "In", "answer_start": -1}])), "question `q`: its `answers` is [{"),
            (question(json!({"text": ["In"], "answer_start": []})), "its `answers` have 1 texts and 0 starts"),
            (json!({"id": "q", "answers": [{"text": "In", "answer_start": 0}]}), "question `q`: it has no `question`"),
            (json!({"question": "?", "answers": []}), "a.json, question 1: it has no `id`"),
            (json!({"id": "q", "question": "?"}), "question `q`: it has no answers"),
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
            ("{}", "a.json, question 1: it has no `id`"),
            ("3", "a.json: it holds 3, expected SQuAD's JSON"),
            ("{\"data\": [{\"paragraphs\": [{\"qas\": []}]}]}", "a.json, question 1: it has no `context`"),
            ("{\"data\": [", "a.json is not valid JSON: EOF"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
