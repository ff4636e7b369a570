//! Thirty steps of training, three hundred of RoBERTa's pretraining, and single steps of SiFT, equal to torch's.

mod common;

use std::fs;

use burn::{
    module::Module,
    tensor::{Device, FloatDType, Int, Tensor, TensorData},
};
use common::{IntoGradients, Tensors, cpu_devices, devices, fixture, fixtures_with, gradient_tolerance, largest, read};
use deberta_burn::{
    ModelConfig, ModelInput,
    checkpoint::{self, Checkpoint, LoadOptions},
    config::ProblemType,
    heads::{
        MaskedLm, MaskedLmLayout, MaskedPositions, MultipleChoice, QuestionAnswering, SequenceClassification,
        SequenceLabels, TokenClassification,
    },
    model::InferenceModel,
    training::{
        AdamW, AdamWConfig, AnswerLabels, ChoiceLabels, MaskedLmLabels, Objective, ParameterGroups, Schedule,
        ScheduleKind, Sift, SiftLoss, Trainer, Warmup,
    },
};
use serde_json::Value;

fn settings(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(name).join("settings.json")).unwrap()).unwrap()
}

fn number(settings: &Value, key: &str) -> f64 {
    settings[key].as_f64().unwrap_or_else(|| panic!("{key} in settings.json"))
}

fn ints<const D: usize>((shape, values): &(Vec<usize>, Vec<f32>), device: &Device) -> Tensor<D, Int> {
    let values: Vec<i32> = values.iter().map(|value| *value as i32).collect();
    Tensor::from_data(TensorData::new(values, shape.clone()), device)
}

fn floats<const D: usize>((shape, values): &(Vec<usize>, Vec<f32>), device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device)
}

fn input(ids: Tensor<2, Int>, mask: Tensor<2, Int>, types: Option<Tensor<2, Int>>) -> ModelInput {
    let input = ModelInput::new(ids).attention_mask(mask.equal_elem(1));
    match types {
        Some(types) => input.token_type_ids(types),
        None => input,
    }
}

fn loaded<M: Module>(name: &str, model: M) -> M {
    Checkpoint::open(fixture(name)).unwrap().load(model, &LoadOptions::default()).unwrap().0
}

#[test]
fn thirty_steps_equal_torch() {
    for name in ["training_v3", "training_roberta"] {
        for (backend, device) in devices() {
            let (device, config) = (device.autodiff(), ModelConfig::from_folder(fixture(name)).unwrap());
            // Of losses and norms; rounding explains 1e-5 after thirty steps.
            let model = loaded(name, SequenceClassification::new(&config, &device));
            let model = trajectory(name, backend, model, classes, &device, 1e-3);
            assert_trained(name, backend, &model, &config);
        }
    }
}

#[test]
fn thirty_steps_in_mixed_precision_follow_torch() {
    let device = Device::flex().autodiff();
    for name in ["training_v3", "training_roberta"] {
        let config = ModelConfig::from_folder(fixture(name)).unwrap();
        // Two layers round on sixteen occasions, and on as many on the way back, by half a step of the type each: 16 steps if
        // all errors add up. Thirty steps of training come to no more than one batch, because each step corrects the others.
        for (dtype, step) in [(FloatDType::BF16, 2f64.powi(-8)), (FloatDType::F16, 2f64.powi(-11))] {
            let mut model = loaded(name, SequenceClassification::new(&config, &device));
            InferenceModel::backbone_mut(&mut model).set_compute_type(Some(dtype));
            trajectory(name, &format!("flex in {dtype:?}"), model, classes, &device, 16.0 * step);
        }
    }
}

#[test]
fn three_hundred_steps_of_robertas_pretraining_equal_torch() {
    let name = "training_roberta_masked";
    for (backend, device) in devices() {
        let (device, config) = (device.autodiff(), ModelConfig::from_folder(fixture(name)).unwrap());
        let model = MaskedLm::new(&config, MaskedLmLayout::LastLayer, &device).unwrap();
        // Of losses and norms; in torch, f32 and f64 differ by less than 1e-5 in all three hundred steps.
        let model = trajectory(name, backend, loaded(name, model), masked_words, &device, 1e-3);
        assert_trained(name, backend, &model, &config);
    }
}

/// Holds the parameters against the fixture's after the last step.
fn assert_trained<M: Module>(name: &str, backend: &str, model: &M, config: &ModelConfig) {
    let folder = tempfile::tempdir().unwrap();
    checkpoint::write(model, config, folder.path(), None).unwrap();
    let found = read(&folder.path().join("model.safetensors"));
    let expected = read(&fixture(name).join("trained.safetensors"));
    for (key, (_, expected)) in &expected {
        // Softmax ignores a key's bias where there are no position terms: its gradient is noise, which AdamW scales up.
        if name.starts_with("training_roberta") && key.ends_with("self.key.bias") {
            continue;
        }
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let difference = found[key].1.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(difference <= 1e-4 * largest.max(1.0), "{name}, {backend}: {key} is off by {difference:e}");
    }
}

/// The classes of a batch's texts.
fn classes(labels: &(Vec<usize>, Vec<f32>), device: &Device) -> SequenceLabels {
    SequenceLabels::Classes(ints(labels, device))
}

/// The masked words of a batch; other positions have negative labels.
fn masked_words((shape, labels): &(Vec<usize>, Vec<f32>), device: &Device) -> MaskedLmLabels {
    let rows = labels.chunks(shape[1]);
    let chosen = |row: &[f32]| (0..shape[1]).filter(|position| row[*position] >= 0.0).collect::<Vec<_>>();
    let words: Vec<f32> = labels.iter().copied().filter(|label| *label >= 0.0).collect();
    MaskedLmLabels {
        positions: MaskedPositions::new(shape[1], rows.map(chosen)),
        tokens: ints(&(vec![words.len()], words), device),
    }
}

/// Trains as the fixture says, and compares losses and the norms of gradients. Returns the model.
fn trajectory<M: Objective>(
    name: &str,
    backend: &str,
    model: M,
    labels: impl Fn(&(Vec<usize>, Vec<f32>), &Device) -> M::Labels,
    device: &Device,
    tolerance: f64,
) -> M {
    let settings = settings(name);
    let steps = number(&settings, "steps") as usize;
    let warmup = Warmup::Steps(number(&settings, "warmup_steps") as usize);
    let peak = number(&settings, "learning_rate");
    let optimizer = AdamWConfig {
        beta_1: number(&settings, "beta_1"),
        beta_2: number(&settings, "beta_2"),
        epsilon: number(&settings, "epsilon"),
        weight_decay: number(&settings, "weight_decay"),
        max_norm: number(&settings, "max_norm"),
    };
    let schedule = Schedule::new(ScheduleKind::Linear, warmup, peak, steps).unwrap();
    let optimizer = AdamW::new(optimizer, ParameterGroups::default());
    let mut trainer = Trainer::new(model, vec![device.clone()], optimizer, schedule, None, 0);

    let data = read(&fixture(name).join("training.safetensors"));
    let batch = |key: &str, batch: usize| {
        let (shape, values) = &data[key];
        let size: usize = shape[1..].iter().product();
        (shape[1..].to_vec(), values[batch * size..(batch + 1) * size].to_vec())
    };
    for step in 0..steps {
        let number = step % data["labels"].0[0];
        let ids = ints(&batch("input_ids", number), device);
        let labels = labels(&batch("labels", number), device);
        let input = input(ids, ints(&batch("attention_mask", number), device), None);
        let report = trainer.train_step(vec![(input, labels)]);
        for (key, found, tolerance) in [
            ("loss", report.loss, tolerance),
            ("gradient_norm", report.gradient_norm, tolerance),
            ("learning_rate", report.learning_rate, 1e-6),
        ] {
            let expected = f64::from(data[key].1[step]);
            let close = (found - expected).abs() <= tolerance * expected.abs();
            assert!(close, "{name}, {backend}, step {step}: {key} {found} instead of {expected}");
        }
    }
    trainer.model().clone()
}

#[test]
fn a_step_of_sift_equals_the_reference() {
    let names = fixtures_with("sift.safetensors");
    assert_eq!(names.len(), 8, "fixtures are missing: {names:?}");
    for name in &names {
        for (backend, device) in cpu_devices() {
            let case = SiftCase {
                name,
                backend,
                data: read(&fixture(name).join("sift.safetensors")),
                settings: settings(name),
                config: ModelConfig::from_folder(fixture(name)).unwrap(),
                device: device.autodiff(),
            };
            case.heads();
        }
    }
}

struct SiftCase<'a> {
    name: &'a str,
    backend: &'a str,
    data: Tensors,
    settings: Value,
    config: ModelConfig,
    device: Device,
}

impl SiftCase<'_> {
    fn heads(&self) {
        let (config, device) = (&self.config, &self.device);
        let labels = || &self.data["labels"];
        if self.name.ends_with("sequence") || self.name.ends_with("regression") {
            let labels = match self.config.task().problem_type() {
                ProblemType::Regression => SequenceLabels::Values(floats::<1>(labels(), device).unsqueeze_dim(1)),
                _ => SequenceLabels::Classes(ints(labels(), device)),
            };
            self.check(SequenceClassification::new(config, device), labels);
        } else if self.name.ends_with("token") {
            self.check(TokenClassification::new(config, device), ints(labels(), device));
        } else if self.name.ends_with("question_answering") {
            let side = |key: &str| ints(&self.data[key], device);
            let labels = AnswerLabels { starts: side("start_positions"), ends: side("end_positions") };
            self.check(QuestionAnswering::new(config, device), labels);
        } else {
            let choices = self.data["input_ids"].0[1];
            let labels = ChoiceLabels { choices, right: ints(labels(), device) };
            self.check(MultipleChoice::new(config, device), labels);
        }
    }

    fn input(&self) -> ModelInput {
        // Multiple choice has an axis more, which the model does not see.
        let flat = |key: &str| {
            let (shape, values) = &self.data[key];
            let length = *shape.last().unwrap();
            ints(&(vec![values.len() / length, length], values.clone()), &self.device)
        };
        let types = self.data.contains_key("token_type_ids").then(|| flat("token_type_ids"));
        input(flat("input_ids"), flat("attention_mask"), types)
    }

    fn check<M: Objective>(&self, model: M, labels: M::Labels) {
        let context = format!("{}, {}", self.name, self.backend);
        let model = loaded(self.name, model);
        let sift = Sift {
            lambda: number(&self.settings, "weight"),
            step_size: number(&self.settings, "step_size"),
            noise: 0.1,
            loss: SiftLoss::SymmetricKl,
        };
        let noise = || Some(floats::<3>(&self.data["noise"], &self.device));
        let input = self.input();
        let losses = sift.losses(&model, &input, &labels, noise(), 1.0);
        for (key, found) in
            [("clean_loss", &losses.task), ("adversarial_term", &losses.adversarial), ("loss", &losses.total)]
        {
            let (found, expected) = (found.clone().into_scalar::<f32>(), self.data[key].1[0]);
            assert!(
                (found - expected).abs() <= 1e-4 * expected.abs(),
                "{context}: {key} {found} instead of {expected}"
            );
        }
        // A power of two causes no rounding.
        let scaled = sift.losses(&model, &input, &labels, noise(), 1024.0);
        scaled.perturbation.into_data().assert_eq(&losses.perturbation.to_data(), true);
        self.check_perturbation(&context, "delta", losses.perturbation);
        for (key, loss) in [("delta.kl", SiftLoss::Kl), ("delta.mse", SiftLoss::Mse)] {
            if self.data.contains_key(key) {
                let other = Sift { loss, ..sift }.losses(&model, &input, &labels, noise(), 1.0);
                self.check_perturbation(&context, key, other.perturbation);
            }
        }

        let gradients = losses.total.backward();
        let folder = tempfile::tempdir().unwrap();
        let gradients = model.map(&mut IntoGradients(&gradients));
        checkpoint::write(&gradients, &self.config, folder.path(), None).unwrap();
        let found = read(&folder.path().join("model.safetensors"));
        let mut compared = 0;
        let of_all = self.data.iter().filter(|(key, _)| key.starts_with("grad."));
        let largest_of_model = largest(of_all.flat_map(|(_, (_, values))| values));
        for (key, (_, expected)) in
            self.data.iter().filter_map(|(key, value)| Some((key.strip_prefix("grad.")?, value)))
        {
            let difference = found[key].1.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            let allowed = gradient_tolerance(expected, largest_of_model);
            assert!(difference <= allowed, "{context}: grad of {key} is off by {difference:e}, allowed {allowed:e}");
            compared += 1;
        }
        assert!(compared > 10, "{context}: only {compared} gradients");
    }

    /// Compares perturbations of the tokens; what the fixture has at padding, the model may not even compute.
    fn check_perturbation(&self, context: &str, key: &str, found: Tensor<3>) {
        let (shape, expected) = &self.data[key];
        let hidden = shape[2];
        let mask = &self.data["attention_mask"].1;
        let packed = found.dims()[1] != shape[1];
        let found = found.into_data().try_to_vec::<f32>().unwrap();
        let mut rows = found.chunks(hidden);
        for (token, expected) in expected.chunks(hidden).enumerate() {
            if packed && mask[token] == 0.0 {
                continue;
            }
            let found = rows.next().expect("a row for each token");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-4, "{context}: {key} of token {token}: {found} for {expected}");
            }
        }
    }
}

/// Two devices of different kinds, each with half of the batches, make the step that one device makes of all, with the same
/// masks of dropout; and they make it again to the bit, although nothing says which is first.
#[test]
fn two_devices_equal_one() {
    let ModelConfig::Deberta(mut config) = ModelConfig::from_folder(fixture("training_v3")).unwrap() else { panic!() };
    (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.cls_dropout) = (0.2, 0.2, Some(0.2));
    let data = read(&fixture("training_v3").join("training.safetensors"));
    let run = |devices: Vec<Device>| {
        let model = loaded("training_v3", SequenceClassification::new(&config.clone().into(), &devices[0]));
        let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), 1e-3, 3).unwrap();
        let optimizer = AdamW::new(AdamWConfig::default(), ParameterGroups::default());
        let mut trainer = Trainer::new(model, devices, optimizer, schedule, None, 0);
        let batch = |key: &str, number: usize, device: &Device| {
            let (shape, values) = &data[key];
            let size: usize = shape[1..].iter().product();
            ints::<2>(&(vec![shape[1], size / shape[1]], values[number * size..(number + 1) * size].to_vec()), device)
        };
        let mut losses = Vec::new();
        for _ in 0..3 {
            let batches = (0..4).map(|number| {
                let device = trainer.device(number).clone();
                let labels = SequenceLabels::Classes(batch("labels", number, &device).squeeze_dim(1));
                let (ids, mask) = (batch("input_ids", number, &device), batch("attention_mask", number, &device));
                (input(ids, mask, None), labels)
            });
            let batches = batches.collect();
            losses.push(trainer.train_step(batches).loss);
        }
        losses
    };
    let [(_, flex), (_, ndarray)] = cpu_devices().map(|(name, device)| (name, device.autodiff()));
    let (one, two) = (run(vec![flex.clone()]), run(vec![flex.clone(), ndarray.clone()]));
    assert_eq!(two, run(vec![flex.clone(), ndarray]));
    assert_eq!(run(vec![flex.clone(); 3]), run(vec![flex; 3]));
    for (one, two) in one.iter().zip(&two) {
        // Sums in another order, and a backend with products of its own.
        assert!((one - two).abs() < 1e-5 * one, "{one} and {two}");
    }
}
