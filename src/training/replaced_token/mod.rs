//! Replaced token detection (DeBERTaV3, arXiv 2111.09543, section 3; `rtd_task.py` in the reference): a generator fills masked
//! positions with words, and a discriminator says of every token whether it is the original one.
//!
//! With E_G and E_D the tables of word vectors (and of absolute positions, where the input is biased by them):
//!
//! ```text
//! p     = softmax( generator(masked text; E_G) )             at the masked positions
//! L_G   = mean of -ln p(original word)                       over the masked positions
//! x'    = the text with words drawn from p at these positions;  no gradient passes the draw
//! y     = 1 at masked positions whose draw is not the original word, else 0
//! L_D   = mean binary cross entropy( discriminator(x'; E_D), y )   over all tokens that are not padding
//! ```
//!
//! The generator is a masked language model with half of the discriminator's layers (at least 2, for its enhanced mask decoder)
//! and draws with its dropout on. What the two share is in [`Sharing`]:
//!
//! - gradient-disentangled (the paper's): E_D = sg(E_G) + E_delta, with E_delta zero at first; sg stops the gradient. L_D
//!   moves E_delta and never E_G;
//! - shared: E_D = E_G, and the gradients of both losses move it;
//! - not shared: each has its own.
//!
//! A step is decoupled, as in the reference: first the generator's on L_G; then, on the words that it drew before, the
//! discriminator's on `weight L_D` with the new E_G. Each has an AdamW of its own and clips its own gradients, so that `weight`
//! matters only to how often the discriminator's are clipped, and against AdamW's epsilon. (The reference drops the
//! discriminator's gradient to a shared table when it steps like that; here the step of a shared table is that of its joint
//! mode: both gradients at the same E_G, added.)

mod model;
mod trainer;

use serde::{Deserialize, Serialize};

pub use model::ReplacedTokenPretraining;
// For tests.
#[doc(hidden)]
pub use model::{Corrupted, generator_config, sample};
pub use trainer::ReplacedTokenTrainer;

/// What generator and discriminator share of their embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// The discriminator's tables are the generator's, without gradient, plus its own.
    #[default]
    GradientDisentangled,
    /// The discriminator uses the generator's tables, and moves them too.
    Shared,
    /// Each has its own.
    NotShared,
}

/// How generator and discriminator are trained together; the defaults are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplacedToken {
    /// What they share.
    pub sharing: Sharing,
    /// Weight of the discriminator's loss (`rtd_lambda`; the paper has 50, its code 10).
    pub weight: f64,
}

impl Default for ReplacedToken {
    fn default() -> Self {
        Self { sharing: Sharing::GradientDisentangled, weight: 10.0 }
    }
}
