//! Small checkpoints with random weights and a real tokenizer, for tests of what only depends on shapes and order.

#[path = "../common/repository.rs"]
pub mod repository;

use std::fs;

use burn::{module::Module, tensor::Device};
use deberta_burn::{
    DebertaConfig, ModelConfig, checkpoint,
    config::{DebertaVersion, PositionTerms},
};
use repository::fixture;
use tempfile::TempDir;

/// The length in tokens that the model is for: short, so that tests reach it.
pub const LENGTH: usize = 32;

/// A DeBERTa-v3 in small, with these labels.
pub fn config(labels: &[&str]) -> DebertaConfig {
    let mut config = DebertaConfig::new(DebertaVersion::V2);
    // A few more rows than there are tokens, as in the published models.
    config.vocab_size = 1540;
    config.hidden_size = 16;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 2;
    config.intermediate_size = 24;
    config.max_position_embeddings = LENGTH;
    config.relative_attention = true;
    config.position_buckets = 8;
    config.pos_att_type = PositionTerms { c2p: true, p2c: true };
    config.position_biased_input = false;
    config.type_vocab_size = 0;
    // Large enough for answers to differ from text to text.
    config.initializer_range = 0.5;
    config.task.labels = labels.iter().map(|&label| label.to_owned()).collect();
    config
}

/// A folder with that configuration, the model that `new` makes of it, and the tokenizer of `tests/fixtures/small_tokenizer`.
pub fn folder<M: Module>(config: DebertaConfig, new: impl FnOnce(&ModelConfig, &Device) -> M) -> TempDir {
    let config = ModelConfig::from(config);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = new(&config, &Device::flex());
    checkpoint::write(&model, &config, folder.path(), None).expect("a checkpoint");
    let tokenizer = fixture("small_tokenizer");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizer.join(file), folder.path().join(file)).expect("the small tokenizer");
    }
    folder
}
