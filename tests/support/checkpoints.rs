//! Fixtures as checkpoints, and what is in a file.

use std::{fs, path::Path};

use burn::{
    module::Module,
    tensor::{DType, Device, FloatDType},
};
use deberta_burn::{
    DebertaConfig, ModelConfig, Result,
    checkpoint::{self, Checkpoint, Header, LoadOptions, LoadReport},
};
use tempfile::TempDir;

use crate::common::fixture;

/// The configuration of a fixture.
pub fn deberta(case: &str) -> DebertaConfig {
    match ModelConfig::from_folder(fixture(case)).unwrap() {
        ModelConfig::Deberta(config) => config,
        ModelConfig::Roberta(_) => panic!("{case} is a RoBERTa"),
    }
}

/// The bytes of every tensor of a safetensors file.
pub fn tensors(folder: &Path) -> Vec<(String, DType, Vec<usize>, Vec<u8>)> {
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let mut tensors: Vec<_> = Header::parse(&file, &path)
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| (entry.name, entry.dtype, entry.shape, file[entry.range].to_vec()))
        .collect();
    tensors.sort_by(|left, right| left.0.cmp(&right.0));
    tensors
}

/// Opens a checkpoint and fills a module from it.
pub fn load<M: Module>(folder: impl AsRef<Path>, module: M) -> Result<(M, LoadReport)> {
    Checkpoint::open(folder)?.load(module, &LoadOptions::default())
}

/// What `v3_plain` becomes by another route.
pub fn written(folder: impl AsRef<Path>, dtype: FloatDType) -> Vec<(String, DType, Vec<usize>, Vec<u8>)> {
    let options = LoadOptions { dtype, ..Default::default() };
    let module = deberta("v3_plain").init(&Device::flex());
    let (module, _) = Checkpoint::open(folder).unwrap().load(module, &options).unwrap();
    let target = TempDir::new().unwrap();
    checkpoint::write(&module, &ModelConfig::from(deberta("v3_plain")), &target, None).unwrap();
    tensors(target.path())
}
