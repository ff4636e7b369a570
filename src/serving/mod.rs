//! Online predictions: one checkpoint behind a URL.

pub mod scheduler;
