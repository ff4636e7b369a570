//! Passages by their relevance to a query: cross-encoders with one output.

use std::{ops::Range, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Collator, Splits, lengths, rows};
use crate::{
    Error, Result,
    batch::{Encoding, Truncated},
    data::{Part, RankedQuery},
    heads::{RankedLists, SequenceClassification, SequenceLabels},
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation},
    training::{
        metrics::{Metrics, Ranking},
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// What a cross-encoder learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankingLoss {
    /// Each passage by itself: binary cross entropy of its score, towards its relevance from 0 to 1.
    Pointwise,
    /// All passages of a query together: cross entropy of the softmax over their scores, towards their shares of the
    /// relevance (ListNet, Cao and others, ICML 2007).
    Listwise,
}

/// Queries with their passages.
#[derive(Clone, Debug)]
pub struct RankingExamples {
    /// Each query with each of its passages.
    encodings: Vec<Encoding>,
    /// The relevance of each.
    relevance: Vec<f32>,
    /// The passages of each query.
    queries: Vec<Range<usize>>,
}

/// Fine-tunes a [`SequenceClassification`] with one output to rank passages.
#[derive(Clone, Debug)]
pub struct RankingTask {
    collator: Collator,
    data: Splits<RankingExamples>,
    loss: RankingLoss,
}

impl RankingTask {
    /// Puts data and model together.
    pub fn new(collator: Collator, data: Splits<RankingExamples>, loss: RankingLoss) -> Self {
        Self { collator, data, loss }
    }

    /// Encodes the queries of the file at `path` with their passages, of which those that are too long are cut.
    ///
    /// # Errors
    /// No relevant passage at all; a query that leaves no room for a passage; in the data to learn from (`is_train`), for the
    /// pointwise loss a relevance above 1, for the listwise one a query without a relevant passage.
    pub fn examples(
        tokenizer: &Tokenizer,
        rows: &[RankedQuery],
        max_length: usize,
        (loss, is_train): (RankingLoss, bool),
        path: &Path,
    ) -> Result<RankingExamples> {
        let relevance: Vec<f32> = rows.iter().flat_map(|row| row.passages.iter().map(|passage| passage.1)).collect();
        for row in rows.iter().filter(|_| is_train) {
            let of = row.passages.iter().map(|passage| passage.1);
            let problem = match loss {
                RankingLoss::Pointwise if of.clone().any(|relevance| relevance > 1.0) => {
                    "it has a label above 1, expected labels from 0 to 1 (or the listwise loss)"
                }
                RankingLoss::Listwise if !of.clone().any(|relevance| relevance > 0.0) => {
                    "none of the query's labels is above 0, expected a relevant passage (or the pointwise loss)"
                }
                _ => continue,
            };
            return Err(Error::line(path, row.line, problem));
        }
        if !relevance.iter().any(|relevance| *relevance > 0.0) {
            let problem = "no query has a relevant passage, expected at least one label above 0";
            return Err(Error::file(path, problem));
        }
        let pairs = rows.iter().flat_map(|row| row.passages.iter().map(move |passage| (row, passage)));
        let texts: Vec<_> = pairs.clone().map(|(row, (passage, _))| Text::from((&row.query, passage))).collect();
        let options = EncodeOptions { max_length, truncation: Truncation::OnlySecond, ..EncodeOptions::default() };
        let lines: Vec<_> = pairs.map(|(row, _)| row.line).collect();
        let encodings = tokenizer.encode(&texts, &options).map_err(|error| {
            error.with_text_name(|pair| format!("{}, query of line {}", path.display(), lines[pair]))
        })?;
        let mut end = 0;
        let queries = rows.iter().map(|row| {
            let start = end;
            end += row.passages.len();
            start..end
        });
        let queries = queries.collect();
        Ok(RankingExamples { encodings, relevance, queries })
    }

    /// Tokens of the pairs that make a training example.
    fn pairs(&self) -> impl Iterator<Item = Vec<usize>> {
        let RankingExamples { encodings, queries, .. } = &self.data.train;
        let lengths = lengths(encodings);
        let examples = match self.loss {
            RankingLoss::Pointwise => (0..encodings.len()).map(|pair| pair..pair + 1).collect(),
            RankingLoss::Listwise => queries.clone(),
        };
        examples.into_iter().map(move |example| lengths[example].to_vec())
    }

    /// The figures of a model on some examples.
    ///
    /// # Errors
    /// An example that the model cannot take, or no relevant passage at all.
    pub fn score(
        &self,
        model: &SequenceClassification,
        examples: &RankingExamples,
        device: &Device,
    ) -> Result<Metrics> {
        let scores = self.collator.evaluate(&examples.encodings, device, |input| rows(model.forward(input)))?;
        let pairs: Vec<_> = examples.relevance.iter().copied().zip(scores.concat()).collect();
        Ok(Ranking::new(examples.queries.iter().map(|query| &pairs[query.clone()]))?.metrics())
    }
}

impl RankingExamples {
    /// The labels of whole queries, whose passages follow each other in the batch.
    fn lists(&self, queries: &[usize], device: &Device) -> SequenceLabels {
        let ranges: Vec<_> = queries.iter().map(|query| self.queries[*query].clone()).collect();
        let longest = ranges.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let (mut rows, mut targets, mut mask) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for range in ranges {
            let (count, relevance) = (range.len(), &self.relevance[range]);
            let sum: f32 = relevance.iter().sum();
            // What is beyond the list is any row, and counts nothing.
            rows.extend((0..longest).map(|place| if place < count { (first + place) as i64 } else { 0 }));
            targets.extend((0..longest).map(|place| relevance.get(place).map_or(0.0, |relevance| relevance / sum)));
            mask.extend((0..longest).map(|place| place < count));
            first += count;
        }
        let shape = [queries.len(), longest];
        SequenceLabels::Lists(RankedLists {
            rows: Tensor::from_data(TensorData::new(rows, shape), device),
            targets: Tensor::from_data(TensorData::new(targets, shape), device),
            mask: Tensor::from_data(TensorData::new(mask, shape), device),
        })
    }
}

impl Task for RankingTask {
    type Learner = Trainer<SequenceClassification>;

    /// For lists, the length of the longest pair.
    fn lengths(&self) -> Vec<usize> {
        self.pairs().map(|pairs| pairs.iter().copied().max().unwrap_or(0)).collect()
    }

    fn tokens(&self) -> Vec<usize> {
        self.pairs().map(|pairs| pairs.iter().sum()).collect()
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let data = &self.data.train;
        let (pairs, labels): (Vec<usize>, _) = match self.loss {
            RankingLoss::Pointwise => {
                let targets: Vec<f32> = examples.iter().map(|pair| data.relevance[*pair]).collect();
                let targets = Tensor::from_data(TensorData::new(targets, [examples.len(), 1]), device);
                (examples.to_vec(), SequenceLabels::MultiHot(targets))
            }
            RankingLoss::Listwise => {
                let pairs = examples.iter().flat_map(|query| data.queries[*query].clone()).collect();
                (pairs, data.lists(examples, device))
            }
        };
        Ok((self.collator.input(pairs.iter().map(|pair| &data.encodings[*pair]), device)?, labels))
    }

    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        let parts = [Some(&self.data.train), self.data.valid.as_ref(), self.data.test.as_ref()].into_iter().flatten();
        let counts = parts.filter_map(|part| Truncated::count(&part.encodings, max_length));
        counts.reduce(|sum, part| Truncated { texts: sum.texts + part.texts, ..sum })
    }

    fn evaluate(&self, model: &SequenceClassification, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
