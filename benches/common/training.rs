//! A text classifier in training, as a user of the crate sets it up.

use burn::{
    Tensor,
    tensor::{Device, Int},
};
use deberta_burn::{
    ModelInput,
    heads::{SequenceClassification, SequenceLabels},
    training::{AdamW, AdamWConfig, ParameterGroups, Schedule, ScheduleKind, Sift, Trainer, Warmup},
};

const LEARNING_RATE: f64 = 1e-5;

/// AdamW with a weight decay of 0.01, but none of biases and LayerNorms, and gradients clipped to a norm of 1.
pub struct Training(Trainer<SequenceClassification>);

impl Training {
    /// Takes a model on `device`; with scale-invariant fine-tuning if asked for.
    pub fn new(model: SequenceClassification, device: &Device, sift: bool) -> Self {
        let config = AdamWConfig { epsilon: 1e-8, ..AdamWConfig::default() };
        let optimizer = AdamW::new(config, ParameterGroups::default());
        let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), LEARNING_RATE, usize::MAX);
        let schedule = schedule.expect("a constant rate");
        let sift = sift.then(Sift::default);
        Self(Trainer::new(model, vec![device.clone()], optimizer, schedule, sift, 0))
    }

    /// One step towards `classes`, [batch]; the loss before it.
    pub fn step(&mut self, input: ModelInput, classes: Tensor<1, Int>) -> f64 {
        self.0.train_step(vec![(input, SequenceLabels::Classes(classes))]).loss
    }
}
