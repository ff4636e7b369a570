//! From data to a trained checkpoint: objectives, optimiser, metrics, and the loop that joins them.
//!
//! - [`train()`] trains a [`Task`] of [`tasks`] and leaves a checkpoint folder.
//! - [`Trainer`] makes single steps, for a loop of your own; [`Sift`] is scale-invariant fine-tuning, for any
//!   [`Objective`].
//! - [`metrics`] and [`report`] say and show how it went.

mod bounds;
mod identity;
mod learner;
mod lora;
pub mod metrics;
mod objective;
mod optimizer;
mod parallel;
mod plan;
mod progress;
pub mod recipes;
pub mod replaced_token;
#[doc(hidden)]
pub mod report;
mod run;
mod settings;
mod sift;
mod state;
mod task;
pub mod tasks;
mod train;
mod trainer;

pub use learner::{Learner, Start, TrainStepReport};
pub use lora::{LinearRole, Lora};
pub use objective::{
    AnswerLabels, COUNTERPARTS, ChoiceLabels, Compared, DualLabels, GlinerLabels, MaskedLmLabels, Objective,
    VectorLabels,
};
pub use optimizer::{AdamW, AdamWConfig, Frozen, ParameterGroups, Schedule, ScheduleKind, Warmup};
pub use report::Report;
pub use run::Run;
pub use settings::TrainingSettings;
pub use sift::{Sift, SiftLoss, SiftLosses};
pub use task::{Task, TaskBatch, TaskModel};
pub use train::{Observer, Outcome, train};
pub use trainer::{Batches, Trainer};
