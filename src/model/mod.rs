//! From token ids to hidden states: DeBERTa v1, v2 and v3, and RoBERTa as the baseline.
//!
//! ```text
//! ModelInput -> embeddings -> encoder (layers of attention and feed-forward) -> ModelOutput
//!                                 \-> decoder: the last layer again, with absolute positions, for masked words
//! ```

mod activation;
pub mod attention;
mod attention_mask;
mod backbone;
mod context;
mod conv;
mod deberta;
pub(crate) mod decoder;
pub mod dropout;
pub(crate) mod embeddings;
mod encoder;
mod feed_forward;
pub mod inference;
pub(crate) mod init;
pub(crate) mod input;
mod layer;
pub mod linear;
pub(crate) mod lora;
pub mod masked_positions;
mod mlp;
mod output;
pub(crate) mod parameter;
mod pooler;
pub(crate) mod precision;
mod roberta;
pub(crate) mod switch;
pub mod token_layout;

pub use attention_mask::AttentionMask;
pub use backbone::Backbone;
pub use inference::{InferenceModel, Prepared};
pub use input::ModelInput;
pub use masked_positions::MaskedPositions;
pub use output::ModelOutput;
pub(crate) use pooler::Pooler;
pub use precision::{Int8Layers, Precision};
pub use switch::{RoutingFigures, RoutingRecord};
