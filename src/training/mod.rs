//! From data to a trained checkpoint: objectives, optimiser, metrics, and the loop that joins them.
//!
//! - [`train`] trains a [`Task`](run::Task) of [`tasks`] and leaves a checkpoint folder.
//! - [`Trainer`] makes single steps, for loops of one's own; [`sift`] is scale-invariant fine-tuning, for any [`Objective`].
//! - [`metrics`] and [`report`] say and show how it went.

pub mod learner;
pub mod metrics;
pub mod objective;
pub mod optimizer;
mod parallel;
mod plan;
pub mod recipes;
pub mod replaced_token;
pub mod report;
pub mod run;
pub mod sift;
mod state;
pub mod tasks;
pub mod trainer;

pub use learner::Learner;
pub use objective::Objective;
pub use optimizer::{AdamW, AdamWConfig, Frozen, ParameterGroups, Schedule, ScheduleKind, Warmup};
pub use run::{Observer, Outcome, TrainingSettings, train};
pub use sift::Sift;
pub use trainer::{StepReport, Trainer};
