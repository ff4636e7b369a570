//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod cast;
pub mod repository;

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{ModuleMapper, Param},
    tensor::{Device, Gradients, Tensor},
};
use deberta_burn::{ModelConfig, device::device};
pub use repository::fixture;
use safetensors::SafeTensors;

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

/// Both CPU backends, and a GPU if a backend for one is compiled in.
pub fn devices() -> Vec<(&'static str, Device)> {
    let devices = cpu_devices().into_iter();
    #[cfg(feature = "gpu")]
    let devices = devices.chain([("GPU", gpu())]);
    devices.collect()
}

/// The first GPU of the backends that are compiled in. Without one the tests fail: they were asked for.
#[cfg(feature = "gpu")]
pub fn gpu() -> Device {
    let found = ["cuda", "metal", "vulkan", "wgpu"].into_iter().find_map(|name| device(name).ok());
    found.expect("a GPU, or a Vulkan driver that stands in for one")
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

/// Shapes and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A file of tensors, as numbers.
pub fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let values = match view.dtype() {
            safetensors::Dtype::I64 => {
                view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as f32).collect()
            }
            _ => view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect(),
        };
        (name, (view.shape().to_vec(), values))
    });
    tensors.collect()
}

/// What gradients of a parameter may differ by between two right implementations: a part of the largest of them, of which sums
/// over a batch in another order explain a hundredth; and, because some vanish in exact arithmetic (a key bias without position
/// terms, say) and are noise on both sides, the roundings of a sum of a thousand terms of the size of the model's largest
/// gradient, `sqrt(1000) * 2^-24`.
pub fn gradient_tolerance(expected: &[f32], largest_of_model: f32) -> f32 {
    1e-4 * largest(expected) + 2e-6 * largest_of_model
}

/// The largest absolute value.
pub fn largest<'a>(values: impl IntoIterator<Item = &'a f32>) -> f32 {
    values.into_iter().fold(0f32, |largest, value| largest.max(value.abs()))
}

/// Puts each parameter's gradient, or zero, in its place.
pub struct IntoGradients<'a>(pub &'a Gradients);

impl ModuleMapper for IntoGradients<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = param.val();
        let gradient = value.grad(self.0).unwrap_or_else(|| value.clone().inner().zeros_like());
        Param::from_tensor(gradient)
    }
}
