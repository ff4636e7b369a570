//! A tag for each word, such as named entities.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Collator, Examples, Splits, lengths, rows};
use crate::{
    Result,
    batch::{Encoding, Truncated},
    data::{LabelSet, Part, Sentence, tag_indices},
    heads::TokenClassification,
    scores::argmax,
    tokenizer::{EncodeOptions, Text, Tokenizer},
    training::{
        metrics::{Entities, Metrics},
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// Fine-tunes a [`TokenClassification`]. The first token of a word has the word's tag, the other tokens have none.
#[derive(Clone, Debug)]
pub struct TaggingTask {
    collator: Collator,
    labels: LabelSet,
    data: Splits<Examples<Vec<usize>>>,
}

impl TaggingTask {
    /// Puts data and model together; the labels are those of the configuration, in its order.
    pub fn new(collator: Collator, labels: LabelSet, data: Splits<Examples<Vec<usize>>>) -> Self {
        Self { collator, labels, data }
    }

    /// Encodes sentences; words beyond `max_length` tokens are cut off.
    ///
    /// # Errors
    /// A tag that is not among the labels; `path` is the sentences' file.
    pub fn examples(
        tokenizer: &Tokenizer,
        sentences: &[Sentence],
        labels: &LabelSet,
        max_length: usize,
        path: &std::path::Path,
    ) -> Result<Examples<Vec<usize>>> {
        let targets = tag_indices(sentences, labels, path)?;
        let texts: Vec<_> =
            sentences.iter().map(|sentence| Text::words(sentence.words.iter().map(String::as_str))).collect();
        let options = EncodeOptions { max_length, ..EncodeOptions::default() };
        Ok(Examples { encodings: tokenizer.encode(&texts, &options)?, targets })
    }

    /// The figures of a model on some examples. Words that were cut off count as outside of every entity.
    ///
    /// # Errors
    /// An example that the model cannot take.
    pub fn score(
        &self,
        model: &TokenClassification,
        examples: &Examples<Vec<usize>>,
        device: &Device,
    ) -> Result<Metrics> {
        let labels = self.labels.names().len();
        let rows: Vec<Vec<usize>> = self.collator.evaluate(&examples.encodings, device, |input| {
            let tokens = rows(model.forward(input))?;
            Ok(tokens.iter().map(|logits| logits.chunks(labels).map(argmax).collect()).collect())
        })?;
        let name = |label: &usize| self.labels.names()[*label].clone();
        let predictions =
            examples.encodings.iter().zip(&rows).zip(&examples.targets).map(|((encoding, row), target)| {
                let mut tags = vec!["O".to_owned(); target.len()];
                for (token, word) in first_tokens(encoding) {
                    tags[word] = name(&row[token]);
                }
                tags
            });
        let targets: Vec<Vec<String>> = examples.targets.iter().map(|tags| tags.iter().map(name).collect()).collect();
        Ok(Entities::new(&targets, &predictions.collect::<Vec<_>>())?.metrics())
    }
}

/// The first token of each word, and the word.
fn first_tokens(encoding: &Encoding) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut previous = None;
    encoding.word_ids.iter().enumerate().filter_map(move |(token, word)| {
        let first = word.filter(|word| previous != Some(*word));
        previous = word.or(previous);
        first.map(|word| (token, word as usize))
    })
}

impl Task for TaggingTask {
    type Learner = Trainer<TokenClassification>;

    fn lengths(&self) -> Vec<usize> {
        lengths(&self.data.train.encodings)
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let input = self.collator.input(examples.iter().map(|index| &self.data.train.encodings[*index]), device)?;
        let [rows, length] = input.input_ids.dims();
        // A negative label is ignored by the loss.
        let mut labels = vec![-100i32; rows * length];
        for (row, example) in examples.iter().enumerate() {
            for (token, word) in first_tokens(&self.data.train.encodings[*example]) {
                labels[row * length + token] = self.data.train.targets[*example][word] as i32;
            }
        }
        Ok((input, Tensor::from_data(TensorData::new(labels, [rows, length]), device)))
    }

    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        self.data.truncated(max_length)
    }

    fn evaluate(&self, model: &TokenClassification, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
