//! The side on which a long text is cut, as a flag of the command line.

use clap::ValueEnum;
use deberta_burn::tokenizer::TruncationSide;
use serde::Deserialize;

/// The side on which a text that is too long loses tokens.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    /// Its beginning goes
    Left,
    /// Its end goes
    Right,
}

impl From<Truncation> for TruncationSide {
    fn from(truncation: Truncation) -> Self {
        match truncation {
            Truncation::Left => Self::Left,
            Truncation::Right => Self::Right,
        }
    }
}
