//! Checkpoints in 8 bits, as compressed-tensors lays them out.

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::{Device, FloatDType, Tensor};
use common::fixture;
use deberta_burn::{
    Backbone, Int8Layers, ModelConfig, ModelInput, Precision, Prepared,
    checkpoint::{self, Checkpoint, FileType, LoadOptions, RangePolicy},
    parity::Reference,
};
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// A checkpoint written in another type.
fn rewritten(folder: impl AsRef<Path>, file_type: impl Into<FileType>) -> TempDir {
    let output = TempDir::new().unwrap();
    checkpoint::rewrite(&Checkpoint::open(folder).unwrap(), &output, file_type, RangePolicy::Refuse).unwrap();
    output
}

fn weights(folder: impl AsRef<Path>) -> Vec<u8> {
    fs::read(folder.as_ref().join("model.safetensors")).unwrap()
}

fn config(folder: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(folder.as_ref().join("config.json")).unwrap()).unwrap()
}

/// The tensors of a file: element type, shape, bytes.
fn tensors(file: &[u8]) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let found = SafeTensors::deserialize(file).unwrap();
    let entry = |(name, view): (&str, TensorView)| {
        (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    found.iter().map(entry).collect()
}

#[test]
fn a_file_in_8_bits_computes_what_weights_in_8_bits_compute_but_for_a_rounding() {
    let device = Device::flex();
    for name in ["v3_long", "v1_clamped", "roberta", "switch_v3_sequence"] {
        let config = ModelConfig::from_folder(fixture(name)).unwrap();
        let input = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
        let input = input.input(&config, &device).unwrap();
        // What is not in 8 bits is in f16.
        let halves = rewritten(fixture(name), FloatDType::F16);
        let states = |folder: &TempDir, precision: Precision| {
            let model = Backbone::new(&config, &device);
            let model = Checkpoint::open(folder).unwrap().load(model, &LoadOptions::default()).unwrap().0;
            // What is given back has the weights that it computed with, as the file has: position tables are made of them, too.
            let model = Prepared::with_precision(model, precision).unwrap().into_inner();
            let model = Prepared::with_precision(model, precision).unwrap();
            model.forward(ModelInput::new(input.input_ids.clone())).last_hidden_state
        };
        let mean = |tensor: Tensor<3>| tensor.abs().mean().into_scalar::<f32>();
        for layers in [Int8Layers::Mixed, Int8Layers::All] {
            let integers = rewritten(&halves, FileType::Int8(layers));
            let [expected, found] = [&halves, &integers].map(|folder| states(folder, Precision::Int8(layers)));
            let error = mean(found - expected.clone()) / mean(expected);
            // The kernel rotates the file's numbers and rounds them once more: as in `precision.rs`.
            assert!(error < 4.0 * 7.9e-3, "{name}, {layers:?}: {error}");
            // In f32 it is the same model with rounded weights.
            let [expected, found] = [&halves, &integers].map(|folder| states(folder, Precision::F32));
            let error = mean(found - expected.clone()) / mean(expected);
            // As above.
            assert!(error > 0.0 && error < 4.0 * 7.9e-3, "{name}, {layers:?} in f32: {error}");
        }
    }
}

#[test]
fn files_and_configurations_are_those_of_compressed_tensors() {
    for (name, layers, integers) in [
        ("v3_sequence_single", Int8Layers::Mixed, ["attention.self.query_proj", "attention.output.dense"].as_slice()),
        ("v1_sequence_biased_types", Int8Layers::Mixed, &["attention.self.in_proj", "attention.output.dense"]),
        ("roberta_sequence", Int8Layers::All, &["attention.self.key", "intermediate.dense", "output.dense"]),
    ] {
        let folder = rewritten(fixture(name), FileType::Int8(layers));
        let config = config(&folder);
        let quantization = &config["quantization_config"];
        assert_eq!(quantization["format"], "int-quantized");
        // These widths are no multiples of 128.
        assert_eq!(quantization["config_groups"]["group_0"]["weights"]["strategy"], "channel");
        assert_eq!(config["torch_dtype"], "float16", "{name}");

        let tensors = tensors(&weights(&folder));
        let backbone = if name.starts_with("roberta") { "roberta" } else { "deberta" };
        for module in integers {
            let key = format!("{backbone}.encoder.layer.0.{module}.weight");
            let (dtype, shape, bytes) = &tensors[&key];
            assert_eq!(*dtype, Dtype::I8, "{key}");
            let (dtype, scales, _) = &tensors[&format!("{key}_scale")];
            assert_eq!((*dtype, &scales[..]), (Dtype::F32, &[shape[0], 1][..]), "{key}");
            assert!(bytes.iter().any(|byte| *byte as i8 == 127 || *byte as i8 == -127), "{key} uses its range");
        }
        // Every other matrix of a linear map is named.
        let ignored: Vec<&str> =
            quantization["ignore"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        for (key, (dtype, shape, _)) in &tensors {
            let Some(module) = key.strip_suffix(".weight") else { continue };
            let is_other = *dtype == Dtype::F16 && shape.len() == 2 && !key.contains("embeddings");
            assert_eq!(ignored.contains(&module), is_other, "{name}: {key}");
        }
        assert!(ignored.iter().any(|module| module.starts_with("classifier")), "{ignored:?}");
        let feed_forward = format!("{backbone}.encoder.layer.0.output.dense");
        assert_eq!(ignored.contains(&feed_forward.as_str()), layers == Int8Layers::Mixed, "{ignored:?}");

        // Back in f32 nothing is said of it, and the way there again finds the same integers.
        let floats = rewritten(&folder, FloatDType::F32);
        assert_eq!(self::config(&floats).get("quantization_config"), None);
        let again = self::tensors(&weights(rewritten(&floats, FileType::Int8(layers))));
        for (key, tensor) in tensors.iter().filter(|(_, (dtype, ..))| *dtype == Dtype::I8) {
            assert!(again[key] == *tensor, "{name}: {key}");
        }
    }
}

/// A checkpoint with other tensors.
fn changed(
    folder: impl AsRef<Path>,
    change: impl FnOnce(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
) -> TempDir {
    let mut tensors = tensors(&weights(&folder));
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap_or_else(|error| panic!("{error}")))
    });
    let output = TempDir::new().unwrap();
    serialize_to_file(views, None, &output.path().join("model.safetensors")).unwrap();
    fs::copy(folder.as_ref().join("config.json"), output.path().join("config.json")).unwrap();
    output
}

#[test]
fn what_is_no_matrix_stays_as_it_is() {
    let keys = ["query_proj", "key_proj"].map(|name| format!("deberta.encoder.layer.0.attention.self.{name}.weight"));
    let folder = changed(fixture("v3_sequence_single"), |tensors| {
        for (key, shape) in keys.iter().zip([vec![3], vec![3, 0]]) {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            tensors.insert(key.clone(), (Dtype::F32, shape, bytes));
        }
    });
    let written = tensors(&weights(rewritten(&folder, FileType::Int8(Int8Layers::All))));
    assert!(keys.iter().all(|key| written[key].0 == Dtype::F16));
}

#[test]
fn other_ways_to_quantise_are_refused_by_name() {
    let key = "deberta.encoder.layer.0.attention.self.query_proj.weight";
    let folder = rewritten(fixture("v3_sequence_single"), FileType::Int8(Int8Layers::Mixed));
    type Change = fn(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>, &str);
    let cases: [(Change, &str, &str); 6] = [
        (|tensors, key| drop(tensors.remove(&format!("{key}_scale"))), "", "in 8 bits, and there is no"),
        (|tensors, key| drop(tensors.remove(key)), "_scale", "no weights in 8 bits that it scales"),
        (
            |tensors, key| tensors.get_mut(&format!("{key}_scale")).unwrap().1.reverse(),
            "_scale",
            "expected numbers for each output",
        ),
        (
            |tensors, key| drop(tensors.insert(format!("{key}_zero_point"), (Dtype::I8, vec![1], vec![0]))),
            "_zero_point",
            "with a zero point",
        ),
        (
            |tensors, key| drop(tensors.insert(format!("{key}_packed"), (Dtype::I32, vec![1], vec![0; 4]))),
            "_packed",
            "less than 8 bits",
        ),
        (|tensors, key| drop(tensors.insert(key.into(), (Dtype::I8, vec![3, 0], vec![]))), "", "expected a matrix"),
    ];
    for (change, end, expected) in cases {
        let damaged = changed(&folder, |tensors| change(tensors, key));
        let error = Checkpoint::open(&damaged).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}{end}`")) && error.contains(expected), "{error}");
    }
}
