//! Vectors of texts, by pairs that belong together.

use std::marker::PhantomData;

use burn::tensor::Device;

use super::{Collator, Splits, distinct, rows};
use crate::{
    Error, Result,
    batch::{Encoding, Truncated},
    data::{Part, TextPair},
    heads::{DualEncoder, TextEncoder},
    model::input::ModelInput,
    tokenizer::{EncodeOptions, Text, Tokenizer},
    training::{
        metrics::{Metrics, Retrieval, Score},
        objective::{DualLabels, Objective, VectorLabels},
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

impl PairExamples {
    /// Encodes pairs, by the tokenizers of texts and of counterparts, each up to a number of tokens.
    ///
    /// # Errors
    /// A text that its tokenizer cannot take.
    pub fn encode(pairs: &[TextPair], [texts, counterparts]: [(&Tokenizer, usize); 2]) -> Result<Self> {
        let encode = |(tokenizer, max_length): (&Tokenizer, usize), texts: Vec<Text<'_>>| {
            tokenizer.encode(&texts, &EncodeOptions { max_length, ..EncodeOptions::default() })
        };
        let negatives: Vec<_> = pairs.iter().filter_map(|pair| pair.negative.as_ref()).map(Text::from).collect();
        let mut negatives = encode(counterparts, negatives)?.into_iter();
        Ok(Self {
            texts: encode(texts, pairs.iter().map(|pair| Text::from(&pair.text)).collect())?,
            positives: encode(counterparts, pairs.iter().map(|pair| Text::from(&pair.positive)).collect())?,
            negatives: pairs.iter().map(|pair| pair.negative.as_ref().and_then(|_| negatives.next())).collect(),
        })
    }
}

/// What learns from pairs: one encoder of texts and counterparts, or one of each.
pub trait PairEncoder: Objective {
    /// The encoder of texts, and that of counterparts.
    fn sides(&self) -> [&TextEncoder; 2];

    /// A batch of texts with their counterparts, and further counterparts that belong to none, by the collators of both sides.
    /// `sizes` count beside that of the whole vectors.
    ///
    /// # Errors
    /// A text that the model cannot take.
    fn batch(
        collators: &[Collator; 2],
        texts: &[&Encoding],
        counterparts: &[&Encoding],
        sizes: &[usize],
        device: &Device,
    ) -> Result<(ModelInput, Self::Labels)>;
}

impl PairEncoder for TextEncoder {
    fn sides(&self) -> [&TextEncoder; 2] {
        [self; 2]
    }

    fn batch(
        [collator, _]: &[Collator; 2],
        texts: &[&Encoding],
        counterparts: &[&Encoding],
        sizes: &[usize],
        device: &Device,
    ) -> Result<(ModelInput, VectorLabels)> {
        let input = collator.input(texts.iter().chain(counterparts).copied(), device)?;
        Ok((input, VectorLabels::Pairs { pairs: texts.len(), sizes: sizes.to_vec() }))
    }
}

impl PairEncoder for DualEncoder {
    fn sides(&self) -> [&TextEncoder; 2] {
        self.sides()
    }

    fn batch(
        [of_texts, of_counterparts]: &[Collator; 2],
        texts: &[&Encoding],
        counterparts: &[&Encoding],
        sizes: &[usize],
        device: &Device,
    ) -> Result<(ModelInput, DualLabels)> {
        let counterparts = of_counterparts.input(counterparts.iter().copied(), device)?;
        let labels = DualLabels { counterparts, pairs: texts.len(), sizes: sizes.to_vec() };
        Ok((of_texts.input(texts.iter().copied(), device)?, labels))
    }
}

/// Fine-tunes a [`TextEncoder`] or a [`DualEncoder`]. All other pairs of a batch are what a text has to be told apart from, so that
/// larger batches teach more.
#[derive(Clone, Debug)]
pub struct PairTask<M = TextEncoder> {
    collators: [Collator; 2],
    data: Splits<PairExamples>,
    sizes: Vec<usize>,
    model: PhantomData<fn() -> M>,
}

impl<M: PairEncoder> PairTask<M> {
    /// Puts data and model together; the collators are those of texts and of counterparts. The first numbers of each vector are trained to be vectors of their own, as many as each
    /// of `sizes` says, beside the whole vectors of `width` numbers.
    ///
    /// # Errors
    /// A size that is 0 or above `width`.
    pub fn new(collators: [Collator; 2], data: Splits<PairExamples>, width: usize, sizes: &[usize]) -> Result<Self> {
        if let Some(size) = sizes.iter().find(|size| !(1..=width).contains(*size)) {
            return Err(Error::value("--sizes", size, format!("from 1 to {width}, the numbers of a vector")));
        }
        let mut sizes: Vec<usize> = sizes.iter().copied().filter(|size| *size < width).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        Ok(Self { collators, data, sizes, model: PhantomData })
    }

    /// The figures of a model on some examples: how well a text finds its positive among all, of which equal ones are one.
    ///
    /// # Errors
    /// An example that the model cannot take.
    pub fn score(&self, model: &M, examples: &PairExamples, device: &Device) -> Result<Metrics> {
        let vectors = |side: usize, encodings| {
            let encoder = model.sides()[side];
            self.collators[side].evaluate(encodings, device, |input| rows(encoder.forward(input)))
        };
        let (candidates, own) = distinct(&examples.positives, |positive| positive.ids.clone());
        let (texts, positives) = (vectors(0, &examples.texts)?, vectors(1, &candidates)?);
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

impl<M: PairEncoder> Task for PairTask<M> {
    type Learner = Trainer<M>;

    /// The longer text of each pair.
    fn lengths(&self) -> Vec<usize> {
        let PairExamples { texts, positives, .. } = &self.data.train;
        texts.iter().zip(positives).map(|(text, positive)| text.len().max(positive.len())).collect()
    }

    fn tokens(&self) -> Vec<usize> {
        let PairExamples { texts, positives, negatives } = &self.data.train;
        let negative = |negative: &Option<Encoding>| negative.as_ref().map_or(0, Encoding::len);
        let pairs = texts.iter().zip(positives).zip(negatives);
        pairs.map(|((text, positive), other)| text.len() + positive.len() + negative(other)).collect()
    }

    fn batch(&self, examples: &[usize], _epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let data = &self.data.train;
        let texts: Vec<_> = examples.iter().map(|index| &data.texts[*index]).collect();
        let positives = examples.iter().map(|index| &data.positives[*index]);
        let negatives = examples.iter().filter_map(|index| data.negatives[*index].as_ref());
        M::batch(&self.collators, &texts, &positives.chain(negatives).collect::<Vec<_>>(), &self.sizes, device)
    }

    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        let parts = [Some(&self.data.train), self.data.valid.as_ref(), self.data.test.as_ref()].into_iter().flatten();
        let sides = parts.flat_map(|part| [&part.texts, &part.positives]);
        let counts = sides.filter_map(|encodings| Truncated::count(encodings, max_length));
        counts.reduce(|sum, side| Truncated { texts: sum.texts + side.texts, ..sum })
    }

    fn evaluate(&self, model: &M, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
