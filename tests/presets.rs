//! The published checkpoints by name: sizes of the models that `models/*/config.json` describe. Parameters are counted by
//! shape and never drawn, so even the largest model costs nothing.

use burn::{module::Module, tensor::Device};
use deberta_burn::{
    ModelConfig,
    config::Preset,
    heads::{MaskedLm, MaskedLmLayout},
};

/// Millions of parameters as published: with the token embeddings, and without them. Heads, poolers, and the absolute positions of
/// the enhanced mask decoder are not counted.
const SIZES: [(Preset, f64, f64); 12] = [
    (Preset::DebertaBase, 138.6, 100.0),
    (Preset::DebertaLarge, 405.2, 353.7),
    (Preset::DebertaXlarge, 757.8, 706.3),
    (Preset::DebertaV2Xlarge, 884.6, 687.8),
    (Preset::DebertaV2Xxlarge, 1564.5, 1367.8),
    (Preset::DebertaV3Xsmall, 70.7, 21.5),
    (Preset::DebertaV3Small, 141.3, 42.9),
    (Preset::DebertaV3Base, 183.8, 85.5),
    (Preset::DebertaV3Large, 434.0, 302.8),
    (Preset::MdebertaV3Base, 278.2, 85.5),
    (Preset::RobertaBase, 124.1, 85.5),
    (Preset::RobertaLarge, 354.3, 302.8),
];

/// Millions, to one decimal.
fn millions(parameters: usize) -> f64 {
    (parameters as f64 / 1e5).round() / 10.0
}

/// Parameters of the model without a head, and of its token embeddings.
fn sizes(preset: Preset, device: &Device) -> (usize, usize) {
    match preset.config() {
        ModelConfig::Deberta(config) => (config.init(device).num_params(), config.vocab_size * config.embedding_size()),
        ModelConfig::Roberta(config) => (config.init(device).num_params(), config.vocab_size * config.hidden_size),
    }
}

#[test]
fn every_model_has_its_published_size() {
    assert_eq!(SIZES.map(|(preset, ..)| preset), Preset::ALL, "a preset has no size here");
    for (preset, total, backbone) in SIZES {
        let (parameters, words) = sizes(preset, &Device::flex());
        let found = (millions(parameters), millions(parameters - words));
        assert_eq!(found, (total, backbone), "{}: {parameters} parameters", preset.name());
    }
}

#[test]
fn every_card_tells_the_size_of_its_model() {
    for (preset, total, backbone) in SIZES {
        let path = format!("{}/models/{}/README.md", env!("CARGO_MANIFEST_DIR"), preset.name());
        let card = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let sizes = format!("{total:.1} M, of which {backbone:.1} M in the backbone");
        assert!(card.contains(&sizes), "{path} does not say: {sizes}");
    }
}

#[test]
fn a_masked_language_model_has_its_token_embeddings_once() {
    let device = Device::flex();
    for preset in Preset::ALL.iter().copied() {
        let (model, _) = sizes(preset, &device);
        let config = preset.config();
        let head = MaskedLm::new(&config, MaskedLmLayout::EnhancedMaskDecoder, &device);
        let found = head.expect("at least two layers").num_params();
        let (hidden, vocabulary, positions) = match config {
            ModelConfig::Deberta(config) => (config.hidden_size, config.vocab_size, config.max_position_embeddings),
            // RoBERTa has its positions at the input, and no decoder.
            ModelConfig::Roberta(config) => (config.hidden_size, config.vocab_size, 0),
        };
        // A square projection with its bias, a LayerNorm, a bias for every word, and the decoder's positions.
        let head = hidden * hidden + hidden + 2 * hidden + vocabulary + positions * hidden;
        assert_eq!(found - model, head, "{}", preset.name());
    }
}
