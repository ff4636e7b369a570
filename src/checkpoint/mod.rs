//! Weights on disk: reading and writing checkpoints in the layout of the Hugging Face Hub.
//!
//! [`Checkpoint::open`] finds the weights in a folder (`model.safetensors`, the same in shards, or `pytorch_model.bin`)
//! and reads their headers; [`Checkpoint::load`] puts them into a module, cast to the wanted type, and hands back a
//! [`LoadReport`] of what was used, missing and left over. [`write`](write()) is the way back: `model.safetensors` and
//! `config.json` as Hugging Face transformers reads them. [`Checkpoint::open_with_adapter`] merges a LoRA adapter.
//!
//! Modules and files have different names for the weights; `names.rs` has one table for both directions. DeBERTa v1
//! also packs its projections into one matrix: `v1.rs` splits it when reading and packs it when writing, so that
//! modules only know one layout.

pub(crate) mod adapter;
mod content;
mod convert;
mod dense;
mod digest;
mod header;
#[cfg(feature = "hub")]
pub mod hub;
mod load;
mod mapped;
mod names;
mod parameters;
mod partial;
mod pretrained;
mod quantised;
mod read;
mod report;
mod sentence_modules;
mod upcycle;
mod v1;
mod wrapping;
mod write;

pub(crate) use dense::read_dense;
#[doc(hidden)]
pub use header::{Header, HeaderEntry};
pub use load::{HeadPolicy, LoadOptions};
pub(crate) use partial::{read_some, write_some};
pub(crate) use pretrained::Pretrained;
pub use pretrained::locate;
pub use read::Checkpoint;
pub(crate) use read::file_in;
pub use report::{LoadReport, Misshapen};
pub(crate) use sentence_modules::SentenceModules;
pub use sentence_modules::{copy_sentence_modules, write_sentence_modules};
pub(crate) use write::first_not_finite;
pub use write::{FileType, OutOfRange, RangePolicy, rewrite, write};
