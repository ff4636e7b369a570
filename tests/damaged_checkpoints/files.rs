//! Files that are missing, damaged, or of another kind.

use std::fs;

use deberta_burn::{ModelConfig, checkpoint::Checkpoint};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Damaged, common::fixture};

#[test]
fn a_folder_without_weights() {
    let damaged = Damaged::copy_of("v3_plain");
    fs::remove_file(damaged.path("model.safetensors")).unwrap();
    damaged.says(&["no weights", "looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin"]);
    assert!(Checkpoint::open("/no/such/folder").unwrap_err().to_string().contains("/no/such/folder"));
}

#[test]
fn a_file_cut_short() {
    let plain = || Damaged::copy_of("v3_plain");
    let cut = |length| plain().edit("model.safetensors", |bytes| bytes.truncate(length));
    cut(0).says(&["0 bytes are too few", "cut short"]);
    cut(5).says(&["5 bytes are too few", "cut short"]);
    cut(100).says(&["the header takes", "but 92 follow", "cut short"]);
    let length = fs::read(fixture("v3_plain").join("model.safetensors")).unwrap().len();
    cut(length - 1).says(&["tensor `", "of the data but the file holds", "cut short"]);
}

#[test]
fn a_file_too_long() {
    let damaged = Damaged::copy_of("v3_plain").edit("model.safetensors", |bytes| bytes.extend([0; 3]));
    damaged.says(&["model.safetensors", "3 bytes follow the last tensor"]);
}

#[test]
fn something_else_than_safetensors() {
    let replaced =
        |text: &'static [u8]| Damaged::copy_of("v3_plain").edit("model.safetensors", |bytes| *bytes = text.to_vec());
    replaced(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n").says(&["Git LFS pointer", "git lfs pull"]);
    replaced(b"<!DOCTYPE html><html>Not found</html>").says(&["the format allows 100000000", "not a safetensors file"]);
    replaced(b"\x04\0\0\0\0\0\0\0{]}}").says(&["the header of", "not valid JSON"]);
    replaced(b"\x04\0\0\0\0\0\0\0\xff\xfe{}").says(&["the header of", "not valid JSON"]);
}

#[test]
fn folders_for_other_software_are_told_by_name() {
    for (file, meaning) in [
        ("adapter_config.json", "PEFT adapter"),
        ("flax_model.msgpack", "Flax"),
        ("tf_model.h5", "TensorFlow"),
        ("model.onnx", "ONNX"),
        ("model-00001-of-00002.safetensors", "without the index"),
    ] {
        let folder = Damaged::copy_of("v3_plain");
        fs::rename(folder.path("model.safetensors"), folder.path(file)).unwrap();
        folder.says(&[meaning, "looked for model.safetensors"]);
    }
    let adapter = TempDir::new().unwrap();
    fs::write(adapter.path().join("adapter_config.json"), "{}").unwrap();
    let error = ModelConfig::from_folder(&adapter).unwrap_err().to_string();
    assert!(error.contains("PEFT adapter") && error.contains("--adapter"), "{error}");
}

#[test]
fn pointers_of_git_lfs_are_told_in_every_file() {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
    for (case, file) in [
        ("v3_plain", "model.safetensors"),
        ("v3_sharded", "model.safetensors.index.json"),
        ("v3_sharded", "model-00001-of-00002.safetensors"),
        ("v3_bin", "pytorch_model.bin"),
        ("v1_plain", "config.json"),
    ] {
        let damaged = Damaged::copy_of(case).edit(file, |bytes| *bytes = POINTER.to_vec());
        damaged.says(&[file, "Git LFS pointer", "git lfs pull"]);
    }
}

#[test]
fn shards_must_be_complete() {
    let (first, index) = ("model-00001-of-00002.safetensors", "model.safetensors.index.json");
    let lost = Damaged::copy_of("v3_sharded");
    fs::remove_file(lost.path(first)).unwrap();
    lost.says(&[index, first, "is not there", "download"]);

    let edit_index = |edit: fn(&mut Value)| {
        Damaged::copy_of("v3_sharded").edit(index, |bytes| {
            let mut index = serde_json::from_slice(bytes).unwrap();
            edit(&mut index);
            *bytes = index.to_string().into_bytes();
        })
    };
    edit_index(|index| index["weight_map"]["extra.weight"] = json!("model-00002-of-00002.safetensors")).says(&[
        index,
        "`extra.weight`: the index says that it is in `model-00002-of-00002.safetensors`, but it is not",
    ]);
    edit_index(|index| index["weight_map"]["x"] = json!("../elsewhere.safetensors")).says(&[
        index,
        "../elsewhere.safetensors",
        "beside it",
    ]);
    edit_index(|index| index["weight_map"] = json!([])).says(&[index, "not valid JSON"]);
    Damaged::copy_of("v3_sharded").edit(first, |bytes| bytes.truncate(bytes.len() - 1)).says(&[first, "cut short"]);
    let twice = Damaged::copy_of("v3_sharded");
    fs::copy(twice.path(first), twice.path("model-00002-of-00002.safetensors")).unwrap();
    twice.says(&[index, "is in two shards"]);
}

#[test]
fn a_damaged_pytorch_file() {
    for case in ["v3_bin", "v3_bin_legacy"] {
        let length = fs::read(fixture(case).join("pytorch_model.bin")).unwrap().len();
        for cut in [0, 1, 100, length / 2, length - 1] {
            let damaged = Damaged::copy_of(case).edit("pytorch_model.bin", |bytes| bytes.truncate(cut));
            damaged.says(&["pytorch_model.bin", "copy it again"]);
        }
    }
}

#[test]
fn a_v1_checkpoint_needs_its_configuration() {
    let damaged = Damaged::copy_of("v1_plain");
    fs::remove_file(damaged.path("config.json")).unwrap();
    damaged.says(&["config.json"]);
    let heads = |heads: usize| {
        Damaged::copy_of("v1_plain").edit("config.json", |bytes| {
            let mut config: Value = serde_json::from_slice(bytes).unwrap();
            config["num_attention_heads"] = json!(heads);
            config["hidden_size"] = json!(5 * heads);
            *bytes = config.to_string().into_bytes();
        })
    };
    heads(5).says(&["attention.self.in_proj.weight` has the shape [36, 12]", "multiple of the 5 attention heads"]);
}
