#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer_spans;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod device;
pub mod error;
mod foreign;
pub mod heads;
mod isa;
mod kernels;
pub mod model;
pub mod parity;
pub mod pipeline;
mod replacement;
#[cfg(test)]
#[path = "../tests/common/repository.rs"]
mod repository;
mod scores;
mod text_file;
pub mod tokenizer;
pub mod training;

pub use config::{DebertaConfig, ModelConfig, Preset, RobertaConfig};
pub use error::{Error, Result};
pub use model::{Backbone, ModelInput, ModelOutput};
pub use replacement::write_file;
