//! Answers to questions, compared as SQuAD's official evaluation does (Rajpurkar et al. 2018, "Know What You Don't Know",
//! `evaluate-v2.0.py`).

use std::collections::HashMap;

use super::{Counts, Metrics, Score, check_lengths, counts::ratio};
use crate::Result;

/// Predictions of one answer for each question; an empty text means "no answer".
///
/// The same rules serve SQuAD 1.1 and 2.0. The two programs differ only if an answer is empty after normalisation; in
/// that case the rules of version 2.0 apply.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerSpans {
    answerable: Group,
    unanswerable: Group,
}

impl AnswerSpans {
    /// Compares each question's prediction with all its right answers; the best match counts. For a question without
    /// answers (or with none left after normalisation), only the empty text is right.
    ///
    /// # Errors
    /// No questions, or another number of predictions.
    pub fn new<S: AsRef<str>>(answers: &[Vec<S>], predictions: &[S]) -> Result<Self> {
        check_lengths("question answering metrics", answers.len(), predictions.len())?;
        let mut evaluation = Self { answerable: Group::default(), unanswerable: Group::default() };
        for (answers, prediction) in answers.iter().zip(predictions) {
            let group = if answers.is_empty() { &mut evaluation.unanswerable } else { &mut evaluation.answerable };
            let answers: Vec<&str> =
                answers.iter().map(S::as_ref).filter(|answer| !normalise(answer).is_empty()).collect();
            group.add(if answers.is_empty() { &[""] } else { &answers }, prediction.as_ref());
        }
        Ok(evaluation)
    }

    /// All questions.
    pub fn overall(&self) -> Group {
        let (left, right) = (self.answerable, self.unanswerable);
        Group {
            questions: left.questions + right.questions,
            exact: left.exact + right.exact,
            f1: left.f1 + right.f1,
            empty: left.empty + right.empty,
        }
    }

    /// The questions that have answers: `HasAns` in the official evaluation.
    pub fn answerable(&self) -> Group {
        self.answerable
    }

    /// The questions that have none: `NoAns` in the official evaluation.
    pub fn unanswerable(&self) -> Group {
        self.unanswerable
    }

    /// Overall `f1` and `exact_match`; if there are questions of both kinds, also the figures of each kind, as
    /// `has_answer_f1`, `no_answer_f1` and so on. Beside each is the figure of a model that never answers. The overall
    /// F1 selects.
    pub fn metrics(&self) -> Metrics {
        let score =
            |name: String, group: Group, value| Score::highest(name, value).with_baseline(group.never_baseline());
        let overall = self.overall();
        let mut metrics = Metrics::new(score("f1".into(), overall, overall.f1())).with(score(
            "exact_match".into(),
            overall,
            overall.exact_match(),
        ));
        if self.answerable.questions > 0 && self.unanswerable.questions > 0 {
            for (name, group) in [("has_answer", self.answerable), ("no_answer", self.unanswerable)] {
                metrics = metrics.with(score(format!("{name}_f1"), group, group.f1())).with(score(
                    format!("{name}_exact_match"),
                    group,
                    group.exact_match(),
                ));
            }
        }
        metrics
    }
}

/// Questions that are evaluated together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    /// Number of questions.
    questions: usize,
    /// Predictions that match exactly.
    exact: usize,
    /// Sum of the predictions' F1.
    f1: f64,
    /// Questions that have no answer.
    empty: usize,
}

impl Group {
    /// Number of questions.
    pub fn questions(&self) -> usize {
        self.questions
    }

    /// The share of predictions that equal an answer; 0 if there are no questions.
    pub fn exact_match(&self) -> f64 {
        ratio(self.exact, self.questions)
    }

    /// The mean F1 of the predictions' words; 0 if there are no questions.
    pub fn f1(&self) -> f64 {
        if self.questions == 0 { 0.0 } else { self.f1 / self.questions as f64 }
    }

    /// Exact match and F1 of a model that never answers: the share of questions that have no answer.
    pub fn never_baseline(&self) -> f64 {
        ratio(self.empty, self.questions)
    }

    /// Counts one question with at least one answer.
    fn add(&mut self, answers: &[&str], prediction: &str) {
        self.questions += 1;
        self.exact += usize::from(answers.iter().any(|answer| exact_match(answer, prediction)));
        self.f1 += answers.iter().map(|answer| f1(answer, prediction)).fold(0.0, f64::max);
        self.empty += usize::from(answers.iter().any(|answer| exact_match(answer, "")));
    }
}

/// The form in which answers are compared: lower case, without ASCII punctuation, without the articles a, an and the,
/// with single spaces.
pub fn normalise(text: &str) -> String {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut without_articles = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    // Words end where `\b` of a regular expression matches, also at dashes and quotation marks beyond ASCII.
    while let Some(first) = rest.chars().next() {
        let in_word = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != in_word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        without_articles.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = after;
    }
    let words: Vec<&str> = without_articles.split(is_space).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Whether two answers are the same after normalisation.
pub fn exact_match(answer: &str, prediction: &str) -> bool {
    normalise(answer) == normalise(prediction)
}

/// F1 of the predicted words and the answer's words, after normalisation and in any order. If both have no words it is
/// 1; if only one of them has none, it is 0.
pub fn f1(answer: &str, prediction: &str) -> f64 {
    let (answer, prediction) = (normalise(answer), normalise(prediction));
    if answer.is_empty() || prediction.is_empty() {
        return if answer == prediction { 1.0 } else { 0.0 };
    }
    let mut open = HashMap::<&str, usize>::new();
    for word in answer.split(' ') {
        *open.entry(word).or_default() += 1;
    }
    let mut counts = Counts { targets: answer.split(' ').count(), ..Counts::default() };
    for word in prediction.split(' ') {
        counts.predictions += 1;
        if let Some(left) = open.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            counts.correct += 1;
        }
    }
    counts.f1()
}

/// White space as Python's `str.split` has it: Unicode's, and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Expected values of these tests: the functions of the official evaluate-v2.0.py, run by Python 3.11.
    #[test]
    fn normalises_as_the_official_evaluation() {
        for (text, expected) in [
            ("The  Eiffel Tower!", "eiffel tower"),
            ("an  A-Team, the\tother", "ateam other"),
            ("the “the” end—a start", "“ ” end— start"),
            ("İSTANBUL’s the\u{1c}end", "i\u{307}stanbul’s end"),
            ("U.S. $1,000.50", "us 100050"),
            ("Theatre and Anna", "theatre and anna"),
            ("THE", ""),
            ("a_b the_end", "ab theend"),
            ("ΟΔΟΣ the's a\u{301}", "οδος thes \u{301}"),
        ] {
            assert_eq!(normalise(text), expected);
        }
    }

    #[test]
    fn compares_words_as_the_official_evaluation() {
        for (answer, prediction, same, expected) in [
            ("the big red dog", "a red dog ran", false, 0.6666666666666666),
            ("to be or not to be", "be be be to", false, 0.6),
            ("cat", "dog", false, 0.0),
            ("", "x", false, 0.0),
            ("", "the", true, 1.0),
            ("x", "", false, 0.0),
        ] {
            assert_eq!(exact_match(answer, prediction), same, "{answer:?}, {prediction:?}");
            // One division instead of three.
            assert!((f1(answer, prediction) - expected).abs() < 1e-15, "{answer:?}, {prediction:?}");
        }
    }

    #[test]
    fn evaluates_as_the_official_evaluation() {
        let (answers, predictions): (Vec<_>, Vec<_>) = [
            (vec!["Denver Broncos", "The Broncos"], "the Denver Broncos."),
            (vec!["in 1999", "1999"], "late 1999"),
            (vec!["gold"], ""),
            (vec![], ""),
            (vec![], "something"),
            // It has answers, but they are empty after normalisation.
            (vec!["the", "!"], ""),
            (vec!["two words here"], "two words"),
        ]
        .into_iter()
        .unzip();
        let evaluation = AnswerSpans::new(&answers, &predictions).unwrap();
        let metrics = evaluation.metrics();
        for (name, expected) in [
            ("f1", 0.6380952380952382),
            ("exact_match", 0.42857142857142855),
            ("has_answer_f1", 0.6933333333333334),
            ("has_answer_exact_match", 0.4),
            ("no_answer_f1", 0.5),
            ("no_answer_exact_match", 0.5),
        ] {
            // Sums of at most seven numbers between 0 and 1.
            assert!((metrics.get(name).unwrap() - expected).abs() < 1e-14, "{name}");
        }
        assert_eq!((evaluation.answerable().questions(), evaluation.unanswerable().questions()), (5, 2));
        let baselines: Vec<_> = metrics.scores().iter().map(|score| score.baseline.unwrap()).collect();
        assert_eq!(baselines, [3.0 / 7.0, 3.0 / 7.0, 0.2, 0.2, 1.0, 1.0]);
        assert_eq!(metrics.selected().name, "f1");
    }

    #[test]
    fn breaks_down_only_where_there_are_both_kinds() {
        let metrics = AnswerSpans::new(&[vec!["x"]], &["x"]).unwrap().metrics();
        assert_eq!(serde_json::to_string(&metrics).unwrap(), r#"{"f1":1.0,"exact_match":1.0}"#);
        assert!(AnswerSpans::new(&[vec!["x"]], &[]).is_err());
    }

    proptest! {
        #[test]
        fn normal_text_stays(text in "[ a-zA-Z’'\"—éİΣ\t.]{0,30}") {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }

        #[test]
        fn f1_is_bounded_symmetric_and_blind_to_order(left in "[abx ]{0,12}", right in "[abx ]{0,12}") {
            let value = f1(&left, &right);
            prop_assert!((0.0..=1.0).contains(&value));
            prop_assert_eq!(f1(&right, &left), value);
            let reversed: Vec<_> = right.split(' ').rev().collect();
            prop_assert_eq!(f1(&left, &reversed.join(" ")), value);
            prop_assert!(!exact_match(&left, &right) || value == 1.0);
        }

        #[test]
        fn the_answer_itself_is_perfect(answers in prop::collection::vec("[a-e ]{0,9}", 1..5)) {
            let metrics = AnswerSpans::new(std::slice::from_ref(&answers), &answers[..1]).unwrap();
            // If one answer is empty after normalisation and another is not, the empty one does not count.
            let lost = normalise(&answers[0]).is_empty() && answers.iter().any(|answer| !normalise(answer).is_empty());
            prop_assert_eq!(metrics.overall().f1(), f64::from(!lost));
            prop_assert_eq!(metrics.overall().exact_match(), f64::from(!lost));
        }
    }
}
