//! Answers to questions about passages (SQuAD).

use std::marker::PhantomData;

use burn::tensor::Device;

use super::{Collator, Splits, indices, lengths, values};
use crate::{
    Error, Result,
    batch::Encoding,
    data::{Part, Question},
    heads::{Backbone, QuestionAnswering},
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation},
    training::{
        metrics::{Metrics, SpanAnswers},
        objective::SpanLabels,
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// The longest answer that is looked for, in tokens (as in SQuAD's usual evaluation).
const LONGEST_ANSWER: usize = 30;

/// Questions, and the overlapping windows that their passages were cut into.
#[derive(Clone, Debug)]
pub struct AnsweringData {
    questions: Vec<Question>,
    windows: Vec<Encoding>,
    /// First and last token of the answer in each window; both 0, the first special token, where it holds none.
    spans: Vec<(usize, usize)>,
}

impl AnsweringData {
    /// Encodes questions with windows of `max_length` tokens that overlap by `stride`.
    ///
    /// # Errors
    /// A question that leaves no room for its passage.
    pub fn new(tokenizer: &Tokenizer, questions: Vec<Question>, max_length: usize, stride: usize) -> Result<Self> {
        let texts: Vec<Text<'_>> = questions
            .iter()
            .map(|question| Text::from((question.question.as_str(), question.context.as_ref())))
            .collect();
        let options = EncodeOptions {
            max_length,
            truncation: Truncation::OnlySecond,
            stride: Some(stride),
            ..EncodeOptions::default()
        };
        let windows = tokenizer.encode(&texts, &options)?;
        drop(texts);
        let spans = windows.iter().map(|window| answer_span(window, &questions[window.text])).collect();
        Ok(Self { questions, windows, spans })
    }
}

/// The tokens of a window's passage.
fn passage(window: &Encoding) -> impl DoubleEndedIterator<Item = usize> + '_ {
    (0..window.len()).filter(|token| window.sequence_ids[*token] == Some(1))
}

/// The first and last token of the question's first answer in the window.
fn answer_span(window: &Encoding, question: &Question) -> (usize, usize) {
    let Some(answer) = question.answers.first().filter(|_| !question.impossible) else { return (0, 0) };
    let (start, end) = (answer.start, answer.start + answer.text.chars().count());
    let first = passage(window).find(|token| window.offsets[*token].1 > start);
    let last = passage(window).rev().find(|token| window.offsets[*token].0 < end);
    match (first, last) {
        // The window has to hold the whole answer.
        (Some(first), Some(last))
            if first <= last && window.offsets[first].0 <= start && window.offsets[last].1 >= end =>
        {
            (first, last)
        }
        _ => (0, 0),
    }
}

/// Fine-tunes a [`QuestionAnswering`].
#[derive(Clone, Debug)]
pub struct AnsweringTask<B> {
    collator: Collator,
    data: Splits<AnsweringData>,
    backbone: PhantomData<B>,
}

impl<B: Backbone> AnsweringTask<B> {
    /// Puts data and model together.
    pub fn new(collator: Collator, data: Splits<AnsweringData>) -> Self {
        Self { collator, data, backbone: PhantomData }
    }

    /// How good a model is on some questions. No answer is given where the first token's score is above that of the best
    /// span, if some question has none.
    ///
    /// # Errors
    /// A window that the model cannot take.
    pub fn score(&self, model: &QuestionAnswering<B>, data: &AnsweringData, device: &Device) -> Result<Metrics> {
        let read = |tensor: burn::Tensor<2>| {
            let [_, length] = tensor.dims();
            Ok::<_, Error>(values(tensor)?.chunks(length).map(<[f32]>::to_vec).collect::<Vec<_>>())
        };
        let scores: Vec<(Vec<f32>, Vec<f32>)> = self.collator.evaluate(&data.windows, device, |input| {
            let logits = model.forward(input);
            Ok(read(logits.start)?.into_iter().zip(read(logits.end)?).collect())
        })?;
        let may_be_impossible = data.questions.iter().any(|question| question.impossible);
        let mut best: Vec<(f32, String)> = vec![(f32::NEG_INFINITY, String::new()); data.questions.len()];
        let mut null = vec![f32::INFINITY; data.questions.len()];
        for (window, (start, end)) in data.windows.iter().zip(&scores) {
            let question = &data.questions[window.text];
            null[window.text] = null[window.text].min(start[0] + end[0]);
            if let Some((score, first, last)) = best_span(window, start, end)
                && score > best[window.text].0
            {
                let (from, to) = (window.offsets[first].0, window.offsets[last].1);
                let text = question.context.chars().skip(from).take(to - from).collect();
                best[window.text] = (score, text);
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
        Ok(SpanAnswers::new(&answers, &predictions)?.metrics())
    }
}

/// The span of the passage with the highest sum of scores: the sum, its first and its last token.
fn best_span(window: &Encoding, start: &[f32], end: &[f32]) -> Option<(f32, usize, usize)> {
    let tokens: Vec<usize> = passage(window).collect();
    let spans = tokens.iter().enumerate().flat_map(|(index, first)| {
        let last = tokens[index..].iter().take(LONGEST_ANSWER);
        last.map(|last| (start[*first] + end[*last], *first, *last))
    });
    spans.max_by(|a, b| a.0.total_cmp(&b.0))
}

impl<B: Backbone> Task for AnsweringTask<B> {
    type Learner = Trainer<QuestionAnswering<B>>;

    fn lengths(&self) -> Vec<usize> {
        lengths(&self.data.train.windows)
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let input = self.collator.input(examples.iter().map(|index| &self.data.train.windows[*index]), device)?;
        let spans = || examples.iter().map(|index| self.data.train.spans[*index]);
        let (starts, ends) = (spans().map(|span| span.0), spans().map(|span| span.1));
        Ok((input, SpanLabels { starts: indices(starts, device), ends: indices(ends, device) }))
    }

    fn evaluate(&self, model: &QuestionAnswering<B>, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
