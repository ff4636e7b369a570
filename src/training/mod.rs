//! From data to a trained checkpoint: objectives, optimiser, metrics, and the loop that joins them.
//!
//! - [`train()`] trains a [`Task`] of [`tasks`] and leaves a checkpoint folder.
//! - [`Trainer`] makes single steps, for a loop of your own; [`sift`] is scale-invariant fine-tuning, for any
//!   [`Objective`].
//! - [`metrics`] and [`report`] say and show how it went.

mod identity;
pub mod learner;
pub mod metrics;
pub mod objective;
pub mod optimizer;
mod parallel;
mod plan;
mod progress;
pub mod recipes;
pub mod replaced_token;
pub mod report;
mod run;
mod settings;
pub mod sift;
mod state;
mod task;
pub mod tasks;
mod train;
pub mod trainer;

pub use learner::{Learner, TrainStepReport};
pub use objective::Objective;
pub use optimizer::{AdamW, AdamWConfig, Frozen, ParameterGroups, Schedule, ScheduleKind, Warmup};
pub use run::Run;
pub use settings::TrainingSettings;
pub use sift::Sift;
pub use task::{Task, TaskBatch, TaskModel};
pub use train::{Observer, Outcome, train};
pub use trainer::Trainer;
