//! Labelled data for fine-tuning: reading it, checking it, and the order in which a run sees it.
//!
//! Every reader checks a whole file before it returns a row. Its errors name the file and the line (or the question),
//! and say what was expected there.
//! - [`read_table`]: texts and pairs with labels, from CSV, TSV and JSON lines; [`LabelEncoder`]: from labels to targets.
//! - [`read_sentences`]: words with entity tags, from CoNLL columns and JSON lines.
//! - [`read_entities`]: words with entities of any type, from JSON lines.
//! - [`read_pairs`]: texts that belong together; [`read_vectors`]: vectors that belong to texts.
//! - [`read_squad`]: questions about passages. [`read_choices`]: multiple choice.
//! - [`Split`]: training, validation and test texts, by a hash of each text; [`file_digest`]: which data a run saw;
//!   [`swap_characters`]: spelling noise.
//! - [`Shard`]: the share of one of several machines.
//! - [`Random`]: the one source of random numbers.
//!
//! ```no_run
//! use deberta_burn::{config::ProblemType, data::{LabelNotation, LabelEncoder, TextColumns, read_table}};
//!
//! # fn main() -> deberta_burn::Result<()> {
//! let columns = TextColumns { text: "text".into(), pair: None, label: Some("label".into()) };
//! let (train, valid) = (read_table("train.csv", &columns)?, read_table("valid.csv", &columns)?);
//! let notation = LabelNotation::default();
//! let encoder = LabelEncoder::from_rows(ProblemType::SingleLabelClassification, &notation, &train, "train.csv")?;
//! let targets = encoder.training_targets(&train, "train.csv")?;
//! let valid_targets = encoder.targets(&valid, "valid.csv")?;
//! # Ok(())
//! # }
//! ```

mod batching;
mod choice;
mod conll;
pub mod corpus;
mod digest;
mod entities;
mod labels;
mod lines;
pub mod masking;
mod noise;
mod notation;
mod pairs;
mod random;
mod ranking;
mod shard;
mod split;
mod squad;
mod table;
mod vectors;

pub(crate) use batching::training_batches;
pub use choice::{ChoiceExample, read_choices};
pub use conll::{Sentence, WordColumns, read_sentences, tag_indices, tag_labels};
#[doc(hidden)]
pub use digest::file_digest;
pub use entities::{EntityText, WordSpan, read_entities};
pub use labels::{LabelEncoder, LabelSet, Target};
#[doc(hidden)]
pub use lines::at_line;
pub use noise::swap_characters;
pub use notation::LabelNotation;
pub use pairs::{TextPair, read_pairs};
pub use random::Random;
pub use ranking::{RankedQuery, read_rankings};
pub use shard::Shard;
pub use split::{Part, Split};
pub use squad::{Answer, Question, read_squad};
pub use table::{TextColumns, TextRow, read_table};
pub use vectors::read_vectors;

pub use crate::text_file::{decode_text, read_bytes};
