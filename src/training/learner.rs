//! What a [run](super::train) needs from what it trains: one model and its optimiser, or two models that are trained
//! together.

use std::path::Path;

use burn::{module::Module, tensor::Device};
use serde_json::Value;

use super::{
    optimizer::{AdamW, ParameterGroups, Schedule},
    run::Run,
    settings::TrainingSettings,
};
use crate::{Result, checkpoint::LoadOptions, config::Configuration};

/// A model in training, with its optimiser.
pub trait Learner: Sized {
    /// What is trained.
    type Model: Module;
    /// What a step reads: inputs and labels.
    type Batch;

    /// The folders that [`export`](Self::export) writes into, relative to the folder it is given.
    const FOLDERS: &'static [&'static str] = &[""];

    /// What the model adds to the run's identity, beside settings and data. A run with another description is not
    /// resumed.
    fn describe(_model: &Self::Model) -> Value {
        Value::Null
    }

    /// Takes the model. If there is the folder of an earlier [`save`](Self::save), model and optimiser are read from
    /// it.
    ///
    /// # Errors
    /// Settings that this learner does not support, or a folder that cannot be read.
    fn begin(model: Self::Model, start: Start<'_>) -> Result<Self>;

    /// The model.
    fn model(&self) -> &Self::Model;

    /// Steps made so far.
    fn steps(&self) -> usize;

    /// The device of a step's batch with this number.
    fn device(&self, batch: usize) -> &Device;

    /// One step on the mean loss of some batches, each on its [device](Self::device).
    ///
    /// # Panics
    /// Without any batch.
    fn train_step(&mut self, batches: Vec<Self::Batch>) -> TrainStepReport;

    /// Writes everything that [`begin`](Self::begin) needs to go on as if training had never stopped.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, config: &dyn Configuration, folder: &Path) -> Result<()>;

    /// Writes the model as a checkpoint folder, with the run's configuration and tokenizer.
    ///
    /// # Errors
    /// A file cannot be written.
    fn export(&self, run: &Run<'_>, folder: &Path) -> Result<()>;

    /// The model of an [`export`](Self::export), without gradients.
    ///
    /// # Errors
    /// A file cannot be read.
    fn exported(&self, folder: &Path, options: &LoadOptions) -> Result<Self::Model>;
}

/// What a step reports.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainStepReport {
    /// The loss before the step, averaged over its batches, without SiFT's adversarial term.
    pub loss: f64,
    /// Parts of the loss, or terms beside it, by name.
    pub parts: Vec<(&'static str, f64)>,
    /// The norm of all gradients before clipping. If it is not finite, the step changed nothing.
    pub gradient_norm: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

/// How a learner begins.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// How to train.
    pub settings: &'a TrainingSettings,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// Where the run lives.
    pub run: &'a Run<'a>,
    /// The folder of an earlier save to go on from, if there is one.
    pub saved: Option<&'a Path>,
}

impl Start<'_> {
    /// A fresh optimiser for this model.
    pub(super) fn optimizer<M: Module>(&self, model: &M) -> AdamW {
        AdamW::new(self.settings.optimizer, ParameterGroups::new(model, self.settings.layer_decay))
    }
}
