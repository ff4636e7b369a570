//! LoRA adapters as PEFT writes them: what the adapted models compute, and what is refused.

mod common;

use std::{fs, path::Path};

use burn::tensor::{Device, FloatDType};
use common::{cpu_devices, fixture};
use deberta_burn::{
    Backbone, Error, ModelInput,
    checkpoint::{self, Checkpoint, LoadOptions, RangePolicy},
    heads::SequenceClassification,
    parity::Reference,
    pipeline::{Classifier, PipelineOptions},
};
use safetensors::{SafeTensors, tensor::serialize_to_file};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Adapters by name, each with its base.
const ADAPTERS: [(&str, &str); 7] = [
    ("v3_list", "v3_sequence_single"),
    ("v3_patterns", "v3_sequence_single"),
    ("v3_regex", "v3_sequence_single"),
    ("v3_encoder", "v3_plain"),
    ("v1_list", "v1_sequence_biased_types"),
    ("v1_patterns", "v1_sequence_biased_types"),
    ("roberta_list", "roberta_sequence"),
];

/// As in `tests/parity.rs`: the merged matrices are those of PEFT but for rounding, which is below that of the model.
const TOLERANCE: f64 = 2e-5;

fn adapter(name: &str) -> std::path::PathBuf {
    fixture("adapters").join(name)
}

/// The merged model as a checkpoint of its own.
fn merge(base: &str, adapter: &Path, dtype: FloatDType) -> TempDir {
    let folder = TempDir::new().unwrap();
    let merged = Checkpoint::open_with_adapter(fixture(base), adapter).unwrap();
    checkpoint::rewrite(&merged, &folder, dtype, RangePolicy::Refuse).unwrap();
    folder
}

#[test]
fn adapted_models_equal_the_reference() {
    for (name, base) in ADAPTERS {
        let merged = merge(base, &adapter(name), FloatDType::F32);
        let reference = Reference::open(adapter(name).join("reference.safetensors")).unwrap();
        for (backend, device) in cpu_devices() {
            let comparison = reference.compare(&merged, &device).unwrap();
            assert!(comparison.max() <= TOLERANCE, "{name} on {backend}:\n{comparison}");
            // The adapter does something: the base alone answers otherwise.
            let alone = reference.compare(fixture(base), &device).unwrap();
            assert!(alone.max() > 0.05, "{name} on {backend}:\n{alone}");
        }
    }
}

#[test]
fn models_load_with_an_adapter_as_from_the_merged_file() {
    let device = Device::flex();
    let merged = merge("v1_sequence_biased_types", &adapter("v1_patterns"), FloatDType::F32);
    let checkpoint =
        Checkpoint::open_with_adapter(fixture("v1_sequence_biased_types"), adapter("v1_patterns")).unwrap();
    assert_eq!(checkpoint.digest().unwrap(), Checkpoint::open(&merged).unwrap().digest().unwrap());
    let config = checkpoint.config().unwrap();
    let (model, report) =
        checkpoint.load(SequenceClassification::new(&config, &device), &LoadOptions::default()).unwrap();
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    let input = || ModelInput::new(burn::Tensor::from_ints([[1, 5, 6, 2]], &device));
    let whole = SequenceClassification::from_folder(&merged, &device).unwrap();
    assert_eq!(model.forward(input()).into_data(), whole.forward(input()).into_data());
}

#[test]
fn a_base_in_half_precision_is_merged_in_f32() {
    let merged = merge("v3_bf16", &adapter("v3_encoder"), FloatDType::F32);
    let rounded = merge("v3_bf16", &adapter("v3_encoder"), FloatDType::BF16);
    let states = |folder: &TempDir| {
        let input = ModelInput::new(burn::Tensor::from_ints([[1, 5, 6, 2]], &Device::flex()));
        Backbone::from_folder(folder, &Device::flex()).unwrap().forward(input).last_hidden_state
    };
    let difference = (states(&merged) - states(&rounded)).abs().max().into_scalar::<f32>();
    // bf16 keeps 8 bits, and states of size 1 to 5 move by a few of their last places: but not by nothing.
    assert!(difference > 1e-4 && difference < 0.5, "{difference}");
}

/// A copy of an adapter with its configuration changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(adapter(name).join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors")).unwrap();
    let text = fs::read_to_string(adapter(name).join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    folder
}

fn refusal(base: &str, adapter: impl AsRef<Path>) -> String {
    Checkpoint::open_with_adapter(fixture(base), adapter).map(drop).unwrap_err().to_string()
}

#[test]
fn other_kinds_of_adapters_are_refused_by_name() {
    for (key, value, word) in [
        ("use_dora", json!(true), "`use_dora`"),
        ("lora_bias", json!(true), "`lora_bias`"),
        ("trainable_token_indices", json!([1, 2]), "`trainable_token_indices`"),
        ("peft_type", json!("IA3"), "`peft_type` is IA3"),
        ("init_lora_weights", json!("pissa_niter_4"), "`pissa_niter_4`"),
        ("r", json!(0), "is 0"),
        ("r", json!(3), "expected [3, 12], with the rank 3"),
        ("rank_pattern", json!({ "value_proj": 5 }), "expected [5, 12]"),
        ("rank_pattern", json!({ "(": 5 }), "`rank_pattern` has no valid expression"),
        ("target_modules", json!(["query_proj"]), "value_proj.lora_A.weight`: `target_modules`"),
        ("modules_to_save", json!(["classifier"]), "neither in `modules_to_save` nor by `bias`"),
        ("bias", json!("some"), "unknown variant"),
    ] {
        let error = refusal("v3_sequence_single", changed("v3_list", |config| config[key] = value));
        assert!(error.contains(word), "{key}: {error}");
    }
}

#[test]
fn adapters_of_other_models_are_refused() {
    let error = refusal("v1_sequence_biased_types", adapter("v3_list"));
    assert!(
        error.contains("the base model has no `deberta.encoder.layer.0.attention.self.query_proj.weight`"),
        "{error}"
    );
    let error = refusal("roberta_sequence", adapter("v3_list"));
    assert!(error.contains("is it that of this adapter?"), "{error}");
}

#[test]
fn damaged_adapters_are_refused() {
    // One matrix of a pair is missing.
    let folder = changed("v3_list", |_| {});
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let gone = "base_model.model.deberta.encoder.layer.0.attention.self.query_proj.lora_B.weight";
    serialize_to_file(tensors.tensors().into_iter().filter(|(name, _)| name != gone), None, &path).unwrap();
    let error = refusal("v3_sequence_single", &folder);
    assert!(error.contains("query_proj.lora_A.weight`: one of it and"), "{error}");

    fs::remove_file(&path).unwrap();
    let error = refusal("v3_sequence_single", &folder);
    assert!(error.contains("looked for adapter_model.safetensors"), "{error}");
    fs::remove_file(folder.path().join("adapter_config.json")).unwrap();
    let error = refusal("v3_sequence_single", &folder);
    assert!(error.contains("there is no adapter_config.json"), "{error}");
}

#[test]
fn a_classifier_whose_pooler_was_not_saved_is_refused() {
    let error = refusal("v3_plain", adapter("v3_no_pooler"));
    assert!(error.contains("the pooler (`pooler.dense.*`)") && error.contains("modules_to_save"), "{error}");
}

#[test]
fn a_folder_with_an_adapter_alone_says_what_to_do() {
    let error = Checkpoint::open(adapter("v3_list")).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("PEFT adapter alone") && error.to_string().contains("--adapter"), "{error}");
}

#[test]
fn a_pipeline_takes_the_labels_of_the_adapter() {
    // The base is an encoder without a head; the adapter brings pooler and classifier, with three labels.
    let base = TempDir::new().unwrap();
    let encoder = Checkpoint::open(fixture("v3_plain")).unwrap();
    checkpoint::rewrite(&encoder, &base, FloatDType::F32, RangePolicy::Refuse).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("small_tokenizer").join(file), base.path().join(file)).unwrap();
    }
    let options = PipelineOptions { adapter: Some(adapter("v3_list")), ..PipelineOptions::new(Device::flex()) };
    let classifier = Classifier::from_folder(&base, options.clone()).unwrap();
    assert_eq!(classifier.task().num_labels(), 3);
    // The adapter's own config.json names them.
    let named = changed("v3_list", |_| {});
    let mut config = Checkpoint::open_with_adapter(&base, adapter("v3_list")).unwrap().config().unwrap();
    config.task_mut().labels = ["no", "maybe", "yes"].map(str::to_owned).to_vec();
    fs::write(named.path().join("config.json"), config.to_json()).unwrap();
    let options = PipelineOptions { adapter: Some(named.path().to_owned()), ..options };
    assert_eq!(Classifier::from_folder(&base, options).unwrap().task().labels, ["no", "maybe", "yes"]);
}
