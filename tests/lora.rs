//! Fine-tuning by low-rank adapters: what is trained, and that the written adapter is the model that was trained.

mod common;

use std::{collections::BTreeSet, fs};

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, TensorData, Tolerance},
};
use common::{config_without_dropout, fixture};
use deberta_burn::{
    Checkpoint, ModelConfig, ModelInput, Prepared, Tokenizer,
    checkpoint::LoadOptions,
    heads::{SequenceClassification, SequenceLabels},
    training::{Learner, LinearRole, Lora, Run, Schedule, ScheduleKind, Start, Trainer, TrainingSettings, Warmup},
};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

/// Bases of each layout of projections: three matrices, one packed matrix, and RoBERTa's names; and one with experts.
const BASES: [&str; 4] = ["v3_sequence_single", "v1_sequence_biased_types", "roberta_sequence", "switch_v3_sequence"];

/// A few texts of the fixtures' vocabulary.
fn input(device: &Device) -> ModelInput {
    ModelInput::new(Tensor::from_ints([[3, 5, 6, 9, 12, 2], [3, 20, 21, 7, 8, 2]], device))
}

/// What a test of one base needs.
struct Case {
    base: String,
    config: ModelConfig,
    tokenizer: Tokenizer,
    devices: [Device; 1],
    settings: TrainingSettings,
    output: TempDir,
}

impl Case {
    fn new(base_name: &str, targets: &[LinearRole]) -> Self {
        let base = fixture(base_name).to_str().expect("a path in UTF-8").to_owned();
        let lora = Lora { rank: 3, alpha: 4.0, targets: targets.to_vec(), ..Lora::new(&base) };
        let config = config_without_dropout(base_name);
        Self {
            base,
            config,
            tokenizer: Tokenizer::from_folder(fixture("small_tokenizer")).unwrap(),
            devices: [Device::flex().autodiff()],
            settings: TrainingSettings { lora: Some(lora), ..TrainingSettings::default() },
            output: TempDir::new().unwrap(),
        }
    }

    fn run(&self) -> Run<'_> {
        Run {
            output: self.output.path(),
            config: &self.config,
            tokenizer: &self.tokenizer,
            resume: false,
            devices: &self.devices,
            report_every: 1,
            snapshots: &[],
            data: Value::Null,
        }
    }

    fn begin(&self, saved: Option<&std::path::Path>) -> Trainer<SequenceClassification> {
        let run = self.run();
        let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), 0.02, usize::MAX).unwrap();
        let model = SequenceClassification::new(&self.config, &self.devices[0]);
        let (model, _) = Checkpoint::open(&self.base).unwrap().load(model, &LoadOptions::default()).unwrap();
        Trainer::begin(model, Start { settings: &self.settings, schedule, run: &run, saved }).unwrap()
    }

    fn step(&self, trainer: &mut Trainer<SequenceClassification>) -> f64 {
        let labels = SequenceLabels::Classes(Tensor::from_ints([2, 0], &self.devices[0]));
        trainer.train_step(vec![(input(&self.devices[0]), labels)]).loss
    }
}

fn logits(model: &SequenceClassification) -> TensorData {
    model.forward(input(&Device::flex())).into_data()
}

#[test]
fn the_written_adapter_is_the_trained_model() {
    for base in BASES {
        let case = Case::new(base, &LinearRole::ALL);
        let mut trainer = case.begin(None);
        let losses: Vec<_> = (0..6).map(|_| case.step(&mut trainer)).collect();
        assert!(losses[5] < losses[0] - 0.1, "{base} learns nothing: {losses:?}");
        trainer.export(&case.run(), case.output.path()).unwrap();

        // The same numbers, summed in another order.
        let tolerance = Tolerance::<f32>::absolute(2e-5);
        let trained = trainer.model().valid();
        let read = trainer.exported(case.output.path(), &LoadOptions::default()).unwrap();
        logits(&read).assert_approx_eq(&logits(&trained), tolerance);
        // Laid out for inference, the change is part of the weights.
        let prepared = Prepared::new(trained).forward(input(&Device::flex())).into_data();
        prepared.assert_approx_eq(&logits(&read), tolerance);

        // The base alone answers otherwise.
        let alone = logits(&SequenceClassification::from_folder(&case.base, &Device::flex()).unwrap());
        let adapted = logits(&read);
        let pairs = alone.iter::<f32>().zip(adapted.iter::<f32>());
        let difference = pairs.map(|(alone, adapted)| (alone - adapted).abs()).fold(0.0, f32::max);
        assert!(difference > 0.1, "{base}: {difference}");
    }
}

#[test]
fn a_merged_run_leaves_the_trained_model() {
    for base in BASES {
        let mut case = Case::new(base, &LinearRole::ALL);
        case.settings.lora.iter_mut().for_each(|lora| lora.merged = true);
        let mut trainer = case.begin(None);
        for _ in 0..3 {
            case.step(&mut trainer);
        }
        trainer.export(&case.run(), case.output.path()).unwrap();
        let whole = SequenceClassification::from_folder(case.output.path(), &Device::flex()).unwrap();
        // The same numbers, summed in another order.
        logits(&whole).assert_approx_eq(&logits(&trainer.model().valid()), Tolerance::<f32>::absolute(2e-5));
        let read = trainer.exported(case.output.path(), &LoadOptions::default()).unwrap();
        assert_eq!(logits(&read), logits(&whole));
        assert!(!case.output.path().join("adapter_config.json").exists());
    }
}

#[test]
fn changes_of_packed_projections_become_one() {
    let case = Case::new("v1_sequence_biased_types", &[LinearRole::Value, LinearRole::Query, LinearRole::Output]);
    case.begin(None).export(&case.run(), case.output.path()).unwrap();
    let text = fs::read_to_string(case.output.path().join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let module = "deberta.encoder.layer.0.attention.self.in_proj";
    assert!(config["target_modules"].as_array().unwrap().contains(&module.into()), "{config}");
    // Twice the rank, and the same factor.
    assert_eq!((&config["rank_pattern"][module], &config["alpha_pattern"][module]), (&6.into(), &8.0.into()));
    let bytes = fs::read(case.output.path().join("adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |end: &str| tensors.tensor(&format!("base_model.model.{module}{end}")).unwrap().shape().to_vec();
    assert_eq!((shape(".lora_A.weight"), shape(".lora_B.weight")), (vec![6, 12], vec![36, 6]));
}

#[test]
fn a_saved_run_holds_what_is_trained_and_goes_on_from_it() {
    let case = Case::new("v3_sequence_single", &[LinearRole::Query]);
    let mut trainer = case.begin(None);
    case.step(&mut trainer);
    trainer.save(&case.config, case.output.path()).unwrap();
    let bytes = fs::read(case.output.path().join("trained.safetensors")).unwrap();
    let names: BTreeSet<_> = SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect();
    let query = |layer: usize, part: &str| format!("backbone.encoder.layer.{layer}.attention.query_proj.lora.{part}");
    let changes = (0..2).flat_map(|layer| [query(layer, "down"), query(layer, "up")]);
    let head = ["classifier.bias", "classifier.weight", "pooler.dense.bias", "pooler.dense.weight"].map(str::to_owned);
    assert_eq!(names, changes.chain(head).collect());

    let mut resumed = case.begin(Some(case.output.path()));
    assert_eq!(resumed.steps(), 1);
    assert_eq!(case.step(&mut resumed), case.step(&mut trainer));
    assert_eq!(logits(&resumed.model().valid()), logits(&trainer.model().valid()));
}
