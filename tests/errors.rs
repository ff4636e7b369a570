//! Programs tell errors apart by their kind.

#[path = "common/repository.rs"]
mod repository;

use std::{fs, path::PathBuf};

use burn::tensor::Device;
use deberta_burn::{
    Error, ModelConfig,
    checkpoint::{Checkpoint, LoadOptions},
    config::{Preset, ProblemType},
    data::{LabelEncoder, LabelNotation, TextColumns, read_squad, read_table},
    error::Row,
    heads::SequenceClassification,
    tokenizer::{Batch, EncodeOptions, Padding, Tokenizer, Truncation},
    training::TrainingSettings,
};
use repository::fixture;
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, content)| fs::write(folder.path().join(name), content).unwrap());
    folder
}

/// A folder with one file, and the path of that file.
fn file(name: &str, content: &[u8]) -> (TempDir, PathBuf) {
    let folder = folder(&[(name, content)]);
    let path = folder.path().join(name);
    (folder, path)
}

fn columns() -> TextColumns {
    TextColumns { text: "text".into(), pair: None, label: Some("label".into()) }
}

macro_rules! assert_kind {
    ($result:expr, $kind:pat $(if $guard:expr)?) => {{
        let error = $result.err().expect("an error");
        assert!(matches!(&error, $kind $(if $guard)?), "{error:?}");
    }};
}

#[test]
fn what_is_not_there_is_missing() {
    let empty = folder(&[]);
    let at = empty.path();
    assert_kind!(ModelConfig::from_folder(at), Error::Missing { path, .. } if *path == at.join("config.json"));
    assert_kind!(Checkpoint::open(at), Error::Missing { path, .. } if path == at);
    assert_kind!(Tokenizer::from_folder(at), Error::Missing { path, .. } if path == at);
    assert_kind!(Tokenizer::from_folder(at.join("none")), Error::Missing { path, .. } if *path == at.join("none"));
    assert_kind!(read_table(at.join("a.csv"), &columns()), Error::Missing { path, .. } if *path == at.join("a.csv"));

    let shard = "model-00001-of-00002.safetensors";
    let index = fs::read(fixture("v3_sharded").join("model.safetensors.index.json")).unwrap();
    let sharded = folder(&[("model.safetensors.index.json", &index)]);
    assert_kind!(Checkpoint::open(&sharded), Error::Missing { path, .. } if *path == sharded.path().join(shard));
    // A folder of a kind that is read here, but for one of its files.
    assert_kind!(Checkpoint::open(folder(&[(shard, b"")])), Error::Missing { .. });
    assert_kind!(Tokenizer::from_folder(folder(&[("vocab.json", b"{}")])), Error::Missing { .. });
}

#[test]
fn what_is_made_for_other_software_is_unsupported() {
    let adapter = folder(&[("adapter_config.json", b"{}")]);
    assert_kind!(ModelConfig::from_folder(&adapter), Error::Unsupported { .. });
    assert_kind!(Checkpoint::open(&adapter), Error::Unsupported { .. });
    assert_kind!(Tokenizer::from_folder(folder(&[("vocab.txt", b"")])), Error::Unsupported { .. });
    let bert = folder(&[("config.json", br#"{"model_type": "bert"}"#)]);
    assert_kind!(ModelConfig::from_folder(&bert), Error::Unsupported { subject, .. } if subject.contains("config.json"));
}

#[test]
fn a_bad_configuration_names_file_and_key() {
    let (_folder, path) = file("config.json", br#"{"model_type": "deberta-v2", "hidden_size": 0}"#);
    assert_kind!(
        ModelConfig::from_file(&path),
        Error::Config { file: Some(file), key, .. } if *file == path && key == "hidden_size"
    );
    assert_kind!(ModelConfig::from_json("{}"), Error::Config { file: None, key, .. } if key == "model_type");
    assert_kind!(ModelConfig::from_json("{"), Error::Json { .. });
}

#[test]
fn bad_files_are_told_from_bad_rows() {
    let (_folder, path) = file("a.csv", b"version https://git-lfs.github.com/spec/v1\n");
    assert_kind!(read_table(&path, &columns()), Error::File { path: named, .. } if *named == path);
    let (_folder, path) = file("a.csv", b"text,label\n");
    assert_kind!(read_table(path, &columns()), Error::File { .. });
    for content in [&b"text,label\na,1\nb\n"[..], b"text,label\na,1\n\xff,1\n"] {
        let (_folder, path) = file("a.csv", content);
        assert_kind!(read_table(path, &columns()), Error::Row { row: Row::Line(3), .. });
    }
    let squad = br#"[{"id": 7, "question": "Who?", "context": "Ada", "answers": []}]"#;
    let (_folder, path) = file("a.json", squad);
    assert_kind!(read_squad(path), Error::Row { row: Row::Question(id), .. } if id == "`7`");

    let (_folder, path) = file("a.csv", b"text,label\na,\n");
    let rows = read_table(&path, &columns()).unwrap();
    let labels = |kind| LabelEncoder::from_rows(kind, &LabelNotation::default(), &rows, &path);
    assert_kind!(labels(ProblemType::SingleLabelClassification), Error::Row { row: Row::Line(2), .. });
}

#[test]
fn bad_tensors_are_told_from_bad_checkpoints() {
    let (_folder, path) = file("model.safetensors", b"<!DOCTYPE html>");
    assert_kind!(Checkpoint::open(path.parent().unwrap()), Error::Checkpoint { path: named, .. } if *named == path);

    // A backbone alone, for a head that has to be there: the first tensor that is missing.
    let config = ModelConfig::from_folder(fixture("v3_plain")).unwrap();
    let head = SequenceClassification::new(&config, &Device::flex());
    let loaded = Checkpoint::open(fixture("v3_plain")).unwrap().load(head, &LoadOptions::default());
    assert_kind!(loaded, Error::Tensor { name, .. } if name == "pooler.dense.weight");
}

#[test]
fn what_a_program_hands_over_is_an_input_a_setting_or_a_text() {
    let settings = TrainingSettings { learning_rate: f64::NAN, ..TrainingSettings::default() };
    assert_kind!(settings.validate(), Error::Setting { name, .. } if name == "--learning-rate");
    assert_kind!("deberta-v9".parse::<Preset>(), Error::Setting { .. });
    assert_kind!(Batch::collate(&[], 0, Padding::Longest), Error::Input { .. });
    let tokenizer = Tokenizer::from_folder(fixture("small_tokenizer")).unwrap();
    let short = EncodeOptions { max_length: 4, truncation: Truncation::Error, ..EncodeOptions::default() };
    let texts = ["a".into(), "far more than four tokens".into()];
    assert_kind!(tokenizer.encode(&texts, &short), Error::Text { index: 1, .. });
    assert_kind!(deberta_burn::device::device("tpu"), Error::Device { device, .. } if device == "tpu");
}
