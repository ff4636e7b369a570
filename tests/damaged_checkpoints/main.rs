//! Whatever can be wrong with a checkpoint is said, not panicked; what is only unusual is read.

#[path = "../common/mod.rs"]
mod common;
mod files;
mod header;
#[path = "../support/checkpoints.rs"]
mod stored;
mod tensors;

use std::{fs, path::PathBuf};

use burn::tensor::Device;
use common::fixture;
use serde_json::Value;
use stored::{deberta, load};
use tempfile::TempDir;

/// A copy of a fixture, to be damaged.
struct Damaged {
    folder: TempDir,
}

impl Damaged {
    fn copy_of(case: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for file in fs::read_dir(fixture(case)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        Self { folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Replaces the bytes of a file.
    fn edit(self, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = fs::read(self.path(file)).unwrap();
        edit(&mut bytes);
        fs::write(self.path(file), bytes).unwrap();
        self
    }

    /// Replaces the header of `model.safetensors`, leaving the data alone.
    fn edit_header(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.edit("model.safetensors", |bytes| {
            let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let mut header = serde_json::from_slice(&bytes[8..data]).unwrap();
            edit(&mut header);
            *bytes = with_header(&header.to_string(), &bytes[data..]);
        })
    }

    /// What opening it and loading a backbone in f32 says.
    fn error(&self) -> String {
        match load(&self.folder, deberta("v3_plain").init(&Device::flex())) {
            Ok((_, report)) => panic!("expected an error, got: {report}"),
            Err(error) => error.to_string(),
        }
    }

    /// Checks that the error names the folder or file and holds all of `parts`.
    #[track_caller]
    fn says(&self, parts: &[&str]) {
        let error = self.error();
        assert!(error.contains(self.folder.path().to_str().unwrap()), "no path in: {error}");
        for part in parts {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
    }
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

const TENSOR: &str = "encoder.layer.0.output.dense.weight";
