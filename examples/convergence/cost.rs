//! Floating-point operations of a step, by formula.
//!
//! A product of matrices [a, b] and [b, c] counts 2 a b c, everything else nothing; a step of training counts as three forward
//! passes (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). With length L, width H, feed-forward width F, vocabulary V and M
//! masked places a sequence,
//!
//! ```text
//! layer of Q queries   2 H^2 (2 Q + 2 L)  +  4 Q L H  +  4 Q H F     projections, attention of contents, feed-forward network
//! position term        2 L (2 L - 1) H  a sequence,  2 (2 L - 1) H^2  a batch
//! head                 2 M H^2  +  2 M H V
//! ```
//!
//! The enhanced mask decoder runs the last layer twice instead of once, for M queries, for it is only asked about masked places.

use crate::protocol::{Settings, Variant};

/// Share of the tokens that are masked.
const MASKED: f64 = 0.15;

/// Operations of a step of pretraining.
pub fn training_step(variant: Variant, settings: &Settings) -> f64 {
    let [length, width, batch, vocabulary] =
        [settings.length, settings.hidden, settings.batch_size, settings.vocabulary].map(|size| size as f64);
    let masked = MASKED * length;
    let rows = 2.0 * length - 1.0;
    let terms = variant.terms().count() as f64;
    // Of a sequence, and of a batch.
    let layer = |queries: f64| {
        let projections = 2.0 * width * width * (2.0 * queries + 2.0 * length);
        let contents = 4.0 * queries * length * width;
        let feed_forward = 4.0 * queries * width * settings.intermediate() as f64;
        // The content-to-position term is a product for each query, the other one for each key; both count alike.
        let positions = terms * 2.0 * queries * rows * width;
        projections + contents + feed_forward + positions
    };
    let position_projections = terms * 2.0 * rows * width * width;
    let mut queries = vec![length; settings.layers];
    if variant.has_decoder() {
        queries.pop();
        queries.extend([masked; 2]);
    }
    let head = 2.0 * masked * width * width + 2.0 * masked * width * vocabulary;
    let sequence = queries.iter().map(|queries| layer(*queries)).sum::<f64>() + head;
    3.0 * (batch * sequence + queries.len() as f64 * position_projections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Preset;

    #[test]
    fn costs_are_those_of_the_formula() {
        let settings = Settings {
            vocabulary: 1000,
            length: 20,
            layers: 3,
            hidden: 8,
            batch_size: 2,
            ..Preset::Minutes.settings()
        };
        let cost = |variant| training_step(variant, &settings);
        // 20 queries: 2 * 64 * 80 = 10,240 of projections, 4 * 20 * 20 * 8 = 12,800 of contents, 4 * 20 * 8 * 32 = 20,480 of the
        // feed-forward network. Head, 3 places: 2 * 3 * 64 + 2 * 3 * 8 * 1000 = 48,384.
        let layer = 10_240.0 + 12_800.0 + 20_480.0;
        assert_eq!(cost(Variant::Roberta), 3.0 * 2.0 * (3.0 * layer + 48_384.0));
        // A position term: 2 * 20 * 39 * 8 = 12,480 a sequence, 2 * 39 * 64 = 4,992 a batch.
        let relative = layer + 2.0 * 12_480.0;
        assert_eq!(cost(Variant::NoEmd), 3.0 * (2.0 * (3.0 * relative + 48_384.0) + 3.0 * 2.0 * 4_992.0));
        // 3 queries: 2 * 64 * 46 = 5,888; 4 * 3 * 20 * 8 = 1,920; 4 * 3 * 8 * 32 = 3,072; 2 * 3 * 39 * 8 = 1,872 a term.
        let decoder = 5_888.0 + 1_920.0 + 3_072.0;
        let deberta = 2.0 * relative + 2.0 * (decoder + 2.0 * 1_872.0) + 48_384.0;
        assert_eq!(cost(Variant::Deberta), 3.0 * (2.0 * deberta + 4.0 * 2.0 * 4_992.0));
        assert_eq!(cost(Variant::NoC2pP2c), 3.0 * 2.0 * (2.0 * layer + 2.0 * decoder + 48_384.0));
        assert_eq!(cost(Variant::NoC2p), cost(Variant::NoP2c));
    }
}
