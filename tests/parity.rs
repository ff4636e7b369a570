//! Outputs equal to the reference implementation's, on every fixture and each CPU backend. With `--nocapture` the tests print
//! the largest differences.

mod common;

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use common::{cpu_devices, fixture, fixtures_with};
use deberta_burn::{
    Backbone, ModelConfig, ModelInput, Prepared, Result,
    checkpoint::{Checkpoint, LoadOptions},
    heads::{MaskedLm, MaskedLmLayout, ReplacedTokenDetection, SequenceClassification, TokenClassification},
    parity::{ComparisonRow, Reference},
};

/// Largest difference allowed: states are of size 1 to 5, logits up to 10, and two f32 implementations that sum in different
/// orders differ by a few units in the last place of each; a wrong index or a missing term is off by 0.3 and more (measured
/// when the fixtures were made).
const TOLERANCE: f64 = 2e-5;

/// Fixtures that state what transformers has no class for: they have tests of their own below.
fn is_stated(name: &str) -> bool {
    name.starts_with("emd_") || name.starts_with("rtd_")
}

#[test]
fn every_architecture_equals_the_reference() {
    let mut names = fixtures_with("reference.safetensors");
    names.retain(|name| !is_stated(name));
    assert!(names.len() > 25, "fixtures are missing: {names:?}");
    let mut largest = 0f64;
    for name in &names {
        let reference = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
        for (backend, device) in cpu_devices() {
            let comparison =
                reference.compare(fixture(name), &device).unwrap_or_else(|e| panic!("{name}, {backend}: {e}"));
            assert!(comparison.max() <= TOLERANCE, "{name} on {backend}:\n{comparison}");
            largest = largest.max(comparison.max());
        }
    }
    println!("architectures: {} fixtures, largest difference {largest:.1e}", names.len());
}

#[test]
fn every_file_format_equals_the_reference() {
    let reference = Reference::open(fixture("v3_plain/reference.safetensors")).unwrap();
    for name in ["v3_sharded", "v3_bin", "v3_bin_legacy", "v3_bin_object", "v3_bin_training"] {
        for (backend, device) in cpu_devices() {
            let comparison =
                reference.compare(fixture(name), &device).unwrap_or_else(|e| panic!("{name}, {backend}: {e}"));
            assert!(comparison.max() <= TOLERANCE, "{name} on {backend}:\n{comparison}");
        }
    }
}

#[test]
fn enhanced_mask_decoder_equals_the_original() {
    for name in ["emd_v1", "emd_v3"] {
        let reference = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
        let config = ModelConfig::from_folder(fixture(name)).unwrap();
        for (backend, device) in cpu_devices() {
            let model = MaskedLm::new(&config, MaskedLmLayout::EnhancedMaskDecoder, &device).unwrap();
            let checkpoint = Checkpoint::open(fixture(name)).unwrap();
            let (model, _) = checkpoint.load(model, &LoadOptions::default()).unwrap();
            let logits = model.forward(reference.input(&config, &device).unwrap());
            let row = reference.compare_output("logits", logits).unwrap();
            assert!(row.max <= TOLERANCE, "{name} on {backend}: {row:?}");
            println!("{name} on {backend}: largest difference {:.1e}", row.max);
        }
    }
}

#[test]
fn replaced_token_detection_equals_the_original() {
    let reference = Reference::open(fixture("rtd_v3/reference.safetensors")).unwrap();
    let config = ModelConfig::from_folder(fixture("rtd_v3")).unwrap();
    for (backend, device) in cpu_devices() {
        let checkpoint = Checkpoint::open(fixture("rtd_v3")).unwrap();
        let model = ReplacedTokenDetection::new(&config, &device);
        let (model, _) = checkpoint.load(model, &LoadOptions::default()).unwrap();
        let logits = model.forward(reference.input(&config, &device).unwrap());
        let row = reference.compare_output("logits", logits).unwrap();
        assert!(row.max <= TOLERANCE, "rtd_v3 on {backend}: {row:?}");
        println!("rtd_v3 on {backend}: largest difference {:.1e}", row.max);
    }
}

/// A model comes out of a folder in one line, with the head that the folder has, and with no other.
#[test]
fn models_open_in_one_line() {
    let device = cpu_devices()[0].1.clone();
    let logits = |name: &str, forward: &dyn Fn(&Path, ModelInput) -> Result<ComparisonRow>| {
        let reference = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
        let config = ModelConfig::from_folder(fixture(name)).unwrap();
        let row = forward(&fixture(name), reference.input(&config, &device).unwrap());
        let row = row.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(row.max <= TOLERANCE, "{name}: {row:?}");
    };
    let reference = |folder: &Path| Reference::open(folder.join("reference.safetensors"));
    for name in ["v3_plain", "roberta"] {
        logits(name, &|folder, input| {
            let states = Backbone::from_folder(folder, &device)?.forward(input).last_hidden_state;
            reference(folder)?.compare_output("last_hidden_state", states)
        });
    }
    for name in ["emd_v3", "v2_masked_lm", "v1_masked_lm_legacy", "roberta_masked_lm"] {
        logits(name, &|folder, input| {
            let logits = MaskedLm::from_folder(folder, &device)?.forward(input);
            reference(folder)?.compare_output("logits", logits)
        });
    }
    for name in ["v3_sequence_single", "roberta_sequence"] {
        logits(name, &|folder, input| {
            let logits = SequenceClassification::from_folder(folder, &device)?.forward(input);
            reference(folder)?.compare_output("logits", logits)
        });
    }
    // A path is taken for a folder, also where a repository could be meant.
    let folder = fixture("v3_sequence_single");
    let folder = folder.to_str().expect("a path of UTF-8");
    assert!(SequenceClassification::from_pretrained(folder, &device).is_ok());
    let error = TokenClassification::from_pretrained(folder, &device).expect_err("another head").to_string();
    assert!(error.contains("this task needs a …ForTokenClassification"), "{error}");
    let error = MaskedLm::from_pretrained(folder, &device).expect_err("another head").to_string();
    assert!(error.contains("there is no language model head"), "{error}");
    let error = Backbone::from_pretrained("./nowhere", &device).expect_err("no folder").to_string();
    assert!(error.contains("./nowhere"), "{error}");
}

/// Position tables that are projected once and weights that are laid out once give the answers of plain models, whichever
/// lengths come first, and a model that is taken back is what it was.
#[test]
fn prepared_models_equal_plain_ones() {
    fn check(name: &str, config: &ModelConfig, whole: &ModelInput, backend: &str, device: &Device) {
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let (model, _) = checkpoint.load(Backbone::new(config, device), &LoadOptions::default()).unwrap();
        let prepared = Prepared::new(model.clone());
        let length = whole.input_ids.dims()[1];
        let input = |length: usize| ModelInput::new(whole.input_ids.clone().narrow(1, 0, length));
        let states = |model: &Backbone, length: usize| model.forward(input(length)).last_hidden_state;
        // Short, long, short again: made, made anew, used with rows to spare.
        for length in [3, length, 3, length / 2] {
            let (plain, prepared) = (states(&model, length), prepared.forward(input(length)).last_hidden_state);
            let difference = (plain - prepared).abs().max().into_scalar::<f32>();
            // The same products, summed in another order: what two right implementations may differ by.
            assert!(f64::from(difference) <= TOLERANCE, "{name} on {backend}, {length} tokens: {difference}");
        }
        let returned = prepared.into_inner();
        assert_eq!(Module::num_params(&returned), Module::num_params(&model), "{name}");
        let difference = (states(&returned, length) - states(&model, length)).abs().max().into_scalar::<f32>();
        assert_eq!(difference, 0.0, "{name}: the model has changed");
    }

    for name in ["v3_long", "v1_clamped", "v2_p2c", "v2_conv", "roberta"] {
        let reference = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
        let config = ModelConfig::from_folder(fixture(name)).unwrap();
        for (backend, device) in cpu_devices() {
            let input = reference.input(&config, &device).unwrap();
            check(name, &config, &input, backend, &device);
        }
    }
}

/// Asking for attention weights leaves the fused kernels aside: the composed definition, which other devices run, equals the
/// reference as well. The weights are distributions over the real tokens.
#[test]
fn composed_attention_equals_the_reference() {
    fn check(name: &str, reference: &Reference, config: &ModelConfig, input: ModelInput, device: &Device) -> f64 {
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let (model, _) = checkpoint.load(Backbone::new(config, device), &LoadOptions::default()).unwrap();
        let mask = input.attention_mask.clone();
        let output = model.forward(input.with_attentions());
        for weights in output.attentions.unwrap() {
            let sums = weights.clone().sum_dim(3).squeeze_dim::<3>(3); // [batch, heads, query]
            let [batch, heads, length] = sums.dims();
            let real = match &mask {
                Some(mask) => mask.tensor().clone().float(),
                None => Tensor::ones([batch, length], device),
            };
            let real = real.unsqueeze_dim::<3>(1).expand([batch, heads, length]);
            // Talking heads mix the distributions, so that they no longer sum to one.
            if !name.contains("talking") {
                assert!((sums - real.clone()).abs().max().into_scalar::<f32>() < 1e-5, "{name}");
            }
            let padding = real.neg().add_scalar(1.0).unsqueeze_dim::<4>(2);
            assert_eq!((weights * padding).abs().max().into_scalar::<f32>(), 0.0, "{name}: attention to padding");
        }
        reference.compare_output("last_hidden_state", output.last_hidden_state).unwrap().max
    }

    let mut compared = 0;
    for name in fixtures_with("reference.safetensors") {
        let reference = Reference::open(fixture(&name).join("reference.safetensors")).unwrap();
        let config = ModelConfig::from_folder(fixture(&name)).unwrap();
        if !reference.has_output("last_hidden_state") {
            continue;
        }
        for (backend, device) in cpu_devices() {
            let input = reference.input(&config, &device).unwrap();
            let difference = check(&name, &reference, &config, input, &device);
            assert!(difference <= TOLERANCE, "{name} on {backend}: {difference}");
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} comparisons");
}
