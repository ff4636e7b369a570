//! Replaced token detection equal to a torch statement of the original, step by step, and resumed as if nothing had happened.

mod common;

use std::{fs, path::Path};

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, FloatDType, Int, Tensor, TensorData},
};
use common::{IntoGradients, Tensors, cpu_devices, fixture, gradient_tolerance, largest, read};
use deberta_burn::{
    DebertaConfig, ModelConfig, ModelInput,
    checkpoint::{self, Checkpoint, LoadOptions},
    data::{Random, file_digest},
    heads::{MaskedPositions, ReplacedTokenDetection},
    model::dropout::keyed,
    tokenizer::Tokenizer,
    training::{
        AdamW, AdamWConfig, Learner, MaskedLmLabels, ParameterGroups, Run, Schedule, ScheduleKind, Sift, Start,
        TrainingSettings, Warmup,
        replaced_token::{
            Corrupted, ReplacedToken, ReplacedTokenPretraining, ReplacedTokenTrainer, Sharing, generator_config, sample,
        },
    },
};

const CASES: [&str; 2] = ["replaced_token_v3", "replaced_token_biased"];
const SHARINGS: [Sharing; 3] = [Sharing::GradientDisentangled, Sharing::Shared, Sharing::NotShared];

/// As `make_replaced_token_fixtures.py` has them.
const WEIGHT: f64 = 10.0;
const MASK: i32 = 3;

/// A fixture on a device.
struct Case {
    name: &'static str,
    data: Tensors,
    config: DebertaConfig,
    device: Device,
}

impl Case {
    fn new(name: &'static str, device: &Device) -> Self {
        let ModelConfig::Deberta(config) = ModelConfig::from_folder(fixture(name)).unwrap() else { panic!("{name}") };
        Self { name, data: read(&fixture(name).join("replaced_token.safetensors")), config, device: device.clone() }
    }

    fn model(&self, sharing: Sharing) -> ReplacedTokenPretraining {
        let options = ReplacedToken { sharing, weight: WEIGHT };
        ReplacedTokenPretraining::load(&fixture(self.name), &self.config, options, FloatDType::F32, &self.device)
            .unwrap()
            .0
    }

    fn values(&self, key: &str) -> Vec<i32> {
        self.data[key].1.iter().map(|value| *value as i32).collect()
    }

    fn ints<const D: usize>(&self, values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// The text with its masked positions, and what was there.
    fn batch(&self) -> (ModelInput, MaskedLmLabels) {
        let shape = [self.data["input_ids"].0[0], self.data["input_ids"].0[1]];
        let (ids, masked) = (self.values("input_ids"), self.values("masked"));
        let hidden = ids.iter().zip(&masked).map(|(id, masked)| if *masked == 1 { MASK } else { *id }).collect();
        let words: Vec<i32> =
            ids.into_iter().zip(&masked).filter_map(|(id, masked)| (*masked == 1).then_some(id)).collect();
        let positions = masked.chunks(shape[1]).map(|row| (0..shape[1]).filter(|at| row[*at] == 1).collect::<Vec<_>>());
        let labels = MaskedLmLabels {
            positions: MaskedPositions::new(shape[1], positions),
            tokens: self.ints(words.clone(), [words.len()]),
        };
        let mask = self.ints(self.values("attention_mask"), shape).equal_elem(1);
        (ModelInput::new(self.ints(hidden, shape)).attention_mask(mask), labels)
    }

    fn uniforms(&self) -> Tensor<2> {
        let (shape, values) = &self.data["uniforms"];
        Tensor::from_data(TensorData::new(values.clone(), shape.clone()), &self.device)
    }
}

/// The parameters of a model, by their names in a checkpoint.
fn parameters(model: &impl Module, config: &DebertaConfig) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    checkpoint::write(model, &config.clone().into(), folder.path(), None).unwrap();
    read(&folder.path().join("model.safetensors"))
}

fn assert_close(context: &str, found: &[f32], expected: &[f32], largest_of_model: f32) {
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let allowed = gradient_tolerance(expected, largest_of_model);
    assert!(difference <= allowed, "{context} is off by {difference:e}, allowed {allowed:e}");
}

#[test]
fn losses_labels_and_gradients_equal_the_original() {
    for name in CASES {
        for (backend, device) in cpu_devices() {
            let case = Case::new(name, &device.autodiff());
            for sharing in SHARINGS {
                check(&format!("{name}, {backend}, {sharing:?}"), &case, sharing);
            }
        }
    }
}

fn check(context: &str, case: &Case, sharing: Sharing) {
    let model = case.model(sharing);
    let (masked, labels) = case.batch();
    let logits = model.generator_logits(masked.clone(), &labels);
    let drawn = sample(logits.clone(), Some(case.uniforms()));
    assert_eq!(
        drawn.clone().into_data().convert::<i32>().try_to_vec::<i32>().unwrap(),
        case.values("drawn"),
        "{context}"
    );

    let text = Corrupted::new(&masked, &labels, drawn);
    let (original, read_by) = (case.values("input_ids"), text.input.input_ids.clone().into_data().convert::<i32>());
    let expected: Vec<bool> =
        original.iter().zip(read_by.try_to_vec::<i32>().unwrap()).map(|(original, now)| *original != now).collect();
    assert_eq!(text.replaced.clone().into_data().try_to_vec::<bool>().unwrap(), expected, "{context}");
    assert!(expected.contains(&true));

    let generator_loss = model.generator_loss(logits, labels);
    let discriminator_loss = model.discriminator_loss(model.discriminator_logits(text.input.clone()), text);
    let shared = sharing == Sharing::Shared;
    let key = if shared { "shared.discriminator_loss" } else { "discriminator_loss" };
    for (key, found) in [("generator_loss", &generator_loss), (key, &discriminator_loss)] {
        let (found, expected) = (found.clone().into_scalar::<f32>(), case.data[key].1[0]);
        assert!((found - expected).abs() <= 1e-4 * expected, "{context}: {key} {found} instead of {expected}");
    }

    let generator_config = generator_config(&case.config).unwrap();
    let halves = |model: ReplacedTokenPretraining| {
        (parameters(model.generator(), &generator_config), parameters(model.discriminator(), &case.config))
    };
    let (of_generator, none) = halves(model.clone().map(&mut IntoGradients(&generator_loss.backward())));
    let (into_generator, of_discriminator) =
        halves(model.map(&mut IntoGradients(&(discriminator_loss * WEIGHT).backward())));
    assert!(none.values().all(|(_, values)| values.iter().all(|value| *value == 0.0)), "{context}");

    let most =
        largest(case.data.iter().filter(|(key, _)| key.starts_with("grad.")).flat_map(|(_, (_, values))| values));
    let (mut moved, prefix) = (0, if shared { "grad.shared.discriminator." } else { "grad.discriminator." });
    for (key, (_, expected)) in &case.data {
        if let Some(name) = key.strip_prefix("grad.generator.") {
            assert_close(&format!("{context}: {key}"), &of_generator[name].1, expected, most);
            let sum: Vec<f32> = of_generator[name].1.iter().zip(&into_generator[name].1).map(|(a, b)| a + b).collect();
            match case.data.get(&format!("grad.shared.generator.{name}")).filter(|_| shared) {
                Some((_, both)) => {
                    assert_close(&format!("{context}: {key} of both losses"), &sum, both, most);
                    moved += 1;
                }
                // Exactly: nothing of the discriminator's loss comes here.
                None => assert!(into_generator[name].1.iter().all(|value| *value == 0.0), "{context}: {name}"),
            }
        } else if let Some(name) = key.strip_prefix(prefix) {
            assert_close(&format!("{context}: {key}"), &of_discriminator[name].1, expected, most);
            moved += 1;
        }
    }
    assert!(moved > 25, "{context}: only {moved} gradients");
}

#[test]
fn words_are_drawn_as_often_as_they_are_likely() {
    let (_, device) = &cpu_devices()[0];
    let logits = Tensor::<2>::from_data([[0.0, 1.0, 2.0, -1.0]], device);
    let likely = burn::tensor::activation::softmax(logits.clone(), 1).into_data().try_to_vec::<f32>().unwrap();
    let drawn = keyed(1, || sample(logits.repeat_dim(0, 20_000), None))
        .into_data()
        .convert::<i32>()
        .try_to_vec::<i32>()
        .unwrap();
    for (word, likely) in likely.into_iter().enumerate() {
        let share = drawn.iter().filter(|drawn| **drawn == word as i32).count() as f32 / 20_000.0;
        // Five standard deviations.
        let bound = 5.0 * (likely * (1.0 - likely) / 20_000.0).sqrt();
        assert!((share - likely).abs() < bound, "word {word}: {share} instead of {likely}");
    }
}

const RATE: f64 = 1e-2;

fn settings() -> TrainingSettings {
    TrainingSettings { learning_rate: RATE, schedule: ScheduleKind::Constant, seed: 5, ..TrainingSettings::default() }
}

fn optimizer(layers: usize) -> AdamW {
    AdamW::new(AdamWConfig::default(), ParameterGroups { layers, layer_decay: 1.0 })
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder("tests/fixtures/small_tokenizer").unwrap()
}

/// A run of the model in this configuration.
fn run<'a>(config: &'a ModelConfig, tokenizer: &'a Tokenizer, devices: &'a [Device]) -> Run<'a> {
    Run {
        output: Path::new(""),
        config,
        tokenizer,
        resume: true,
        devices,
        dtype: FloatDType::F32,
        report_every: 1,
        snapshots: &[],
        data: serde_json::Value::Null,
    }
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
                optimizer(case.config.num_hidden_layers).step(model.clone(), gradients, RATE).0
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
                let (expected, _) = optimizer(2).step(model.generator().clone(), gradients, RATE);
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
        let loaded =
            ReplacedTokenPretraining::load(folder.path(), &case.config, options, FloatDType::F32, &case.device);
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
