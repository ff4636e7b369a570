//! Whatever can be wrong with a checkpoint is said, not panicked; what is only unusual is read.

mod common;
#[path = "support/checkpoints.rs"]
mod stored;

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, Device, FloatDType};
use common::fixture;
use deberta_burn::{
    ModelConfig,
    checkpoint::{self, Checkpoint, HeadPolicy, Header, LoadOptions},
    heads::{MaskedLm, MaskedLmLayout, SequenceClassification},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use stored::{deberta, load, tensors, written};
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
fn a_header_that_lies() {
    let with = |key: &'static str, value: Value| {
        Damaged::copy_of("v3_plain").edit_header(|header| header[TENSOR][key] = value)
    };
    let entry =
        Header::parse(&fs::read(fixture("v3_plain").join("model.safetensors")).unwrap(), Path::new("")).unwrap();
    let header_end = entry.entries[0].range.start;
    let entry = entry.entries.into_iter().find(|entry| entry.name == TENSOR).unwrap();
    let (start, end) = (entry.range.start - header_end, entry.range.end - header_end);

    with("data_offsets", json!([start, u32::MAX])).says(&[TENSOR, "ends at byte 4294967295 of the data", "cut short"]);
    with("data_offsets", json!([end, start])).says(&[TENSOR, "ends before it starts", "damaged"]);
    with("data_offsets", json!([start - 4, end - 4])).says(&["overlaps", "damaged"]);
    with("data_offsets", json!([start, end - 4])).says(&[TENSOR, "but its data takes", "damaged"]);
    with("data_offsets", json!([-1, end])).says(&["not valid JSON"]);
    with("shape", json!([1, 1])).says(&[TENSOR, "is F32 [1, 1] but its data takes", "damaged"]);
    // The product of the extents wraps around to the right number of elements.
    with("shape", json!([1u64 << 63, 2, entry.shape[0], entry.shape[1]])).says(&[TENSOR, "but its data takes"]);
    with("dtype", json!("F64")).says(&[TENSOR, "is F64", "but its data takes"]);
    with("dtype", json!("F8_E4M3")).says(&[TENSOR, "F8_E4M3, which is not supported", "convert"]);
    let removed =
        Damaged::copy_of("v3_plain").edit_header(|header| drop(header.as_object_mut().unwrap().remove(TENSOR)));
    removed.says(&["bytes between", "belong to no tensor", "damaged"]);

    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    Damaged::copy_of("v3_plain")
        .edit("model.safetensors", |bytes| *bytes = with_header(twice, &[0; 8]))
        .says(&["tensor `a` occurs twice"]);
    let huge = r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,18446744073709551615]}}"#;
    Damaged::copy_of("v3_plain")
        .edit("model.safetensors", |bytes| *bytes = with_header(huge, &[]))
        .says(&["`a` ends at byte"]);
}

#[test]
fn data_at_an_odd_address_is_read() {
    let expected = written(fixture("v3_plain"), FloatDType::F32);
    let damaged = Damaged::copy_of("v3_plain").edit("model.safetensors", |bytes| {
        let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..data].to_vec()).unwrap();
        let odd = format!("{}{}", header.trim_end(), " ".repeat(1 + header.trim_end().len() % 2));
        assert_eq!(odd.len() % 2, 1);
        *bytes = with_header(&odd, &bytes[data..]);
    });
    assert!(written(&damaged.folder, FloatDType::F32) == expected);
}

#[test]
fn older_names_and_copies_are_understood() {
    let rename = |header: &mut Value, from: &str, to: &str| {
        let entry = header.as_object_mut().unwrap().remove(from).unwrap();
        header[to] = entry;
    };
    let older = Damaged::copy_of("v3_plain").edit_header(|header| {
        rename(header, "encoder.LayerNorm.weight", "encoder.LayerNorm.gamma");
        rename(header, "encoder.LayerNorm.bias", "encoder.LayerNorm.beta");
    });
    assert!(written(&older.folder, FloatDType::F32) == written(fixture("v3_plain"), FloatDType::F32));

    let case = "v1_masked_lm_legacy";
    let copies = Damaged::copy_of(case).edit_header(|header| {
        rename(header, "deberta.embeddings.word_embeddings.weight", "elsewhere.weight");
        rename(header, "cls.predictions.bias", "elsewhere.bias");
    });
    let module = MaskedLm::new(&deberta(case).into(), MaskedLmLayout::Legacy, &Device::flex()).unwrap();
    let (_, report) = load(&copies.folder, module).unwrap();
    assert_eq!(report.unexpected, ["elsewhere.bias", "elsewhere.weight"], "{report}");
    assert!(report.used.contains(&"cls.predictions.decoder.weight".into()), "{report}");
}

#[test]
fn names_in_front_of_the_model_are_no_part_of_it() {
    let expected = written(fixture("v3_plain"), FloatDType::F32);
    let with_prefix = |prefix: &'static str| {
        Damaged::copy_of("v3_plain").edit_header(|header| {
            let entries = std::mem::take(header).as_object().unwrap().clone();
            *header = entries
                .into_iter()
                .map(|(key, entry)| (if key == "__metadata__" { key } else { format!("{prefix}{key}") }, entry))
                .collect::<serde_json::Map<_, _>>()
                .into();
        })
    };
    for prefix in ["module.", "_orig_mod.", "model.", "deberta.", "module.model._orig_mod.", "state_dict.net.deberta."]
    {
        assert!(written(&with_prefix(prefix).folder, FloatDType::F32) == expected, "{prefix}");
    }
    let two = with_prefix("a.").edit_header(|header| {
        let words = header["a.embeddings.word_embeddings.weight"].take();
        header.as_object_mut().unwrap().remove("a.embeddings.word_embeddings.weight");
        let (rows, columns) = (words["shape"][0].as_u64().unwrap() / 2, words["shape"][1].as_u64().unwrap());
        let start = words["data_offsets"][0].as_u64().unwrap();
        let entry = |start| json!({"dtype": "F32", "shape": [rows, columns], "data_offsets": [start, start + 4 * rows * columns]});
        header["a.embeddings.word_embeddings.weight"] = entry(start);
        header["b.deberta.embeddings.word_embeddings.weight"] = entry(start + 4 * rows * columns);
    });
    two.says(&["model.safetensors", "several models, `a.…` and `b.…`"]);
}

#[test]
fn a_file_of_another_model_shows_its_keys() {
    let file = r#"{"conv1.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let other = Damaged::copy_of("v3_plain").edit("model.safetensors", |bytes| *bytes = with_header(file, &[0; 4]));
    other.says(&["is missing", "no key of the file is one of this model's, they are `conv1.weight`"]);
}

#[test]
fn folders_for_other_software_are_told_by_name() {
    for (file, meaning) in [
        ("adapter_config.json", "PEFT adapter"),
        ("flax_model.msgpack", "Flax"),
        ("tf_model.h5", "TensorFlow"),
        ("model.onnx", "ONNX"),
        ("model-00001-of-00002.safetensors", "without the index"),
        ("gliner_config.json", "GLiNER"),
    ] {
        let folder = Damaged::copy_of("v3_plain");
        fs::rename(folder.path("model.safetensors"), folder.path(file)).unwrap();
        folder.says(&[meaning, "looked for model.safetensors"]);
    }
    let adapter = TempDir::new().unwrap();
    fs::write(adapter.path().join("adapter_config.json"), "{}").unwrap();
    let error = ModelConfig::from_folder(&adapter).unwrap_err().to_string();
    assert!(error.contains("PEFT adapter") && error.contains("merge_and_unload"), "{error}");
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
fn backbones_must_fit() {
    let renamed = Damaged::copy_of("v3_plain").edit_header(|header| {
        let entry = header.as_object_mut().unwrap().remove(TENSOR).unwrap();
        header["another"] = entry;
    });
    renamed.says(&[
        "`encoder.layer.0.output.dense.weight` of shape [",
        "is missing",
        "check that config.json belongs to these weights",
    ]);

    let misshapen = Damaged::copy_of("v3_plain").edit_header(|header| {
        let shape = header[TENSOR]["shape"].as_array().unwrap().clone();
        header[TENSOR]["shape"] = json!([shape[1], shape[0]]);
    });
    misshapen.says(&[
        "`encoder.layer.0.output.dense.weight` has the shape [16, 12], expected [12, 16]",
        "check that config.json belongs",
    ]);

    // As if the rest of the weights had been trained for another head.
    let other_type = Damaged::copy_of("v3_plain").edit_header(|header| header[TENSOR]["dtype"] = json!("I32"));
    other_type.says(&[TENSOR, "the element type is I32, expected F32, F16 or BF16"]);
}

#[test]
fn nan_is_accepted_and_reported() {
    for (case, dtype) in [("v3_plain", 4), ("v3_f16", 2), ("v3_bf16", 2)] {
        let file = fs::read(fixture(case).join("model.safetensors")).unwrap();
        let entries = Header::parse(&file, Path::new("")).unwrap().entries;
        let last = entries.last().unwrap();
        let damaged = Damaged::copy_of(case)
            .edit("model.safetensors", |bytes| bytes[last.range.end - dtype..last.range.end].fill(0xff));
        let (_, report) = load(&damaged.folder, deberta(case).init(&Device::flex())).unwrap();
        assert_eq!(report.not_finite, [last.name.as_str()], "{case}");
        assert!(report.to_string().ends_with(&format!("`{}` holds NaN or infinite values", last.name)), "{report}");
    }
}

#[test]
fn a_value_too_large_for_the_wanted_type_is_reported() {
    let damaged = Damaged::copy_of("v3_plain").edit("model.safetensors", |bytes| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&1e6f32.to_le_bytes());
    });
    let options = |dtype| LoadOptions { dtype, ..Default::default() };
    let report = |dtype| {
        let module = deberta("v3_plain").init(&Device::flex());
        Checkpoint::open(&damaged.folder).unwrap().load(module, &options(dtype)).unwrap().1
    };
    assert_eq!(report(FloatDType::F32).not_finite.len(), 0);
    assert_eq!(report(FloatDType::F16).not_finite.len(), 1);
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
    edit_index(|index| index["weight_map"]["extra.weight"] = json!("model-00002-of-00002.safetensors"))
        .says(&[index, "`extra.weight` is in `model-00002-of-00002.safetensors`, but it is not"]);
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

#[test]
fn heads_are_required_or_initialised() {
    let config = deberta("v3_sequence_single");
    let labels = config.task.num_labels();
    let fresh = |device: &Device| SequenceClassification::new(&deberta("v3_sequence_single").into(), device);
    let options = |head| LoadOptions { head, dtype: FloatDType::F16 };
    let device = Device::flex();

    // The backbone alone: the whole head is missing.
    let backbone = TempDir::new().unwrap();
    let (module, _) = load(fixture("v3_sequence_single"), config.init(&device)).unwrap();
    checkpoint::write(&module, &config.clone().into(), &backbone, None).unwrap();
    let checkpoint = Checkpoint::open(&backbone).unwrap();
    let message = checkpoint.load(fresh(&device), &options(HeadPolicy::Required)).unwrap_err().to_string();
    assert!(message.contains("`pooler.dense.weight` of shape [12, 12] is missing"), "{message}");
    assert!(message.contains("was not trained for this task: fine-tune it first"), "{message}");

    let (module, report) = checkpoint.load(fresh(&device), &options(HeadPolicy::InitialiseIfMissing)).unwrap();
    assert_eq!(report.missing, ["pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"]);
    assert!(
        report.to_string().contains("\n`classifier.weight` is missing: initialised at random, to be trained\n"),
        "{report}"
    );
    // A fresh head takes the type of the rest, or they could not compute together.
    let target = TempDir::new().unwrap();
    checkpoint::write(&module, &config.into(), &target, None).unwrap();
    assert!(tensors(target.path()).iter().all(|(_, dtype, ..)| *dtype == DType::F16));

    // Another number of classes.
    let two = SequenceClassification::new(&deberta("v3_sequence_regression").into(), &device);
    let checkpoint = Checkpoint::open(fixture("v3_sequence_single")).unwrap();
    let message = match checkpoint.load(two.clone(), &LoadOptions::default()) {
        Ok((_, report)) => panic!("{report}"),
        Err(error) => error.to_string(),
    };
    assert!(
        message.contains(&format!("`classifier.weight` has the shape [{labels}, 12], expected [1, 12]")),
        "{message}"
    );
    let (_, report) = checkpoint.load(two, &options(HeadPolicy::InitialiseIfMissing)).unwrap();
    assert_eq!(report.misshapen.len(), 2, "{report}");
}

proptest! {
    /// Whatever the bytes, the header reader gives an answer.
    #[test]
    fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0u64..300, json in ".{0,100}") {
        let _ = Header::parse(&bytes, Path::new("x"));
        let _ = Header::parse(&[&length.to_le_bytes(), bytes.as_slice()].concat(), Path::new("x"));
        let _ = Header::parse(&with_header(&json, &bytes), Path::new("x"));
    }

    /// A damaged file is an error or, if the damage hit a value, loads; it never panics.
    #[test]
    fn no_damage_panics(
        case in prop::sample::select(vec!["v3_plain", "v1_plain", "v3_sharded", "v3_bin", "v3_bin_legacy", "v3_bin_object", "v3_bin_training"]),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let file = match case {
            "v3_plain" | "v1_plain" => "model.safetensors",
            "v3_sharded" => "model-00001-of-00002.safetensors",
            _ => "pytorch_model.bin",
        };
        let damaged = Damaged::copy_of(case).edit(file, |bytes| {
            for (place, value) in places {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        });
        if let Err(error) = load(&damaged.folder, deberta(case).init(&Device::flex())) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// What the header says is what was written.
    #[test]
    fn headers_are_understood(shapes in prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 0..6)) {
        let mut header = json!({ "__metadata__": { "format": "pt" } });
        let mut end = 0;
        for (i, shape) in shapes.iter().enumerate() {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            header[i.to_string()] = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        }
        let parsed = Header::parse(&with_header(&header.to_string(), &vec![0; end]), Path::new("x")).unwrap();
        prop_assert_eq!(parsed.entries.len(), shapes.len());
        for entry in parsed.entries {
            prop_assert_eq!(&entry.shape, &shapes[entry.name.parse::<usize>().unwrap()]);
        }
    }
}
