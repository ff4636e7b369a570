//! Entities of any type: GLiNER's task.

mod asked;
mod base;
mod reader;

use std::collections::BTreeSet;

use burn::tensor::Device;

pub use asked::AskedTypes;
pub use base::GlinerBase;
pub use reader::{EntityExamples, EntityReader};

use super::{Collator, Splits, lengths};
use crate::{
    Error, Result,
    batch::{Truncated, in_batches},
    data::{Part, Random, WordSpan},
    heads::{
        FocalLoss, Gliner, GlinerLayout, GlinerOptions,
        gliner::{find, own_logits},
    },
    training::{
        metrics::{EntityCounts, Metrics},
        objective::GlinerLabels,
        task::{Task, TaskBatch},
        trainer::Trainer,
    },
};

/// Fine-tunes a [`Gliner`].
#[derive(Clone, Debug)]
pub struct EntityTask {
    reader: EntityReader,
    collator: Collator,
    data: Splits<EntityExamples>,
    options: EntityOptions,
}

/// What a run says beside its data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntityOptions {
    /// Which types a text is asked for.
    pub asked: AskedTypes,
    /// The loss.
    pub focal: FocalLoss,
    /// Seed of the types that are drawn.
    pub seed: u64,
}

impl EntityTask {
    /// Puts data and model together.
    pub fn new(reader: EntityReader, collator: Collator, data: Splits<EntityExamples>, options: EntityOptions) -> Self {
        Self { reader, collator, data, options }
    }

    /// The figures of a model on some examples: F1 of entities with their exact words, found as `Gliner` finds them by
    /// default, where each text is asked for the types that its row says, else for all of its file.
    ///
    /// # Errors
    /// An example that the model cannot take; [`Error::NotFinite`] if it answers with NaN or infinity.
    pub fn score(&self, model: &Gliner, examples: &EntityExamples, device: &Device) -> Result<Metrics> {
        let EntityReader { config, .. } = &self.reader;
        let windows = examples.windows.concat();
        let positions: Vec<_> = windows.iter().map(|window| self.reader.positions(window)).collect();
        let logits = in_batches(&windows, self.collator.batch_tokens, |indices| {
            let batch: Vec<_> = indices.iter().map(|index| positions[*index].clone()).collect();
            if batch.iter().all(|sequence| sequence.words.is_empty()) {
                return Ok(vec![Vec::new(); batch.len()]);
            }
            let input = self.collator.input(indices.iter().map(|index| &windows[*index]), device)?;
            let layout = GlinerLayout::new(&batch, input.input_ids.dims()[1], config, device);
            own_logits(model.forward(input, &layout), &batch, config)
        })?;
        if let Some(value) = logits.iter().flatten().find(|value| !value.is_finite()) {
            return Err(Error::not_finite("evaluation", format!("the model answers with {value}")));
        }
        let mut next = 0;
        let predictions = examples.texts.iter().zip(&examples.windows).map(|(text, windows)| {
            let own = next..next + windows.len();
            next = own.end;
            let types = examples.asker.all(text);
            let found = find(&positions[own.clone()], &logits[own], config, GlinerOptions::default());
            found.into_iter().map(|entity| ((entity.start, entity.end), types[entity.label])).collect()
        });
        let predictions: Vec<BTreeSet<_>> = predictions.collect();
        let targets = examples.texts.iter().map(|text| {
            text.entities.iter().map(|WordSpan(start, end, kind)| ((*start, *end), kind.as_str())).collect()
        });
        Ok(EntityCounts::of_spans(&targets.collect::<Vec<_>>(), &predictions)?.metrics())
    }
}

impl Task for EntityTask {
    type Learner = Trainer<Gliner>;

    /// All windows of a text.
    fn lengths(&self) -> Vec<usize> {
        self.data.train.windows.iter().map(|windows| lengths(windows).iter().sum()).collect()
    }

    fn batch(&self, examples: &[usize], epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        let EntityExamples { texts, asker, .. } = &self.data.train;
        let EntityOptions { asked, focal, seed } = self.options;
        let (mut windows, mut contents) = (Vec::new(), Vec::new());
        for &example in examples {
            let mut random = Random::new(&[seed, epoch as u64, example as u64]);
            let types = asker.draw(&texts[example], asked, &self.reader.config, &mut random);
            let encoded = self.reader.encode(&texts[example], &types)?;
            contents.extend(encoded.iter().map(|_| (example, types.clone())));
            windows.extend(encoded);
        }
        let input = self.collator.input(&windows, device)?;
        let positions: Vec<_> = windows.iter().map(|window| self.reader.positions(window)).collect();
        let layout = GlinerLayout::new(&positions, input.input_ids.dims()[1], &self.reader.config, device);
        let sequences: Vec<_> = positions
            .into_iter()
            .zip(&contents)
            .map(|(positions, (example, types))| (positions, &texts[*example].entities[..], &types[..]))
            .collect();
        Ok((input, GlinerLabels { layout, targets: self.reader.targets(&sequences, device), focal }))
    }

    /// Words that are too long for a window alone.
    fn truncated(&self, max_length: usize) -> Option<Truncated> {
        let parts = [Some(&self.data.train), self.data.valid.as_ref(), self.data.test.as_ref()].into_iter().flatten();
        let windows = parts.flat_map(|part| &part.windows);
        let cut = windows.filter(|windows| windows.iter().any(|window| window.cut > 0)).count();
        (cut > 0).then_some(Truncated { texts: cut, max_length })
    }

    fn evaluate(&self, model: &Gliner, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let device = device.clone().inner();
        self.data.get(part).map(|data| self.score(model, data, &device)).transpose()
    }
}
