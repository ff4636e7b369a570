//! Where generator and discriminator come from.

use std::fs;

use deberta_burn::{
    DebertaConfig,
    training::{
        Learner, Schedule, ScheduleKind, Sift, Start, TrainingSettings, Warmup,
        replaced_token::{ReplacedToken, ReplacedTokenPretraining, ReplacedTokenTrainer, generator_config},
    },
};

use crate::{
    CASES, Case, RATE,
    common::{cpu_devices, fixture, read},
    parameters, run, settings, tokenizer,
};

#[test]
fn a_generator_has_half_the_layers() {
    let config =
        |layers| DebertaConfig { num_hidden_layers: layers, ..Case::new(CASES[0], &cpu_devices()[0].1).config };
    for (layers, half) in [(24, 12), (12, 6), (6, 3), (5, 2), (3, 2), (2, 2)] {
        assert_eq!(generator_config(&config(layers)).unwrap().num_hidden_layers, half);
    }
    let error = generator_config(&config(1)).unwrap_err().to_string();
    assert!(error.contains("`num_hidden_layers` is 1, expected at least 2"), "{error}");
}

/// From a checkpoint without a generator, both halves have its table and E_delta is zero.
#[test]
fn any_checkpoint_can_be_gone_on_with() {
    let case = Case::new(CASES[0], &cpu_devices()[0].1);
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(case.name).join(file), folder.path().join(file)).unwrap();
    }
    let options = ReplacedToken::default();
    let load = || {
        let loaded = ReplacedTokenPretraining::load(folder.path(), &case.config, options, &case.device);
        loaded.map(|(model, _)| model)
    };
    let model = load().unwrap();
    let (own, merged) = (model.discriminator(), model.merged_discriminator());
    let words = "deberta.embeddings.word_embeddings.weight";
    assert!(parameters(own, &case.config)[words].1.iter().all(|value| *value == 0.0));
    assert_eq!(parameters(&merged, &case.config), read(&folder.path().join("model.safetensors")));
    let fresh = ReplacedTokenPretraining::new(&case.config, options, &case.device).unwrap();
    assert!(parameters(fresh.discriminator(), &case.config)[words].1.iter().all(|value| *value == 0.0));

    let settings = TrainingSettings { sift: Some(Sift::default()), ..settings() };
    let (config, devices, tokenizer) = (case.config.clone().into(), [case.device.clone().autodiff()], tokenizer());
    let run = run(&config, &tokenizer, &devices);
    let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), RATE, 10).unwrap();
    let start = Start { settings: &settings, schedule, run: &run, saved: None };
    let error = ReplacedTokenTrainer::begin(model, start).unwrap_err().to_string();
    assert!(error.contains("SiFT"), "{error}");
}
