//! Steps of both optimisers, on one device and two, saved and resumed.

use std::{fs, path::Path};

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use deberta_burn::{
    ModelConfig,
    checkpoint::{Checkpoint, LoadOptions},
    data::{Random, file_digest},
    heads::ReplacedTokenDetection,
    model::dropout::keyed,
    training::{
        AdamW, AdamWConfig, Learner, ParameterGroups, Schedule, ScheduleKind, Start, Warmup,
        replaced_token::{
            Corrupted, ReplacedTokenPretraining, ReplacedTokenTrainer, Sharing, generator_config, sample,
        },
    },
};

use crate::{
    CASES, Case, RATE, SHARINGS, WEIGHT,
    common::{cpu_devices, read},
    parameters, run, settings, tokenizer,
};

fn optimizer() -> AdamW {
    AdamW::new(AdamWConfig::default(), ParameterGroups::default())
}

/// A trainer as a run begins it, from the folder of an earlier one if there is one.
fn begin(case: &Case, sharing: Sharing, devices: &[Device], saved: Option<&Path>) -> ReplacedTokenTrainer {
    let (settings, config, tokenizer) = (settings(), case.config.clone().into(), tokenizer());
    let run = run(&config, &tokenizer, devices);
    let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), RATE, 10).unwrap();
    let start = Start { settings: &settings, schedule, run: &run, saved };
    ReplacedTokenTrainer::begin(case.model(sharing), start).unwrap()
}

/// The discriminator's step comes after the generator's and sees its new table; with a shared table there is one step of both.
#[test]
fn a_step_is_made_of_these_pieces() {
    for name in CASES {
        for sharing in SHARINGS {
            let case = Case::new(name, &cpu_devices()[0].1.clone().autodiff());
            let mut trainer = begin(&case, sharing, std::slice::from_ref(&case.device), None);
            let report = trainer.train_step(vec![case.batch()]);
            let parts: Vec<f64> = report.parts.iter().map(|(_, value)| *value).collect();
            assert_eq!(report.loss, parts[0] + WEIGHT * parts[1]);

            let model = case.model(sharing);
            let (masked, labels) = case.batch();
            let generate = |model: &ReplacedTokenPretraining| model.generator_logits(masked.clone(), &labels);
            let logits = generate(&model);
            // The key of the first batch in the generator's half of the first step; without dropout only the words are drawn.
            let key = Random::new(&[Random::new(&[5, 0, 0]).next_u64(), 0]).next_u64();
            let text = Corrupted::new(&masked, &labels, keyed(key, || sample(logits.clone(), None)));
            let loss = model.generator_loss(logits, labels.clone());
            assert_eq!(loss.clone().into_scalar::<f64>(), parts[0]);
            let step = |model: &ReplacedTokenPretraining, loss: Tensor<1>| {
                let gradients = GradientsParams::from_grads(loss.backward(), model);
                optimizer().step(model.clone(), gradients, RATE).0
            };
            let discriminate = |model: &ReplacedTokenPretraining| {
                model.discriminator_loss(model.discriminator_logits(text.input.clone()), text.clone())
            };
            let before = discriminate(&model).into_scalar::<f64>();
            let after_generator = step(&model, loss);
            let found = discriminate(if sharing == Sharing::Shared { &model } else { &after_generator });
            assert_eq!(found.clone().into_scalar::<f64>(), parts[1], "{name}, {sharing:?}");
            assert_eq!(before == parts[1], sharing != Sharing::GradientDisentangled, "{name}, {sharing:?}");
            let config = generator_config(&case.config).unwrap();
            if sharing == Sharing::Shared {
                let loss = model.generator_loss(generate(&model), labels.clone()) + discriminate(&model) * WEIGHT;
                let gradients = GradientsParams::from_grads(loss.backward(), model.generator());
                let (expected, _) = optimizer().step(model.generator().clone(), gradients, RATE);
                let (found, expected) = (trainer.model().generator(), parameters(&expected, &config));
                for (key, (_, found)) in parameters(found, &config) {
                    let difference =
                        found.iter().zip(&expected[&key].1).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                    // A gradient left out would move a parameter by the rate, 1e-2; the sums are in another order.
                    assert!(difference < 1e-5, "{name}: {key} is off by {difference:e}");
                }
                continue;
            }
            let expected = step(&after_generator, found * WEIGHT);
            assert_eq!(
                parameters(trainer.model().discriminator(), &case.config),
                parameters(expected.discriminator(), &case.config),
                "{name}, {sharing:?}"
            );
            assert_eq!(parameters(trainer.model().generator(), &config), parameters(expected.generator(), &config));
        }
    }
}

#[test]
fn what_is_exported_is_what_was_trained() {
    let words = "deberta.embeddings.word_embeddings.weight";
    for name in CASES {
        for sharing in SHARINGS {
            let case = Case::new(name, &cpu_devices()[0].1.clone().autodiff());
            let mut trainer = begin(&case, sharing, std::slice::from_ref(&case.device), None);
            (0..3).for_each(|_| drop(trainer.train_step(vec![case.batch()])));
            let folder = tempfile::tempdir().unwrap();
            let (config, tokenizer) = (case.config.clone().into(), tokenizer());
            trainer.export(&run(&config, &tokenizer, &[]), folder.path()).unwrap();
            for file in ["tokenizer.json", "generator/tokenizer.json"] {
                assert_eq!(file_digest(folder.path().join(file)).unwrap(), tokenizer.digest().unwrap());
            }
            assert!(fs::read_to_string(folder.path().join("config.json")).unwrap().contains("DebertaV2Model"));

            let own = parameters(trainer.model().discriminator(), &case.config);
            let generator = parameters(trainer.model().generator(), &generator_config(&case.config).unwrap());
            assert_eq!(generator, read(&folder.path().join("generator/model.safetensors")));
            let exported = read(&folder.path().join("model.safetensors"));
            for (key, (_, values)) in &exported {
                let is_shared =
                    sharing != Sharing::NotShared && generator.contains_key(key) && key.contains("embeddings.");
                let is_shared = is_shared && key.contains("word") | key.contains("position");
                for (index, value) in values.iter().enumerate() {
                    let base = if is_shared { generator[key].1[index] } else { 0.0 };
                    assert_eq!(*value, base + own[key].1[index], "{name}, {sharing:?}: {key}");
                }
            }
            assert_eq!(own[words].1.iter().all(|value| *value == 0.0), sharing == Sharing::Shared);

            let model = trainer.model().valid();
            let plain = ReplacedTokenDetection::new(&case.config.clone().into(), &case.device.clone().inner());
            let (plain, _) = Checkpoint::open(folder.path()).unwrap().load(plain, &LoadOptions::default()).unwrap();
            let case = Case::new(name, &cpu_devices()[0].1);
            let logits = |logits: Tensor<2>| logits.into_data().try_to_vec::<f32>().unwrap();
            let trained = logits(model.discriminator_logits(case.batch().0));
            assert_eq!(trained, logits(plain.forward(case.batch().0)), "{name}, {sharing:?}");
            let again = trainer.exported(folder.path(), &LoadOptions::default()).unwrap();
            assert_eq!(trained, logits(again.discriminator_logits(case.batch().0)), "{name}, {sharing:?}");
        }
    }
}

#[test]
fn a_resumed_trainer_is_one_that_never_stopped() {
    for sharing in SHARINGS {
        let case = Case::new(CASES[0], &cpu_devices()[0].1.clone().autodiff());
        let (devices, config) = ([case.device.clone()], ModelConfig::from(case.config.clone()));
        let mut whole = begin(&case, sharing, &devices, None);
        let mut first = begin(&case, sharing, &devices, None);
        for _ in 0..3 {
            assert_eq!(whole.train_step(vec![case.batch()]), first.train_step(vec![case.batch()]));
        }
        let folder = tempfile::tempdir().unwrap();
        first.save(&config, folder.path()).unwrap();
        let mut second = begin(&case, sharing, &devices, Some(folder.path()));
        assert_eq!(second.steps(), 3);
        for _ in 0..3 {
            assert_eq!(whole.train_step(vec![case.batch()]), second.train_step(vec![case.batch()]), "{sharing:?}");
        }
        // To the bit, E_delta included.
        assert_eq!(
            parameters(whole.model().discriminator(), &case.config),
            parameters(second.model().discriminator(), &case.config)
        );
    }
}

/// Two devices of different kinds make the step of one, for what a batch draws does not depend on where it is.
#[test]
fn two_devices_share_a_step() {
    let [(_, flex), (_, ndarray)] = cpu_devices().map(|(name, device)| (name, device.autodiff()));
    let cases = [Case::new(CASES[0], &flex), Case::new(CASES[0], &ndarray)];
    let run = |devices: &[Device]| {
        let mut trainer = begin(&cases[0], Sharing::GradientDisentangled, devices, None);
        let step = |trainer: &mut ReplacedTokenTrainer| {
            let batches = (0..4).map(|number| cases[number % devices.len()].batch()).collect();
            trainer.train_step(batches).parts
        };
        (0..3).map(|_| step(&mut trainer)).collect::<Vec<_>>()
    };
    let (one, two) = (run(std::slice::from_ref(&flex)), run(&[flex.clone(), ndarray.clone()]));
    // Sums in another order, and a backend with products of its own.
    let close = |one: f64, two: f64| assert!((one - two).abs() < 1e-5 * one, "{one} and {two}");
    for (one, two) in one.iter().zip(&two) {
        close(one[0].1, two[0].1);
    }
    // The same words were drawn, as long as no two are as good as equal: after a step, rounding might decide.
    close(one[0][1].1, two[0][1].1);
    assert_eq!(two, run(&[flex, ndarray]));
}
