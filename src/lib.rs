#![deny(missing_docs)]
//! DeBERTa v1, v2 and v3 on the burn framework.

pub mod error;

pub use error::{Error, Result};
