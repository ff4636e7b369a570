//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use deberta_burn::{ModelConfig, device::device};

/// A folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Every fixture folder that holds a file of this name, sorted.
pub fn fixtures_with(file: &str) -> Vec<String> {
    let folders = std::fs::read_dir(fixture("")).expect("tests/fixtures").map(|entry| entry.expect("an entry"));
    let mut names: Vec<_> = folders
        .filter(|entry| entry.path().join(file).exists())
        .map(|entry| entry.file_name().into_string().expect("an ASCII name"))
        .collect();
    names.sort();
    names
}

/// Both CPU backends.
pub fn cpu_devices() -> [(&'static str, Device); 2] {
    ["flex", "ndarray"].map(|name| (name, device(name).expect("a CPU backend")))
}

/// The configuration of a fixture with every dropout off, so that training arithmetic can be compared.
pub fn config_without_dropout(name: &str) -> ModelConfig {
    let mut config = ModelConfig::from_folder(fixture(name)).expect("a fixture's config.json");
    match &mut config {
        ModelConfig::Deberta(config) => {
            config.hidden_dropout_prob = 0.0;
            config.attention_probs_dropout_prob = 0.0;
            config.pooler_dropout = 0.0;
            config.cls_dropout = None;
        }
        ModelConfig::Roberta(config) => {
            config.hidden_dropout_prob = 0.0;
            config.attention_probs_dropout_prob = 0.0;
            config.classifier_dropout = None;
        }
    }
    config
}
