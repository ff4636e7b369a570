#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod activation;
pub mod attention;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod conv;
mod cpu;
pub mod data;
pub mod decoder;
pub mod device;
pub mod embeddings;
pub mod encoder;
pub mod error;
pub mod feed_forward;
pub mod heads;
mod init;
pub mod input;
pub mod linear;
pub mod model;
pub mod packing;
pub mod parity;
pub mod pipeline;
pub mod places;
pub mod position;
pub mod prepared;
mod replacement;
pub mod roberta;
mod scores;
mod spans;
pub mod tokenizer;
pub mod training;

pub use config::{DebertaConfig, ModelConfig, Preset, RobertaConfig};
pub use error::{Error, Result};
pub use input::ModelInput;
pub use model::{DebertaModel, ModelOutput};
pub use replacement::write_file;
pub use roberta::RobertaModel;
