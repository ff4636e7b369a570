//! Replaced token detection: find the words that a generator replaced.

use burn::tensor::{Bool, Device, Tensor};

use super::MaskedLmTask;
use crate::{
    Result,
    data::Part,
    kernels::draws,
    model::AttentionMask,
    scores,
    training::{
        metrics::{Counts, Metrics, Score},
        replaced_token::{Corrupted, ReplacedTokenPretraining, ReplacedTokenTrainer, sample},
        task::{Task, TaskBatch},
    },
};

/// Pretrains a discriminator, and the generator that it learns from, on the texts of a task that masks words.
pub struct ReplacedTokenTask(MaskedLmTask);

impl ReplacedTokenTask {
    /// Trains on the texts of this task.
    pub fn new(masked: MaskedLmTask) -> Self {
        Self(masked)
    }
}

impl Task for ReplacedTokenTask {
    type Learner = ReplacedTokenTrainer;

    fn lengths(&self) -> Vec<usize> {
        self.0.lengths()
    }

    fn batch(&self, examples: &[usize], epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        self.0.batch(examples, epoch, device)
    }

    /// The losses, and how well the discriminator finds the replaced tokens, on the same masked texts and with the same
    /// random numbers each time. The model is selected by `loss`, L_G + weight L_D as in training. The discriminator's
    /// figures alone would favour an early generator, because its words are easy to find.
    fn evaluate(&self, model: &ReplacedTokenPretraining, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let Some(batches) = self.0.evaluation(part, device) else { return Ok(None) };
        let (mut positions, mut tokens) = (0, 0);
        let (mut generator_loss, mut discriminator_loss) = (0.0, 0.0);
        let mut found = Counts::default();
        for (number, batch) in batches.enumerate() {
            let (input, labels) = batch?;
            let logits = model.generator_logits(input.clone(), &labels);
            let drawn = draws::keyed(number as u64, || sample(logits.clone(), None));
            let text = Corrupted::new(&input, &labels, drawn);
            let count = labels.positions.len();
            generator_loss += count as f64 * model.generator_loss(logits, labels).into_scalar::<f64>();
            positions += count;

            let logits = model.discriminator_logits(text.input.clone());
            let (said, replaced) = (flags(logits.clone().greater_elem(0))?, flags(text.replaced.clone())?);
            let real = text.input.attention_mask.as_ref().map(AttentionMask::real).transpose()?;
            let mut count = 0;
            for (token, (said, replaced)) in said.into_iter().zip(replaced).enumerate() {
                if real.as_ref().is_none_or(|real| real[token]) {
                    count += 1;
                    found.targets += usize::from(replaced);
                    found.predictions += usize::from(said);
                    found.correct += usize::from(said && replaced);
                }
            }
            discriminator_loss += count as f64 * model.discriminator_loss(logits, text).into_scalar::<f64>();
            tokens += count;
        }
        if positions == 0 {
            return Err(MaskedLmTask::nothing_masked());
        }
        let (generator_loss, discriminator_loss) =
            (generator_loss / positions as f64, discriminator_loss / tokens as f64);
        let share = |count: usize| count as f64 / tokens as f64;
        // Errors are replaced tokens that were not found, and found tokens that were not replaced.
        let wrong = found.targets + found.predictions - 2 * found.correct;
        let accuracy = Score::highest("accuracy", 1.0 - share(wrong));
        Ok(Some(
            Metrics::new(Score::lowest("loss", generator_loss + model.options().weight * discriminator_loss))
                .with(Score::lowest("generator_loss", generator_loss))
                .with(Score::lowest("discriminator_loss", discriminator_loss))
                .with(accuracy.with_baseline(1.0 - share(found.targets)))
                .with(Score::highest("precision", found.precision()))
                .with(Score::highest("recall", found.recall()))
                .with(Score::highest("f1", found.f1())),
        ))
    }
}

/// The values, row by row.
fn flags(tensor: Tensor<2, Bool>) -> Result<Vec<bool>> {
    Ok(scores::values(tensor.float())?.into_iter().map(|flag| flag > 0.5).collect())
}
