//! Answers that are spans of a context (extractive question answering, SQuAD 1 and 2).

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};

use super::{Pipeline, PipelineOptions, Runner, runner::characters};
use crate::{
    Error, Result,
    answer_spans::{AnswerSpan, LONGEST_ANSWER, ScoredWindow, passage},
    batch::Encoding,
    checkpoint::LoadReport,
    heads::{AnswerLogits, QuestionAnswering},
    model::inference::Prepared,
    scores::{log_sum_exp, rows, sort_by_score},
    tokenizer::{Truncation, default_stride},
};

/// A question and the text that holds its answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// What is asked.
    pub question: String,
    /// Where the answer is looked for; any length.
    pub context: String,
}

/// How answers are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerOptions {
    /// How many spans are returned, at most.
    pub top_k: usize,
    /// The longest answer in tokens.
    pub max_answer_tokens: usize,
    /// Overlap of the windows of a long context, in tokens; if none, a quarter of the maximal length.
    pub stride: Option<usize>,
    /// For models trained on questions without an answer (SQuAD 2). A question has no answer if `[CLS]` scores higher
    /// than the best span by more than this; with 0 the higher score decides. If no threshold is given, there always is
    /// an answer.
    pub no_answer_threshold: Option<f32>,
}

impl Default for AnswerOptions {
    /// The best span of up to 30 tokens; there always is an answer.
    fn default() -> Self {
        Self { top_k: 1, max_answer_tokens: LONGEST_ANSWER, stride: None, no_answer_threshold: None }
    }
}

/// A question, and how it is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerRequest {
    /// The question with its context.
    pub question: Question,
    /// How its answers are looked for.
    pub options: AnswerOptions,
}

/// What was found for one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answers {
    /// Whether the context has no answer, according to the model; always false without
    /// [`AnswerOptions::no_answer_threshold`].
    pub no_answer: bool,
    /// The score of "no answer" (`[CLS]` as start and end; the lowest score of all windows) minus that of the best
    /// span. It only has a meaning for models trained on questions without an answer.
    pub no_answer_margin: f32,
    /// The best spans, highest score first.
    pub spans: Vec<Answer>,
}

/// A span of the context.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Its text in the context.
    pub text: String,
    /// Its first character in the context, counted in Unicode scalar values.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
    /// The logit of its first token as start plus that of its last as end.
    pub score: f32,
    /// The probability of its start and end (taken as independent) among all pairs of all windows.
    pub probability: f32,
}

/// Questions with contexts in, answers out.
pub struct QuestionAnswerer {
    runner: Runner,
    head: Prepared<QuestionAnswering>,
}

impl QuestionAnswerer {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// A missing or damaged file, a checkpoint of another task or without the head (`qa_outputs.*`), or options that do not
    /// fit the model.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let (runner, head) = Runner::open(folder.as_ref(), options)?;
        Ok(Self { runner, head })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.runner.report()
    }

    /// Finds the answers to every question. A long context is read in overlapping windows, and the spans of all of them
    /// compete by score.
    ///
    /// # Errors
    /// No question at all, an empty question or context, a question that leaves no room for the context, impossible
    /// options, or scores that are not finite.
    pub fn answer(&self, questions: &[Question], options: &AnswerOptions) -> Result<Vec<Answers>> {
        let request = |question: &Question| AnswerRequest { question: question.clone(), options: *options };
        self.run(&questions.iter().map(request).collect::<Vec<_>>())
    }
}

impl Pipeline for QuestionAnswerer {
    type Request = AnswerRequest;
    type Answer = Answers;

    fn runner(&self) -> &Runner {
        &self.runner
    }

    fn encode(&self, request: &AnswerRequest) -> Result<Vec<Encoding>> {
        let AnswerRequest { question: Question { question, context }, options } = request;
        if options.top_k == 0 || options.max_answer_tokens == 0 {
            return Err(Error::setting("answer options", "top_k and max_answer_tokens must be at least 1"));
        }
        for (name, text) in [("question", question), ("context", context)] {
            if text.trim().is_empty() {
                return Err(Error::text(0, format!("its {name} is empty")));
            }
        }
        let stride = options.stride.unwrap_or(default_stride(self.runner.max_length()));
        self.runner.encode(&[(question, context).into()], Truncation::OnlySecond, Some(stride))
    }

    /// The rows have the start logits of each token, then the end logits.
    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        let AnswerLogits { start, end } = self.head.forward(self.runner.input(batch)?);
        let both = batch.iter().zip(rows(start)?).zip(rows(end)?);
        Ok(both.map(|((window, start), end)| [&start[..window.len()], &end[..window.len()]].concat()).collect())
    }

    fn decode(&self, request: &AnswerRequest, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Answers> {
        self.runner.check_finite(sequences, &rows)?;
        let windows = sequences.iter().zip(&rows).map(|(encoding, scores)| {
            let (start, end) = scores.split_at(encoding.len());
            ScoredWindow { encoding, start, end }
        });
        let windows: Vec<ScoredWindow> = windows.collect();
        best_answers(&request.question.context, &windows, &request.options)
            .ok_or_else(|| Error::text(0, "its context holds no token to answer with"))
    }

    fn name(request: usize, _text: usize) -> String {
        format!("question {request}")
    }
}

/// ln of the sum of exp(score) over all pairs of a start and an end in a window, with or without "no answer".
fn log_norm(window: &ScoredWindow, with_null: bool) -> f64 {
    let side = |logits: &[f32]| {
        let null = with_null.then_some(0).into_iter();
        log_sum_exp(null.chain(passage(window.encoding)).map(|token| logits[token]))
    };
    side(window.start) + side(window.end)
}

/// The best spans of a question's windows; none if the context has no token.
fn best_answers(context: &str, windows: &[ScoredWindow], options: &AnswerOptions) -> Option<Answers> {
    let mut spans: Vec<AnswerSpan> =
        windows.iter().flat_map(|window| window.spans(options.max_answer_tokens)).collect();
    sort_by_score(&mut spans, |span| span.score);
    let best = spans.first()?.score;
    let null = windows.iter().map(|window| window.null_score()).fold(f32::INFINITY, f32::min);

    let with_null = options.no_answer_threshold.is_some();
    let norms: Vec<f64> = windows.iter().map(|window| log_norm(window, with_null)).collect();
    let largest = norms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_norm = largest + norms.iter().map(|norm| (norm - largest).exp()).sum::<f64>().ln();

    // Neighbouring windows have spans in common.
    let mut seen = BTreeSet::new();
    let answer = |AnswerSpan { score, from, to }: AnswerSpan| Answer {
        text: characters(context, from, to),
        start: from,
        end: to,
        score,
        probability: (f64::from(score) - log_norm).exp() as f32,
    };
    Some(Answers {
        no_answer: options.no_answer_threshold.is_some_and(|threshold| null - best > threshold),
        no_answer_margin: null - best,
        spans: spans
            .into_iter()
            .filter(|span| seen.insert((span.from, span.to)))
            .take(options.top_k)
            .map(answer)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One window with the scores of its tokens.
    struct Window {
        encoding: Encoding,
        start: [f32; 7],
        end: [f32; 7],
    }

    /// `[CLS] who [SEP] a b c [SEP]` with these logits, the context's words being those from `first` on.
    fn window(window: usize, first: usize, start: [f32; 7], end: [f32; 7]) -> Window {
        let word = |index: usize| (2 * (first + index), 2 * (first + index) + 1);
        let encoding = Encoding {
            window,
            ids: vec![0; 7],
            offsets: vec![(0, 0), (0, 3), (0, 0), word(0), word(1), word(2), (0, 0)],
            sequence_ids: vec![None, Some(0), None, Some(1), Some(1), Some(1), None],
            special: vec![true, false, true, false, false, false, true],
            ..Encoding::default()
        };
        Window { encoding, start, end }
    }

    fn answers(windows: &[Window], options: AnswerOptions) -> Answers {
        let scored: Vec<ScoredWindow> =
            windows.iter().map(|Window { encoding, start, end }| ScoredWindow { encoding, start, end }).collect();
        best_answers("ä b c d e", &scored, &options).expect("a context")
    }

    #[test]
    fn spans_stay_in_the_context_and_in_order() {
        // Question, separators and reversed pairs would all score higher.
        let start = [9.0, 9.0, 9.0, 1.0, 0.0, 5.0, 9.0];
        let end = [9.0, 9.0, 9.0, 4.0, 2.0, 0.0, 9.0];
        let found = answers(&[window(0, 0, start, end)], AnswerOptions { top_k: 9, ..AnswerOptions::default() });
        let texts: Vec<_> = found.spans.iter().map(|span| span.text.as_str()).collect();
        assert_eq!(texts, ["ä", "c", "ä b", "b", "ä b c", "b c"]);
        assert_eq!((found.spans[2].start, found.spans[2].end, found.spans[2].score), (0, 3, 3.0));
        assert!(!found.no_answer);
    }

    #[test]
    fn answers_have_a_longest_length() {
        let window = window(0, 0, [0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 5.0, 0.0]);
        let longest = |tokens| AnswerOptions { max_answer_tokens: tokens, ..AnswerOptions::default() };
        assert_eq!(answers(&[window], longest(3)).spans[0].text, "ä b c");
        let window = self::window(0, 0, [0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 5.0, 0.0]);
        assert_eq!(answers(&[window], longest(usize::MAX)).spans[0].text, "ä b c");
        let window = self::window(0, 0, [0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 0.0]);
        assert_eq!(answers(&[window], longest(2)).spans[0].text, "ä b");
    }

    #[test]
    fn windows_compete_and_share_spans() {
        let flat = [0.0; 7];
        let left = window(0, 0, flat, [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
        let right = window(1, 2, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0, 0.0, 4.0, 0.0]);
        let found = answers(&[left, right], AnswerOptions { top_k: 20, ..AnswerOptions::default() });
        assert_eq!((found.spans[0].text.as_str(), found.spans[0].score), ("c d e", 5.0));
        // "c" is in both windows, once with 2 and once with 3.
        let c: Vec<_> = found.spans.iter().filter(|span| span.text == "c").map(|span| span.score).collect();
        assert_eq!(c, [3.0]);
    }

    #[test]
    fn no_answer_is_told_where_it_is_asked_for() {
        let logits = [2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
        let threshold = |no_answer_threshold| AnswerOptions { no_answer_threshold, ..AnswerOptions::default() };
        for (asked, told) in [(None, false), (Some(0.0), true), (Some(2.5), false)] {
            let found = answers(&[window(0, 0, logits, logits)], threshold(asked));
            assert_eq!((found.no_answer, found.no_answer_margin), (told, 2.0), "{asked:?}");
        }
    }

    #[test]
    fn probabilities_of_a_window_are_those_of_start_and_end() {
        let logits = [2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
        let side = 1f64.exp() / (1f64.exp() + 2.0);
        let found = answers(&[window(0, 0, logits, logits)], AnswerOptions::default());
        assert!((f64::from(found.spans[0].probability) - side * side).abs() < 1e-6);
        let side = 1f64.exp() / (2f64.exp() + 1f64.exp() + 2.0);
        let options = AnswerOptions { no_answer_threshold: Some(0.0), ..AnswerOptions::default() };
        let found = answers(&[window(0, 0, logits, logits)], options);
        assert!((f64::from(found.spans[0].probability) - side * side).abs() < 1e-6);
    }
}
