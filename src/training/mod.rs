//! From data to a trained checkpoint: objectives, optimiser, metrics, and the loop that joins them.
//!
//! - [`train`] trains a [`Task`](run::Task) of [`tasks`] and leaves a checkpoint folder.
//! - [`Trainer`] makes single steps, for loops of one's own; [`sift`] is scale-invariant fine-tuning, for any [`Objective`].
//! - [`metrics`] and [`curves`] say and show how it went.

mod adamw_rows;
pub mod curves;
pub mod groups;
pub mod learner;
pub mod metrics;
pub mod objective;
pub mod optimizer;
mod parallel;
mod plan;
pub mod recipes;
pub mod replaced_token;
pub mod run;
pub mod schedule;
pub mod sift;
mod state;
pub mod tasks;
pub mod trainer;

pub use groups::{Frozen, ParameterGroups};
pub use learner::Learner;
pub use objective::Objective;
pub use optimizer::{AdamW, AdamWConfig};
pub use run::{Observer, Outcome, TrainingSettings, train};
pub use schedule::{Schedule, ScheduleKind, Warmup};
pub use sift::Sift;
pub use trainer::{StepReport, Trainer};
