//! Checkpoints: every fixture goes in and comes out bit for bit, in every type.

mod common;
#[path = "support/checkpoints.rs"]
mod stored;

use std::{fs, path::Path};

use burn::{
    module::{Module, list_param_ids},
    optim::GradientsParams,
    tensor::{DType, Device, FloatDType, Int, Tensor},
};
use common::{cpu_devices, fixture};
use deberta_burn::{
    Backbone, ModelConfig, ModelInput, RobertaConfig,
    checkpoint::{self, Checkpoint, HeadPolicy, Header, LoadOptions, OutOfRange, RangePolicy},
    heads::{
        MaskedLm, MaskedLmLayout, MultipleChoice, QuestionAnswering, ReplacedTokenDetection, SequenceClassification,
        TokenClassification,
    },
};
use half::f16;
use serde_json::Value;
use stored::{deberta, load, tensors, written};
use tempfile::TempDir;

/// What the fixture script put among the tensors.
const EXTRAS: [&str; 4] = ["config", "note", "nothing", "step"];

fn roberta(case: &str) -> RobertaConfig {
    match ModelConfig::from_folder(fixture(case)).unwrap() {
        ModelConfig::Roberta(config) => config,
        ModelConfig::Deberta(_) => panic!("{case} is a DeBERTa"),
    }
}

/// A head that the file lacks is drawn anew, and learns like the rest.
#[test]
fn fresh_heads_have_gradients() {
    let config = ModelConfig::from_folder(fixture("v3_sequence_single")).unwrap();
    for (backend, device) in cpu_devices() {
        let device = device.autodiff();
        let options = LoadOptions { head: HeadPolicy::Initialise, ..LoadOptions::default() };
        let model = TokenClassification::new(&config, &device);
        let (model, report) = Checkpoint::open(fixture("v3_sequence_single")).unwrap().load(model, &options).unwrap();
        assert_eq!(report.missing, ["classifier.weight", "classifier.bias"]);
        let input = ModelInput::new(Tensor::<2, Int>::ones([1, 4], &device));
        let gradients = model.forward(input).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        assert_eq!(gradients.len(), list_param_ids(&model).len(), "{backend}");
    }
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

    for (_, device) in cpu_devices() {
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
    // The pooler of a bare RoBERTa belongs to no head.
    goes_round("roberta", &["pooler"], |device| roberta("roberta").init(device));
}

#[test]
fn classifiers_go_round() {
    for case in [
        "v1_sequence_biased_types",
        "v3_sequence_single",
        "v3_sequence_regression",
        "v3_sequence_multi_label_embed_proj",
    ] {
        goes_round(case, &[], |device| SequenceClassification::new(&deberta(case).into(), device));
    }
    let case = "roberta_sequence";
    goes_round(case, &[], |device| SequenceClassification::new(&roberta(case).into(), device));
}

#[test]
fn other_heads_go_round() {
    let case = "v2_token_conv_groups";
    goes_round(case, &[], |device| TokenClassification::new(&deberta(case).into(), device));
    for case in ["v1_question_answering", "v2_question_answering_separate"] {
        goes_round(case, &[], |device| QuestionAnswering::new(&deberta(case).into(), device));
    }
    for case in ["v1_multiple_choice_talking_heads", "v2_multiple_choice"] {
        goes_round(case, &[], |device| MultipleChoice::new(&deberta(case).into(), device));
    }
    goes_round("rtd_v3", &["_weight"], |device| ReplacedTokenDetection::new(&deberta("rtd_v3").into(), device));
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
            MaskedLm::new(&deberta(case).into(), layout, device).unwrap()
        });
    }
    for case in ["v3_plain", "rtd_v3"] {
        assert_eq!(Checkpoint::open(fixture(case)).unwrap().masked_lm_layout(), None, "{case}");
    }
    let case = "roberta_masked_lm";
    assert_eq!(Checkpoint::open(fixture(case)).unwrap().masked_lm_layout(), Some(MaskedLmLayout::LastLayer));
    goes_round(case, &["position_ids", "lm_head.decoder"], |device| {
        MaskedLm::new(&roberta(case).into(), MaskedLmLayout::LastLayer, device).unwrap()
    });
}

#[test]
fn every_kind_of_file_holds_the_same() {
    let expected = written(fixture("v3_plain"), FloatDType::F32);
    for case in ["v3_sharded", "v3_bin", "v3_bin_legacy", "v3_bin_object", "v3_bin_training"] {
        assert!(written(fixture(case), FloatDType::F32) == expected, "{case}");
    }
}

#[test]
fn an_optimizers_state_is_no_weight() {
    let (_, report) = load(fixture("v3_bin_training"), deberta("v3_plain").init(&Device::flex())).unwrap();
    assert_eq!(report.ignored, ["optimizer_states.0.state.0.exp_avg"], "{report}");
    assert_eq!(report.unexpected, [""; 0], "{report}");
    let folder = TempDir::new().unwrap();
    let checkpoint = Checkpoint::open(fixture("v3_bin_training")).unwrap();
    checkpoint::rewrite(&checkpoint, &folder, FloatDType::F32, RangePolicy::Refuse).unwrap();
    assert!(tensors(folder.path()) == tensors(&fixture("v3_plain")));
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
        checkpoint::rewrite(&Checkpoint::open(fixture(case)).unwrap(), &folder, FloatDType::F32, RangePolicy::Refuse)
            .unwrap();
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
    checkpoint::rewrite(&Checkpoint::open(fixture("v3_plain")).unwrap(), &folder, FloatDType::F16, RangePolicy::Refuse)
        .unwrap();
    assert!(tensors(folder.path()) == written(fixture("v3_plain"), FloatDType::F16));
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["torch_dtype"], "float16");
}

/// A fixture's checkpoint with other numbers at the start of one tensor.
fn with_numbers(case: &str, key: &str, numbers: &[f32]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut file = fs::read(fixture(case).join("model.safetensors")).unwrap();
    let entries = Header::parse(&file, Path::new("")).unwrap().entries;
    let start = entries.iter().find(|entry| entry.name == key).unwrap().range.start;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    file[start..start + bytes.len()].copy_from_slice(&bytes);
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
    fs::copy(fixture(case).join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

#[test]
fn an_output_layer_with_weights_of_its_own_is_refused() {
    let device = Device::flex();
    for (case, layout, key, original) in [
        (
            "roberta_masked_lm",
            MaskedLmLayout::LastLayer,
            "lm_head.decoder.weight",
            "roberta.embeddings.word_embeddings.weight",
        ),
        ("roberta_masked_lm", MaskedLmLayout::LastLayer, "lm_head.decoder.bias", "lm_head.bias"),
        (
            "v1_masked_lm_legacy",
            MaskedLmLayout::Legacy,
            "cls.predictions.decoder.weight",
            "deberta.embeddings.word_embeddings.weight",
        ),
    ] {
        let folder = with_numbers(case, key, &[9.0]);
        let config = ModelConfig::from_folder(&folder).unwrap();
        let error = load(&folder, MaskedLm::new(&config, layout, &device).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`: it differs from `{original}`")), "{error}");
        // Others do without it.
        load(&folder, Backbone::new(&config, &device)).unwrap();
        let options = LoadOptions { head: HeadPolicy::Initialise, ..LoadOptions::default() };
        let fresh = MaskedLm::new(&config, layout, &device).unwrap();
        Checkpoint::open(&folder).unwrap().load(fresh, &options).unwrap();
    }
}

#[test]
fn values_beyond_the_range_of_a_type_are_refused_or_clamped() {
    let key = "encoder.layer.0.output.dense.weight";
    let folder = with_numbers("v3_plain", key, &[7e4, -1e6, 65504.0]);
    let source = Checkpoint::open(&folder).unwrap();
    let target = TempDir::new().unwrap();
    let rewrite = |dtype, range| checkpoint::rewrite(&source, &target, dtype, range);

    let message = rewrite(FloatDType::F16, RangePolicy::Refuse).unwrap_err().to_string();
    for part in [format!("`{key}` (2, the largest is -1e6)"), "range of F16".into(), "bf16".into(), "clamped".into()] {
        assert!(message.contains(&part), "{message}");
    }
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "nothing is left of it");

    let clamped = rewrite(FloatDType::F16, RangePolicy::Clamp).unwrap();
    assert_eq!(clamped, [OutOfRange { name: key.into(), count: 2, largest: -1e6 }]);
    let (_, _, _, bytes) = tensors(target.path()).into_iter().find(|(name, ..)| name == key).unwrap();
    assert_eq!(bytes[..6], [f16::MAX, f16::MIN, f16::MAX].map(f16::to_le_bytes).concat());
    assert_eq!(rewrite(FloatDType::BF16, RangePolicy::Refuse).unwrap(), []);

    // A module that is cast on writing goes the same way.
    let (module, _) = load(&folder, deberta("v3_plain").init(&Device::flex())).unwrap();
    let config = ModelConfig::from(deberta("v3_plain"));
    let message = checkpoint::write(&module, &config, &target, Some(FloatDType::F16)).unwrap_err().to_string();
    assert!(message.contains(&format!("`{key}` (2, the largest is -1e6)")), "{message}");
}

#[test]
#[expect(deprecated, reason = "ndarray is supported as long as burn has it")]
fn a_type_the_device_lacks_is_an_error() {
    let options = LoadOptions { dtype: FloatDType::BF16, ..Default::default() };
    let module = deberta("v3_plain").init(&Device::ndarray());
    let message = Checkpoint::open(fixture("v3_plain")).unwrap().load(module, &options).unwrap_err().to_string();
    assert!(message.contains("does not compute in BF16; use f32"), "{message}");
}

#[test]
fn what_was_there_is_replaced_in_one_piece() {
    let config = deberta("v3_plain");
    let folder = TempDir::new().unwrap();
    let (module, _) = load(fixture("v3_plain"), config.init(&Device::flex())).unwrap();
    checkpoint::write(&module, &ModelConfig::from(config.clone()), &folder, None).unwrap();
    // On top of the very file the module's tensors may still be mapped from.
    let (module, _) = load(&folder, config.init(&Device::flex())).unwrap();
    checkpoint::write(&module, &ModelConfig::from(config.clone()), &folder, Some(FloatDType::BF16)).unwrap();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.json", "model.safetensors"]);
    let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
    assert!(text.contains(r#""torch_dtype": "bfloat16""#), "{text}");

    fs::write(folder.path().join("file"), "").unwrap();
    let message = checkpoint::write(&module, &ModelConfig::from(config), folder.path().join("file"), None)
        .unwrap_err()
        .to_string();
    assert!(message.contains("cannot create"), "{message}");
}
