//! Replaced token detection equal to a torch statement of the original, step by step, and resumed as if nothing had happened.

mod checkpoints;
#[path = "../common/mod.rs"]
mod common;
mod gradients;
mod steps;

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use common::{Tensors, fixture, read};
use deberta_burn::{
    DebertaConfig, ModelConfig, ModelInput, checkpoint,
    heads::MaskedPositions,
    tokenizer::Tokenizer,
    training::{
        MaskedLmLabels, Run, ScheduleKind, TrainingSettings,
        replaced_token::{ReplacedToken, ReplacedTokenPretraining, Sharing},
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
        ReplacedTokenPretraining::load(&fixture(self.name), &self.config, options, &self.device).unwrap().0
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
    checkpoint::write(model, &ModelConfig::from(config.clone()), folder.path(), None).unwrap();
    read(&folder.path().join("model.safetensors"))
}

/// The learning rate of every step.
const RATE: f64 = 1e-2;

fn settings() -> TrainingSettings {
    TrainingSettings { learning_rate: RATE, schedule: ScheduleKind::Constant, seed: 5, ..TrainingSettings::default() }
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(fixture("small_tokenizer")).unwrap()
}

/// A run of the model in this configuration.
fn run<'a>(config: &'a ModelConfig, tokenizer: &'a Tokenizer, devices: &'a [Device]) -> Run<'a> {
    Run {
        output: Path::new(""),
        config,
        tokenizer,
        resume: true,
        devices,
        report_every: 1,
        snapshots: &[],
        data: serde_json::Value::Null,
    }
}
