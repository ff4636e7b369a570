//! Vectors of texts, by pairs that belong together.

use burn::tensor::Device;

use super::{Collator, Splits, rows};
use crate::{
    Error, Result,
    batch::{Encoding, Truncated},
    data::{Part, TextPair},
    heads::TextEncoder,
    tokenizer::{EncodeOptions, Text, Tokenizer},
    training::{
        metrics::{Metrics, Retrieval, Score},
        objective::VectorLabels,
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// Encoded pairs.
#[derive(Clone, Debug)]
pub struct PairExamples {
    texts: Vec<Encoding>,
    positives: Vec<Encoding>,
    negatives: Vec<Option<Encoding>>,
}

/// Fine-tunes a [`TextEncoder`]. All other pairs of a batch are what a text has to be told apart from, so that larger batches
/// teach more.
#[derive(Clone, Debug)]
pub struct PairTask {
    collator: Collator,
    data: Splits<PairExamples>,
    sizes: Vec<usize>,
}

impl PairTask {
    /// Puts data and model together. The first numbers of each vector are trained to be vectors of their own, as many as each
    /// of `sizes` says, beside the whole vectors of `width` numbers.
    ///
    /// # Errors
    /// A size that is 0 or above `width`.
    pub fn new(collator: Collator, data: Splits<PairExamples>, width: usize, sizes: &[usize]) -> Result<Self> {
        if let Some(size) = sizes.iter().find(|size| !(1..=width).contains(*size)) {
            return Err(Error::value("--sizes", size, format!("from 1 to {width}, the numbers of a vector")));
        }
        let mut sizes: Vec<usize> = sizes.iter().copied().filter(|size| *size < width).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        Ok(Self { collator, data, sizes })
    }

    /// Encodes pairs.
    ///
    /// # Errors
    /// A text that the tokenizer cannot take.
    pub fn examples(tokenizer: &Tokenizer, pairs: &[TextPair], max_length: usize) -> Result<PairExamples> {
        let options = EncodeOptions { max_length, ..EncodeOptions::default() };
        let encode = |texts: Vec<Text<'_>>| tokenizer.encode(&texts, &options);
        let negatives: Vec<_> = pairs.iter().filter_map(|pair| pair.negative.as_ref()).map(Text::from).collect();
        let mut negatives = encode(negatives)?.into_iter();
        Ok(PairExamples {
            texts: encode(pairs.iter().map(|pair| Text::from(&pair.text)).collect())?,
            positives: encode(pairs.iter().map(|pair| Text::from(&pair.positive)).collect())?,
            negatives: pairs.iter().map(|pair| pair.negative.as_ref().and_then(|_| negatives.next())).collect(),
        })
    }

    /// The figures of a model on some examples.
    ///
    /// # Errors
    /// An example that the model cannot take.
    pub fn score(&self, model: &TextEncoder, examples: &PairExamples, device: &Device) -> Result<Metrics> {
        let vectors = |encodings| self.collator.evaluate(encodings, device, |input| rows(model.forward(input)));
        let (texts, positives) = (vectors(&examples.texts)?, vectors(&examples.positives)?);
        let own: Vec<usize> = (0..texts.len()).collect();
        let mut metrics = Retrieval::new(&texts, &positives, &own).metrics();
        for size in &self.sizes {
            let first =
                |vectors: &[Vec<f32>]| vectors.iter().map(|vector| vector[..*size].to_vec()).collect::<Vec<_>>();
            let cut = Retrieval::new(&first(&texts), &first(&positives), &own);
            metrics = metrics.with(Score::highest(format!("mrr_size_{size}"), cut.reciprocal_rank()));
        }
        Ok(metrics)
    }
}

impl Task for PairTask {
    type Learner = Trainer<TextEncoder>;

    /// The longer text of each pair.
    fn lengths(&self) -> Vec<usize> {
        let PairExamples { texts, positives, .. } = &self.data.train;
        texts.iter().zip(positives).map(|(text, positive)| text.len().max(positive.len())).collect()
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let data = &self.data.train;
        let texts = examples.iter().map(|index| &data.texts[*index]);
        let positives = examples.iter().map(|index| &data.positives[*index]);
        let negatives = examples.iter().filter_map(|index| data.negatives[*index].as_ref());
        let input = self.collator.input(texts.chain(positives).chain(negatives), device)?;
        Ok((input, VectorLabels::Pairs { pairs: examples.len(), sizes: self.sizes.clone() }))
    }

    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        let parts = [Some(&self.data.train), self.data.valid.as_ref(), self.data.test.as_ref()].into_iter().flatten();
        let sides = parts.flat_map(|part| [&part.texts, &part.positives]);
        let counts = sides.filter_map(|encodings| Truncated::count(encodings, max_length));
        counts.reduce(|sum, side| Truncated { texts: sum.texts + side.texts, ..sum })
    }

    fn evaluate(&self, model: &TextEncoder, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
