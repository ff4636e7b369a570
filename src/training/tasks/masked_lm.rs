//! Masked language modelling: guess the masked words of a text.

use burn::tensor::Device;

use super::{Collator, Splits, indices};
use crate::{
    Error, Result,
    batch::{Encoding, batches_in_order},
    data::{
        Part,
        corpus::Corpus,
        masking::{Masked, Masking},
    },
    heads::MaskedLm,
    model::{input::ModelInput, masked_positions::MaskedPositions},
    training::{
        metrics::{Metrics, Score},
        objective::{MaskedLmLabels, Objective},
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// How often masking is tried until at least one token of a batch is masked.
const ATTEMPTS: u64 = 100;

/// Pretrains a model with a language-model head. Each epoch masks other tokens; an evaluation always masks the same
/// ones.
pub struct MaskedLmTask {
    collator: Collator,
    masking: Masking,
    data: Splits<Corpus>,
    evaluated: usize,
}

impl MaskedLmTask {
    /// Puts data and model together; an evaluation reads the first `evaluated` sequences of the validation text. The test text, which
    /// is read once, is read in full.
    pub fn new(collator: Collator, masking: Masking, data: Splits<Corpus>, evaluated: usize) -> Self {
        Self { collator, masking, data, evaluated }
    }

    /// The batches of an evaluation, always masked in the same way; none if there is no such part.
    pub fn evaluation(
        &self,
        part: Part,
        device: &Device,
    ) -> Option<impl Iterator<Item = Result<(ModelInput, MaskedLmLabels)>>> {
        let (corpus, device) = (self.data.get(part)?, device.clone().inner());
        let limit = if part == Part::Valid { self.evaluated } else { usize::MAX };
        let order = 0..corpus.len().min(limit);
        let batches =
            batches_in_order(order, |index| corpus.sequence(index).ids.len(), self.collator.batch_tokens).into_iter();
        Some(batches.map(move |batch| self.masked(corpus, batch.into_iter(), 0, &device)))
    }

    /// The error of an evaluation without a single masked token.
    pub(super) fn nothing_masked() -> Error {
        Error::input("text", "no token was masked in it, expected longer texts or a higher rate")
    }

    /// Some sequences with their chosen tokens masked.
    fn masked(
        &self,
        corpus: &Corpus,
        sequences: impl Iterator<Item = usize>,
        epoch: usize,
        device: &Device,
    ) -> Result<(ModelInput, MaskedLmLabels)> {
        let sequences: Vec<usize> = sequences.collect();
        let mask = |attempt: u64| {
            let epoch = epoch as u64 + (attempt << 32);
            let sequences = sequences.iter();
            sequences.map(|index| self.masking.mask(&corpus.sequence(*index), epoch, *index as u64)).collect()
        };
        // A batch of a few short sequences may have no masked token, and then nothing to learn from: it is masked
        // again.
        let mut drawn = (0..ATTEMPTS).map(mask);
        let masked: Vec<Masked> = drawn
            .find(|masked: &Vec<Masked>| masked.iter().any(|masked| !masked.positions.is_empty()))
            .ok_or_else(Self::nothing_masked)?;
        let length = masked.iter().map(|masked| masked.input_ids.len()).max().unwrap_or(0);
        let labels = MaskedLmLabels {
            positions: MaskedPositions::new(length, masked.iter().map(|masked| &masked.positions)),
            tokens: indices(masked.iter().flat_map(|masked| &masked.labels).map(|word| *word as usize), device),
        };
        let encodings: Vec<Encoding> = masked
            .into_iter()
            .map(|masked| Encoding {
                type_ids: vec![0; masked.input_ids.len()],
                ids: masked.input_ids,
                ..Encoding::default()
            })
            .collect();
        Ok((self.collator.input(&encodings, device)?, labels))
    }
}

impl Task for MaskedLmTask {
    type Learner = Trainer<MaskedLm>;

    fn lengths(&self) -> Vec<usize> {
        let corpus = &self.data.train;
        (0..corpus.len()).map(|index| corpus.sequence(index).ids.len()).collect()
    }

    fn batch(&self, examples: &[usize], epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        self.masked(&self.data.train, examples.iter().copied(), epoch, device)
    }

    /// The mean loss of the masked tokens, its perplexity, and the share of them for which the likeliest word is right.
    fn evaluate(&self, model: &MaskedLm, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let Some(batches) = self.evaluation(part, device) else { return Ok(None) };
        let (mut loss, mut right, mut count) = (0.0, 0.0, 0.0);
        for batch in batches {
            let (input, labels) = batch?;
            let chosen = labels.positions.len() as f64;
            let logits = model.logits(input, &labels);
            let guesses = logits.clone().argmax(1).squeeze_dim::<1>(1);
            right += guesses.equal(labels.tokens.clone()).int().sum().into_scalar::<f64>();
            loss += chosen * Objective::loss(model, logits, labels).into_scalar::<f64>();
            count += chosen;
        }
        if count == 0.0 {
            return Err(Self::nothing_masked());
        }
        let loss = loss / count;
        let metrics = Metrics::new(Score::lowest("loss", loss));
        Ok(Some(metrics.with(Score::highest("accuracy", right / count)).with(Score::lowest("perplexity", loss.exp()))))
    }
}
