//! Which linear maps are in 8 bits.

use clap::ValueEnum;
use deberta_burn::Int8Layers;

#[derive(Clone, Copy, ValueEnum)]
pub enum Layers {
    /// Those of attention; feed-forward networks are held more exactly
    Mixed,
    /// All: the fastest, and less exact
    All,
}

impl From<Layers> for Int8Layers {
    fn from(layers: Layers) -> Self {
        match layers {
            Layers::Mixed => Self::Mixed,
            Layers::All => Self::All,
        }
    }
}
