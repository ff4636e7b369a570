//! Checkpoints: every fixture goes in, comes out bit for bit, and whatever can be wrong with a file is said, not panicked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    tensor::{DType, Device, FloatDType},
};
use deberta_burn::{
    DebertaConfig, DebertaModel, ModelConfig, Result, RobertaConfig, RobertaModel,
    checkpoint::{self, Checkpoint, HeadPolicy, Header, LoadOptions, LoadReport},
    heads::{
        DebertaForMaskedLm, MaskedLmLayout, MultipleChoice, QuestionAnswering, ReplacedTokenDetection,
        RobertaForMaskedLm, SequenceClassification, TokenClassification,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(case)
}

fn deberta(case: &str) -> DebertaConfig {
    match ModelConfig::from_folder(fixture(case)).unwrap() {
        ModelConfig::Deberta(config) => config,
        ModelConfig::Roberta(_) => panic!("{case} is a RoBERTa"),
    }
}

fn roberta(case: &str) -> RobertaConfig {
    match ModelConfig::from_folder(fixture(case)).unwrap() {
        ModelConfig::Roberta(config) => config,
        ModelConfig::Deberta(_) => panic!("{case} is a DeBERTa"),
    }
}

/// The bytes of every tensor of a safetensors file.
fn tensors(folder: &Path) -> Vec<(String, DType, Vec<usize>, Vec<u8>)> {
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

fn load<M: Module>(folder: impl AsRef<Path>, module: M) -> Result<(M, LoadReport)> {
    Checkpoint::open(folder)?.load(module, &LoadOptions::default())
}

#[expect(deprecated, reason = "ndarray is supported as long as burn has it")]
fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

/// Loads a fixture and writes it again: the same tensors under the same keys, bit for bit, apart from the keys that contain
/// one of `left_over`, for which this module has no place, and a configuration that means the same.
fn goes_round<M: Module>(case: &str, left_over: &[&str], make: impl Fn(&Device) -> M) {
    let config = ModelConfig::from_folder(fixture(case)).unwrap();
    let (unused, mut expected): (Vec<_>, Vec<_>) =
        tensors(&fixture(case)).into_iter().partition(|(name, ..)| left_over.iter().any(|part| name.contains(part)));
    let unused: Vec<String> = unused.into_iter().map(|(name, ..)| name).collect();
    // The packed projections of v1 become three tensors.
    let packed = expected.iter().filter(|(name, ..)| name.ends_with("in_proj.weight")).count();
    let summary = format!("{} tensors loaded", expected.len() + 2 * packed);
    if case == "v1_plain" || case == "v2_conv" {
        // A bare backbone in the file of a head; it is written as what it is.
        expected.iter_mut().for_each(|(name, ..)| *name = name.replace("deberta.", ""));
    }

    for device in devices() {
        let (module, report) = load(fixture(case), make(&device)).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(report.to_string().starts_with(&summary), "{case}: {report}");
        let mut found = [report.ignored, report.unexpected].concat();
        found.sort();
        assert_eq!(found, unused, "{case}");

        let folder = TempDir::new().unwrap();
        checkpoint::write(&module, &config, &folder, None).unwrap();
        let written = tensors(folder.path());
        assert_eq!(written.len(), expected.len(), "{case}");
        for (written, expected) in written.iter().zip(&expected) {
            assert_eq!((&written.0, written.1, &written.2), (&expected.0, expected.1, &expected.2), "{case}");
            assert!(written.3 == expected.3, "{case}: `{}` changed", written.0);
        }
        let (_, report) = load(&folder, make(&device)).unwrap();
        assert_eq!(report.to_string(), summary, "{case}");
        let written = ModelConfig::from_folder(&folder).unwrap();
        assert_eq!((written.task(), written.max_length()), (config.task(), config.max_length()), "{case}");
    }
}

#[test]
fn backbones_go_round() {
    for case in
        ["v1_absolute", "v1_talking_heads", "v1_clamped", "v1_c2p", "v1_p2c", "v2_c2p", "v2_p2c", "v3_plain", "v3_long"]
    {
        goes_round(case, &[], |device| deberta(case).init(device));
    }
    for case in ["v1_plain", "v2_conv"] {
        goes_round(case, &["position_embeddings", "lm_predictions"], |device| deberta(case).init(device));
    }
    goes_round("roberta", &[], |device| roberta("roberta").init_with_pooler(device));
}

#[test]
fn classifiers_go_round() {
    for case in [
        "v1_sequence_biased_types",
        "v3_sequence_single",
        "v3_sequence_regression",
        "v3_sequence_multi_label_embed_proj",
    ] {
        goes_round(case, &[], |device| SequenceClassification::<DebertaModel>::new(&deberta(case), device));
    }
    let case = "roberta_sequence";
    goes_round(case, &[], |device| SequenceClassification::<RobertaModel>::new(&roberta(case), device));
}

#[test]
fn other_heads_go_round() {
    let case = "v2_token_conv_groups";
    goes_round(case, &[], |device| TokenClassification::<DebertaModel>::new(&deberta(case), device));
    for case in ["v1_question_answering", "v2_question_answering_separate"] {
        goes_round(case, &[], |device| QuestionAnswering::<DebertaModel>::new(&deberta(case), device));
    }
    for case in ["v1_multiple_choice_talking_heads", "v2_multiple_choice"] {
        goes_round(case, &[], |device| MultipleChoice::<DebertaModel>::new(&deberta(case), device));
    }
    goes_round("rtd_v3", &["_weight"], |device| ReplacedTokenDetection::new(&deberta("rtd_v3"), device));
}

#[test]
fn masked_language_models_go_round() {
    for (case, layout) in [
        ("emd_v1", MaskedLmLayout::EnhancedMaskDecoder),
        ("emd_v3", MaskedLmLayout::EnhancedMaskDecoder),
        ("v2_masked_lm", MaskedLmLayout::LastLayer),
        ("v2_masked_lm_legacy", MaskedLmLayout::Legacy),
        ("v1_masked_lm_legacy", MaskedLmLayout::Legacy),
    ] {
        assert_eq!(Checkpoint::open(fixture(case)).unwrap().masked_lm_layout(), Some(layout), "{case}");
        goes_round(case, &["position_ids", "predictions.decoder"], |device| {
            DebertaForMaskedLm::new(&deberta(case), layout, device).unwrap()
        });
    }
    for case in ["v3_plain", "rtd_v3"] {
        assert_eq!(Checkpoint::open(fixture(case)).unwrap().masked_lm_layout(), None, "{case}");
    }
    let case = "roberta_masked_lm";
    goes_round(case, &["position_ids", "lm_head.decoder"], |device| RobertaForMaskedLm::new(&roberta(case), device));
}

/// What `v3_plain` becomes by another route.
fn written(folder: impl AsRef<Path>, dtype: FloatDType) -> Vec<(String, DType, Vec<usize>, Vec<u8>)> {
    let options = LoadOptions { dtype, ..Default::default() };
    let module = deberta("v3_plain").init(&Device::flex());
    let (module, _) = Checkpoint::open(folder).unwrap().load(module, &options).unwrap();
    let target = TempDir::new().unwrap();
    checkpoint::write(&module, &deberta("v3_plain").into(), &target, None).unwrap();
    tensors(target.path())
}

#[test]
fn every_kind_of_file_holds_the_same() {
    let expected = written(fixture("v3_plain"), FloatDType::F32);
    for case in ["v3_sharded", "v3_bin", "v3_bin_legacy", "v3_bin_object"] {
        assert!(written(fixture(case), FloatDType::F32) == expected, "{case}");
    }
}

#[test]
fn what_is_no_tensor_is_listed() {
    let module = |case| deberta(case).init(&Device::flex());
    for case in ["v3_bin", "v3_bin_legacy"] {
        let (_, report) = load(fixture(case), module(case)).unwrap();
        assert_eq!(report.skipped, EXTRAS, "{case}");
        assert!(report.to_string().contains("4 entries are not tensors: "), "{report}");
    }
}

#[test]
fn every_type_is_read_and_written_as_every_other() {
    let f32s = |bytes: &[u8], dtype| -> Vec<f32> {
        match dtype {
            DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            DType::F16 => {
                bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            _ => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        }
    };
    let exact = tensors(&fixture("v3_plain"));
    for case in ["v3_plain", "v3_f16", "v3_bf16"] {
        for dtype in [FloatDType::F32, FloatDType::F16, FloatDType::BF16] {
            let found = written(fixture(case), dtype);
            assert_eq!(found.len(), exact.len());
            for ((name, found_type, shape, found), (expected_name, _, expected_shape, expected)) in
                found.iter().zip(&exact)
            {
                assert_eq!((name, *found_type, shape), (expected_name, dtype.into(), expected_shape));
                for (found, expected) in f32s(found, *found_type).into_iter().zip(f32s(expected, DType::F32)) {
                    // Two roundings to bf16's 8 bits, each off by at most 2^-8; below f16's normal numbers, 2^-24 absolute.
                    let tolerance = expected.abs() * 2f32.powi(-7) + 2f32.powi(-24);
                    assert!((found - expected).abs() <= tolerance, "{case} {name}: {found} for {expected}");
                }
            }
            if case == "v3_plain" && dtype == FloatDType::F32 || case == "v3_f16" && dtype == FloatDType::F16 {
                assert!(found == tensors(&fixture(case)), "{case} changed without a cast");
            }
        }
    }
}

#[test]
fn a_rewritten_file_holds_the_same() {
    // Every layout and every kind of file; the absolute positions of the enhanced mask decoder are kept.
    for case in ["v3_plain", "v1_plain", "v1_talking_heads", "v2_conv", "emd_v3", "roberta", "v3_sharded", "v3_bin"] {
        let folder = TempDir::new().unwrap();
        checkpoint::rewrite(&Checkpoint::open(fixture(case)).unwrap(), &folder, FloatDType::F32).unwrap();
        let (written, source) = (Checkpoint::open(&folder).unwrap(), Checkpoint::open(fixture(case)).unwrap());
        let listed = |checkpoint: &Checkpoint| -> Vec<(String, Vec<usize>)> {
            checkpoint.tensors().map(|(name, _, shape)| (name.to_owned(), shape.to_vec())).collect()
        };
        assert_eq!(listed(&written), listed(&source), "{case}");
        if fixture(case).join("model.safetensors").exists() {
            assert!(tensors(folder.path()) == tensors(&fixture(case)), "{case} changed without a cast");
        }
    }
    let folder = TempDir::new().unwrap();
    checkpoint::rewrite(&Checkpoint::open(fixture("v3_plain")).unwrap(), &folder, FloatDType::F16).unwrap();
    assert!(tensors(folder.path()) == written(fixture("v3_plain"), FloatDType::F16));
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["torch_dtype"], "float16");
}

#[test]
#[expect(deprecated, reason = "ndarray is supported as long as burn has it")]
fn a_type_the_device_lacks_is_an_error() {
    let options = LoadOptions { dtype: FloatDType::BF16, ..Default::default() };
    let module = deberta("v3_plain").init(&Device::ndarray());
    let message = Checkpoint::open(fixture("v3_plain")).unwrap().load(module, &options).unwrap_err().to_string();
    assert!(message.contains("does not compute in BF16; use f32"), "{message}");
}

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
/// What the fixture script put among the tensors.
const EXTRAS: [&str; 4] = ["config", "note", "nothing", "step"];

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
    let module = DebertaForMaskedLm::new(&deberta(case), MaskedLmLayout::Legacy, &Device::flex()).unwrap();
    let (_, report) = load(&copies.folder, module).unwrap();
    assert_eq!(report.unexpected, ["elsewhere.bias", "elsewhere.weight"], "{report}");
    assert!(report.used.contains(&"cls.predictions.decoder.weight".into()), "{report}");
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
    let fresh = |device: &Device| SequenceClassification::<DebertaModel>::new(&deberta("v3_sequence_single"), device);
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
    let two = SequenceClassification::<DebertaModel>::new(&deberta("v3_sequence_regression"), &device);
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

#[test]
fn what_was_there_is_replaced_in_one_piece() {
    let config = deberta("v3_plain");
    let folder = TempDir::new().unwrap();
    let (module, _) = load(fixture("v3_plain"), config.init(&Device::flex())).unwrap();
    checkpoint::write(&module, &config.clone().into(), &folder, None).unwrap();
    // On top of the very file the module's tensors may still be mapped from.
    let (module, _) = load(&folder, config.init(&Device::flex())).unwrap();
    checkpoint::write(&module, &config.clone().into(), &folder, Some(FloatDType::BF16)).unwrap();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.json", "model.safetensors"]);
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    assert!(text.contains(r#""torch_dtype": "bfloat16""#), "{text}");

    fs::write(folder.path().join("file"), "").unwrap();
    let message = checkpoint::write(&module, &config.into(), folder.path().join("file"), None).unwrap_err().to_string();
    assert!(message.contains("cannot create"), "{message}");
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
        case in prop::sample::select(vec!["v3_plain", "v1_plain", "v3_sharded", "v3_bin", "v3_bin_legacy", "v3_bin_object"]),
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
