//! Replaced token detection (DeBERTaV3, arXiv 2111.09543, section 3; `rtd_task.py` in the reference): a generator puts
//! words into the masked positions, and a discriminator says for every token whether it is the original.
//!
//! E_G and E_D are the token embeddings (and the absolute position embeddings, if they are added at the input):
//!
//! ```text
//! p     = softmax( generator(masked text; E_G) )                at the masked positions
//! L_G   = mean of -ln p(original word)                          over the masked positions
//! x'    = the text with words drawn from p at these positions   no gradient passes the draw
//! y     = 1 at masked positions whose draw is not the original word, else 0
//! L_D   = mean binary cross entropy( discriminator(x'; E_D), y )   over all tokens that are not padding
//! ```
//!
//! The generator is a masked language model with half of the discriminator's layers, but at least 2, because its
//! enhanced mask decoder needs them. It draws with dropout on. [`Sharing`] says what the two models share:
//!
//! - gradient-disentangled (as in the paper): E_D = sg(E_G) + E_delta; sg stops the gradient, and E_delta is zero at
//!   first. L_D changes E_delta and never E_G;
//! - shared: E_D = E_G, changed by the gradients of both losses;
//! - not shared: each has its own.
//!
//! Each half with Switch layers adds the loss of its routers to its own.
//!
//! A step is decoupled, as in the reference. First the generator makes a step on L_G. Then the discriminator makes a
//! step on `weight L_D`, with the new E_G, on the words that the generator drew before its step. Each has its own AdamW
//! and clips its own gradients; so `weight` only affects how often the discriminator's gradients are clipped, and how
//! much AdamW's epsilon matters. (With shared embeddings, the reference drops the discriminator's gradient of them in
//! decoupled steps. Here shared embeddings are trained as in the reference's joint mode: both gradients are taken at
//! the same E_G and added.)

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
    /// The discriminator adds embeddings of its own to the generator's, which get no gradient from it.
    #[default]
    GradientDisentangled,
    /// Both use and train the same embeddings.
    Shared,
    /// Each has embeddings of its own.
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
