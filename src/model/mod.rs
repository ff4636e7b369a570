//! From token ids to hidden states: DeBERTa v1, v2 and v3, and RoBERTa as the baseline.
//!
//! ```text
//! ModelInput -> embeddings -> encoder (layers of attention and feed-forward) -> ModelOutput
//!                                 \-> decoder: the last layer again, with absolute positions, for masked words
//! ```

mod activation;
pub mod attention;
mod backbone;
pub mod context;
pub mod conv;
mod deberta;
pub mod decoder;
pub mod dropout;
pub mod embeddings;
pub mod encoder;
pub mod feed_forward;
pub mod inference;
pub(crate) mod init;
pub mod input;
pub mod layer;
pub mod linear;
pub mod masked_positions;
pub mod output;
pub mod pooler;
mod roberta;
pub mod token_layout;

pub use backbone::Backbone;
pub use input::ModelInput;
pub use output::ModelOutput;
pub use pooler::Pooler;
