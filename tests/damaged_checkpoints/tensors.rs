//! Tensors: their names, shapes and values.

use std::{fs, path::Path};

use burn::tensor::{DType, Device, FloatDType};
use deberta_burn::{
    ModelConfig,
    checkpoint::{self, Checkpoint, HeadPolicy, Header, LoadOptions},
    heads::{MaskedLm, MaskedLmLayout, SequenceClassification},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Damaged, TENSOR,
    common::fixture,
    stored::{deberta, load, tensors, written},
    with_header,
};

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
fn heads_are_required_or_initialised() {
    let config = deberta("v3_sequence_single");
    let labels = config.task.num_labels();
    let fresh = |device: &Device| SequenceClassification::new(&deberta("v3_sequence_single").into(), device);
    let options = |head| LoadOptions { head, dtype: FloatDType::F16 };
    let device = Device::flex();

    // The backbone alone: the whole head is missing.
    let backbone = TempDir::new().unwrap();
    let (module, _) = load(fixture("v3_sequence_single"), config.init(&device)).unwrap();
    checkpoint::write(&module, &ModelConfig::from(config.clone()), &backbone, None).unwrap();
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
    checkpoint::write(&module, &ModelConfig::from(config), &target, None).unwrap();
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
