//! From data to a trained checkpoint: objectives, optimiser, metrics, and the loop that joins them.

mod adamw_rows;
pub mod curves;
pub mod groups;
pub mod metrics;
pub mod optimizer;
pub mod schedule;

pub use groups::{Frozen, ParameterGroups};
pub use optimizer::{AdamW, AdamWConfig};
pub use schedule::{Schedule, ScheduleKind, Warmup};
