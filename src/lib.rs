#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer_spans;
mod batch;
#[cfg(feature = "parquet")]
#[cfg_attr(docsrs, doc(cfg(feature = "parquet")))]
pub mod bulk;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod device;
pub mod error;
mod foreign;
pub mod heads;
mod isa;
mod kernels;
// For tests and benches.
#[doc(hidden)]
pub mod model;
// For the example `parity`.
#[doc(hidden)]
pub mod parity;
pub mod pipeline;
mod prompt;
mod replacement;
#[cfg(test)]
#[path = "../tests/common/repository.rs"]
mod repository;
mod scores;
#[cfg(feature = "serve")]
#[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
pub mod serving;
mod text_file;
pub mod tokenizer;
pub mod training;

pub use checkpoint::Checkpoint;
pub use config::{DebertaConfig, ModelConfig, RobertaConfig};
pub use error::{Error, Result};
pub use model::{Backbone, Int8Layers, ModelInput, ModelOutput, Precision, Prepared};
// For the examples.
#[doc(hidden)]
pub use replacement::write_file;
pub use tokenizer::Tokenizer;
