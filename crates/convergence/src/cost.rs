//! Floating-point operations of a step, by formula.
//!
//! A product of matrices [a, b] and [b, c] counts 2 a b c, everything else nothing; a step of training counts as three forward
//! passes (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). With length L, width H, feed-forward width F, vocabulary V and M
//! masked positions a sequence,
//!
//! ```text
//! keys, values       4 L H^2                                         of a layer
//! Q queries          4 Q H^2  +  4 Q L H  +  4 Q H F                  projections, attention of contents, feed-forward network
//! c2p                2 Q (2 L - 1) H a sequence,  2 (2 L - 1) H^2 a batch
//! p2c                2 L (2 L - 1) H a sequence,  2 (2 L - 1) H^2 a batch
//! masked words       2 M H^2  +  2 M H V
//! ```
//!
//! A layer has L queries. The last one of an enhanced mask decoder has M, for it is only asked about masked positions, and these
//! twice. A token passes one expert of a Switch layer, and its router, 2 H for each expert, is not counted. Replaced token detection
//! costs a generator of half the layers, and a discriminator with a head of 2 L H^2 + 2 L H.

use crate::{protocol::Settings, variant::Variant};

/// Share of the tokens that are masked.
const MASKED: f64 = 0.15;

/// Operations of a step of pretraining.
pub fn training_step(variant: Variant, settings: &Settings) -> f64 {
    let [length, width, vocabulary] = [settings.length, settings.hidden, settings.vocabulary].map(|size| size as f64);
    let masked = MASKED * length;
    let words = settings.batch_size as f64 * (2.0 * masked * width * width + 2.0 * masked * width * vocabulary);
    let whole = |layers| encoder(variant, settings, &vec![vec![length]; layers]);
    let with_decoder = |layers| whole(layers - 1) + encoder(variant, settings, &[vec![masked; 2]]);
    let forward = match variant {
        Variant::ReplacedToken => {
            let flags = settings.batch_size as f64 * (2.0 * length * width * width + 2.0 * length * width);
            with_decoder((settings.layers / 2).max(2)) + words + whole(settings.layers) + flags
        }
        _ if variant.has_decoder() => with_decoder(settings.layers) + words,
        _ => whole(settings.layers) + words,
    };
    3.0 * forward
}

/// Operations of a batch in layers, each of which attends once or more with so many queries.
fn encoder(variant: Variant, settings: &Settings, layers: &[Vec<f64>]) -> f64 {
    let [length, width, batch] = [settings.length, settings.hidden, settings.batch_size].map(|size| size as f64);
    let rows = 2.0 * length - 1.0;
    let terms = variant.terms();
    let attend = |queries: &f64| {
        let contents = 4.0 * queries * width * width + 4.0 * queries * length * width;
        let feed_forward = 4.0 * queries * width * settings.intermediate() as f64;
        // Content to position is a product for each query, position to content one for each key.
        let products = f64::from(terms.c2p) * queries + f64::from(terms.p2c) * length;
        let positions = 2.0 * products * rows * width;
        batch * (contents + feed_forward + positions) + terms.count() as f64 * 2.0 * rows * width * width
    };
    let keys_and_values = 4.0 * length * width * width;
    layers.iter().map(|passes| batch * keys_and_values + passes.iter().map(attend).sum::<f64>()).sum()
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
        // Keys and values: 4 * 20 * 64 = 5,120. 20 queries: as much, 4 * 20 * 20 * 8 = 12,800 of contents, 4 * 20 * 8 * 32 = 20,480
        // of the feed-forward network. Words, 3 places: 2 * 3 * 64 + 2 * 3 * 8 * 1000 = 48,384.
        let layer = 5_120.0 + 5_120.0 + 12_800.0 + 20_480.0;
        assert_eq!(cost(Variant::Roberta), 3.0 * 2.0 * (3.0 * layer + 48_384.0));
        // A position term: 2 * 20 * 39 * 8 = 12,480 a sequence, 2 * 39 * 64 = 4,992 a batch.
        let relative = layer + 2.0 * 12_480.0;
        assert_eq!(cost(Variant::NoEmd), 3.0 * (2.0 * (3.0 * relative + 48_384.0) + 3.0 * 2.0 * 4_992.0));
        // 3 queries: 4 * 3 * 64 = 768; 4 * 3 * 20 * 8 = 1,920; 4 * 3 * 8 * 32 = 3,072; c2p 2 * 3 * 39 * 8 = 1,872; p2c as before.
        let pass = 768.0 + 1_920.0 + 3_072.0;
        let decoder = 5_120.0 + 2.0 * (pass + 1_872.0 + 12_480.0);
        let deberta = 2.0 * relative + decoder + 48_384.0;
        assert_eq!(cost(Variant::Deberta), 3.0 * (2.0 * deberta + 4.0 * 2.0 * 4_992.0));
        assert_eq!(cost(Variant::NoC2pP2c), 3.0 * 2.0 * (2.0 * layer + 5_120.0 + 2.0 * pass + 48_384.0));
        assert_eq!(cost(Variant::Switch8), cost(Variant::Deberta));
        // Two passes of the decoder over a batch of two.
        assert_eq!(cost(Variant::NoC2p) - cost(Variant::NoP2c), 3.0 * 2.0 * 2.0 * (12_480.0 - 1_872.0));
        // The generator has two layers: one, and the decoder. The discriminator's head: 2 * 20 * 64 + 2 * 20 * 8 = 2,880.
        let both = relative + decoder + 48_384.0 + 3.0 * relative + 2_880.0;
        assert_eq!(cost(Variant::ReplacedToken), 3.0 * (2.0 * both + 6.0 * 2.0 * 4_992.0));
    }
}
