#![deny(missing_docs)]
//! DeBERTa v1, v2 and v3 on the burn framework.

pub mod batch;
pub mod error;
pub mod tokenizer;

pub use error::{Error, Result};
