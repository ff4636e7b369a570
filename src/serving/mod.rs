//! Online predictions: one checkpoint behind a URL, as the binary `deberta-serve` has it.
//!
//! The [`scheduler`] decides what is computed next, and knows of no network. The [`Service`] holds the model and takes requests
//! through it. [`http`] speaks to clients, in the dialects that they know.

pub mod http;
mod metrics;
mod model;
mod problem;
pub mod scheduler;
mod service;

pub use metrics::Metrics;
pub use model::{Labels, Model, Served, Task};
pub use problem::Problem;
pub use service::{InFlight, Loaded, Service, ServiceOptions, Usage, Wanted};
