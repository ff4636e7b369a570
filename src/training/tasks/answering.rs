//! Answers to questions about passages (SQuAD).

use std::path::Path;

use burn::tensor::Device;

use super::{Collator, Splits, indices, lengths, rows};
use crate::{
    Error, Result,
    answer_spans::{LONGEST_ANSWER, ScoredWindow, answer_tokens},
    batch::Encoding,
    data::{Part, Question},
    heads::QuestionAnswering,
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation, default_stride},
    training::{
        metrics::{AnswerSpans, Metrics},
        objective::AnswerLabels,
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// Questions, and the overlapping windows that their passages were cut into.
#[derive(Clone, Debug)]
pub struct AnsweringData {
    questions: Vec<Question>,
    windows: Vec<Encoding>,
    /// First and last token of the answer in each window; both are 0, the position of `[CLS]`, if the window has no
    /// answer.
    spans: Vec<(usize, usize)>,
}

impl AnsweringData {
    /// Encodes the questions of the file `path` with windows of `max_length` tokens that overlap by `stride`, by default
    /// as in inference.
    ///
    /// # Errors
    /// A question that leaves no room for its passage, or an answer without any token.
    pub fn new(
        tokenizer: &Tokenizer,
        questions: Vec<Question>,
        max_length: usize,
        stride: Option<usize>,
        path: impl AsRef<Path>,
    ) -> Result<Self> {
        let texts: Vec<Text<'_>> = questions
            .iter()
            .map(|question| Text::from((question.question.as_str(), question.context.as_ref())))
            .collect();
        let options = EncodeOptions {
            max_length,
            truncation: Truncation::OnlySecond,
            stride: Some(stride.unwrap_or(default_stride(max_length))),
            ..EncodeOptions::default()
        };
        let name = |index: usize| format!("{}, question `{}`", path.as_ref().display(), questions[index].id);
        let windows = tokenizer.encode(&texts, &options).map_err(|error| error.with_text_name(name))?;
        drop(texts);
        let mut spans = Vec::with_capacity(windows.len());
        for windows in windows.chunk_by(|first, second| first.text == second.text) {
            let index = windows[0].text;
            let Some(answer) = questions[index].answers.first() else {
                spans.extend(windows.iter().map(|_| (0, 0)));
                continue;
            };
            let characters = answer.start..answer.start + answer.text.chars().count();
            let tokens = answer_tokens(windows, characters).ok_or_else(|| {
                let problem = format!("the tokenizer leaves nothing of its answer `{}`", answer.text);
                Error::text(index, problem).with_text_name(name)
            })?;
            spans.extend(tokens.into_iter().map(|tokens| tokens.unwrap_or((0, 0))));
        }
        Ok(Self { questions, windows, spans })
    }
}

/// Fine-tunes a [`QuestionAnswering`].
#[derive(Clone, Debug)]
pub struct AnsweringTask {
    collator: Collator,
    data: Splits<AnsweringData>,
}

impl AnsweringTask {
    /// Puts data and model together.
    pub fn new(collator: Collator, data: Splits<AnsweringData>) -> Self {
        Self { collator, data }
    }

    /// The figures of a model on some questions. If the data has questions without an answer, the model gives none
    /// where `[CLS]` scores higher than the best span.
    ///
    /// # Errors
    /// A window that the model cannot take.
    pub fn score(&self, model: &QuestionAnswering, data: &AnsweringData, device: &Device) -> Result<Metrics> {
        let scores: Vec<(Vec<f32>, Vec<f32>)> = self.collator.evaluate(&data.windows, device, |input| {
            let logits = model.forward(input);
            Ok(rows(logits.start)?.into_iter().zip(rows(logits.end)?).collect())
        })?;
        let may_be_impossible = data.questions.iter().any(|question| question.impossible);
        let mut best: Vec<(f32, String)> = vec![(f32::NEG_INFINITY, String::new()); data.questions.len()];
        let mut null = vec![f32::INFINITY; data.questions.len()];
        for (encoding, (start, end)) in data.windows.iter().zip(&scores) {
            let window = ScoredWindow { encoding, start, end };
            let (question, best) = (&data.questions[encoding.text], &mut best[encoding.text]);
            null[encoding.text] = null[encoding.text].min(window.null_score());
            let span = window.spans(LONGEST_ANSWER).max_by(|a, b| a.score.total_cmp(&b.score));
            if let Some(span) = span.filter(|span| span.score > best.0) {
                let text = question.context.chars().skip(span.from).take(span.to - span.from).collect();
                *best = (span.score, text);
            }
        }
        let predictions: Vec<String> = best
            .into_iter()
            .zip(null)
            .map(|((score, text), null)| if may_be_impossible && null > score { String::new() } else { text })
            .collect();
        let answers: Vec<Vec<&str>> = data
            .questions
            .iter()
            .map(|question| match question.impossible {
                true => Vec::new(),
                false => question.answers.iter().map(|answer| answer.text.as_str()).collect(),
            })
            .collect();
        let predictions: Vec<&str> = predictions.iter().map(String::as_str).collect();
        Ok(AnswerSpans::new(&answers, &predictions)?.metrics())
    }
}

impl Task for AnsweringTask {
    type Learner = Trainer<QuestionAnswering>;

    fn lengths(&self) -> Vec<usize> {
        lengths(&self.data.train.windows)
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let input = self.collator.input(examples.iter().map(|index| &self.data.train.windows[*index]), device)?;
        let spans = || examples.iter().map(|index| self.data.train.spans[*index]);
        let (starts, ends) = (spans().map(|span| span.0), spans().map(|span| span.1));
        Ok((input, AnswerLabels { starts: indices(starts, device), ends: indices(ends, device) }))
    }

    fn evaluate(&self, model: &QuestionAnswering, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
