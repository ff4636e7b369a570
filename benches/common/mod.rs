//! What the criterion benches share.

#[path = "../../examples/common/allocator.rs"]
pub mod allocator;

use deberta_burn::{DebertaConfig, ModelConfig, config::Preset};

/// DeBERTa of a preset's shape.
pub fn config(preset: Preset) -> DebertaConfig {
    match preset.config() {
        ModelConfig::Deberta(config) => config,
        ModelConfig::Roberta(_) => panic!("{} is not a DeBERTa", preset.name()),
    }
}
