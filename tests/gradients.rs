//! Losses and the gradient of every parameter equal to torch's, for each kind of head and each CPU backend.

mod common;

use std::ops::Range;

use burn::{
    module::Module,
    tensor::{Device, FloatDType, Int, Tensor, TensorData},
};
use common::{
    IntoGradients, Tensors, config_without_dropout, cpu_devices, devices, fixture, fixtures_with, gradient_tolerance,
    largest, read,
};
use deberta_burn::{
    Backbone, ModelConfig, ModelInput,
    checkpoint::{self, Checkpoint, LoadOptions},
    config::{Configuration, ProblemType, SwitchConfig},
    data::read_entities,
    heads::{
        AlignmentLoss, DualEncoder, FocalLoss, MaskedLm, MaskedLmLayout, MaskedPositions, MultipleChoice, Pooling,
        QuestionAnswering, ReplacedTokenDetection, SequenceClassification, SequenceLabels, TextEncoder,
        TokenClassification,
    },
    model::InferenceModel,
    parity::Reference,
    training::{
        AdamW, AdamWConfig, DualLabels, MaskedLmLabels, Objective, ParameterGroups, Schedule, ScheduleKind, Sift, Task,
        TrainStepReport, Trainer, VectorLabels, Warmup,
        tasks::{AskedTypes, Collator, EntityOptions, EntityReader, EntityTask, GlinerBase, Splits},
    },
};
use safetensors::SafeTensors;

#[test]
fn gradients_equal_the_reference() {
    let names = fixtures_with("gradients.safetensors");
    assert!(names.len() > 12, "fixtures are missing: {names:?}");
    let mut largest = 0f32;
    for name in &names {
        for (backend, device) in devices() {
            let bytes = std::fs::read(fixture(name).join("gradients.safetensors")).unwrap();
            let device = device.autodiff();
            let case = Case::new(name, &bytes, &device, None);
            let found = assert_equal(&format!("{name} on {backend}"), case.gradients(), &case.expected);
            largest = largest.max(found);
        }
    }
    println!("{} fixtures, largest difference of a gradient {largest:.2} of what is allowed", names.len());
}

/// In mixed precision, losses and gradients are near the reference, and gradients are in f32.
#[test]
fn gradients_in_mixed_precision_are_near_the_reference() {
    let names = fixtures_with("gradients.safetensors");
    let device = Device::flex().autodiff();
    for (dtype, step) in [(FloatDType::BF16, 2f32.powi(-8)), (FloatDType::F16, 2f32.powi(-11))] {
        for name in &names {
            let bytes = std::fs::read(fixture(name).join("gradients.safetensors")).unwrap();
            let case = Case::new(name, &bytes, &device, Some(dtype));
            let (loss, gradients) = case.gradients();
            let (mut error, mut size) = (0f32, 0f32);
            for (parameter, (_, found)) in &gradients {
                let expected = floats(&case.expected, &format!("grad.{parameter}"));
                // Of numbers in half the bits there would be half as many.
                assert_eq!(found.len(), expected.len(), "{name}, {parameter}");
                size += expected.iter().map(|value| value.powi(2)).sum::<f32>();
                error += found.iter().zip(expected).map(|(found, expected)| (found - expected).powi(2)).sum::<f32>();
            }
            let expected = floats(&case.expected, "loss")[0];
            let (loss, gradient) = ((loss - expected).abs() / expected.abs() / step, (error / size).sqrt() / step);
            // A layer rounds on eight occasions, by half a step at most, and its backward pass does again: in three layers that
            // is 12 steps for the loss and 24 for gradients, if all errors add up.
            let near = loss < 12.0 && (0.1..24.0).contains(&gradient);
            assert!(near, "{name} in {dtype:?}: loss off by {loss} steps, gradients by {gradient}");
        }
    }
}

/// A step of a model whose routers' losses weigh this much: the reported loss, the figures, the gradient's norm.
fn step_with(weight: f64, sift: Option<Sift>, device: &Device) -> TrainStepReport {
    let name = "switch_v3_token";
    let bytes = std::fs::read(fixture(name).join("gradients.safetensors")).unwrap();
    let mut case = Case::new(name, &bytes, device, None);
    let switch = case.config.switch().unwrap().clone();
    case.config.set_switch(SwitchConfig { router_aux_loss_coef: weight, router_z_loss_coef: weight, ..switch });
    let model = case.load(TokenClassification::new(&case.config, device), InferenceModel::backbone_mut);
    let optimizer = AdamW::new(AdamWConfig::default(), ParameterGroups::default());
    let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), 1e-3, usize::MAX).unwrap();
    let mut trainer = Trainer::new(model, vec![device.clone()], optimizer, schedule, sift, 0);
    trainer.train_step(vec![(case.input(), case.integers("labels"))])
}

/// That the loss is right is shown above; here, that fine-tuning adds it, with and without SiFT, and does not report it as the
/// task's.
#[test]
fn training_adds_the_loss_of_routers() {
    let device = Device::flex().autodiff();
    for sift in [None, Some(Sift::default())] {
        let [without, with] = [0.0, 1.0].map(|weight| step_with(weight, sift, &device));
        assert_eq!(without.loss, with.loss);
        assert!(with.gradient_norm != without.gradient_norm, "{with:?}");
        for name in ["router_least", "router_most", "router_overflow", "router_entropy", "router_balance"] {
            assert!(with.parts.iter().any(|(part, value)| *part == name && *value > 0.0), "{name}: {with:?}");
        }
    }
}

/// Compares a loss and the gradients of all parameters with the reference's. Returns the largest difference of a gradient, in
/// parts of what is allowed.
fn assert_equal(case: &str, (loss, gradients): (f32, Tensors), expected: &SafeTensors<'_>) -> f32 {
    let expected_loss = floats(expected, "loss")[0];
    assert!((loss - expected_loss).abs() <= 1e-5 * expected_loss.abs(), "{case}: {loss} != {expected_loss}");
    let of_all = expected.names().into_iter().filter(|key| key.starts_with("grad."));
    let largest_of_model = of_all.map(|key| largest(&floats(expected, key))).fold(0f32, f32::max);
    let (mut compared, mut worst) = (0, 0f32);
    for key in expected.names() {
        let Some(parameter) = key.strip_prefix("grad.") else { continue };
        let (shape, found) = gradients.get(parameter).unwrap_or_else(|| panic!("{case}: no gradient of {parameter}"));
        assert_eq!(shape, expected.tensor(key).unwrap().shape(), "{case}: {parameter}");
        let expected = floats(expected, key);
        let allowed = gradient_tolerance(&expected, largest_of_model);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= allowed,
                "{case}, {parameter}[{index}]: {found} != {expected}, allowed {allowed}"
            );
            worst = worst.max((found - expected).abs() / allowed);
        }
        compared += 1;
    }
    assert_eq!(compared, gradients.len(), "{case}: the reference lacks gradients of some parameters");
    worst
}

/// The gradients of a module's parameters, with the names of its file.
fn gradients<M: Module>(module: M, loss: Tensor<1>, config: &dyn Configuration) -> (f32, Tensors) {
    let gradients = loss.backward();
    (loss.into_scalar::<f32>(), written(module.map(&mut IntoGradients(&gradients)), config))
}

/// The parameters of a module, with the names of its file.
fn written<M: Module>(module: M, config: &dyn Configuration) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    // Written as a checkpoint, gradients get the reference's names and, for v1, its packed projections.
    checkpoint::write(&module, config, folder.path(), None).unwrap();
    read(&folder.path().join("model.safetensors"))
}

/// Where both have the weights of one, the reference's gradient of these is shared between them.
#[test]
fn gradients_of_two_encoders_add_up_to_those_of_one() {
    let device = Device::flex().autodiff();
    for (name, sizes) in [("contrastive_v3", vec![]), ("contrastive_v3_sizes", vec![8, 3])] {
        let bytes = std::fs::read(fixture(name).join("gradients.safetensors")).unwrap();
        let case = Case::new(name, &bytes, &device, None);
        let encoder = || {
            let encoder = TextEncoder::new(&case.config, Pooling::Mean, case.config.hidden_size(), &device);
            case.load(encoder, InferenceModel::backbone_mut)
        };
        let model = DualEncoder::new(encoder(), encoder(), case.config.clone()).unwrap();
        let of = |rows: Range<usize>| {
            let mut input = case.input();
            input.attention_mask =
                input.attention_mask.map(|mask| mask.tensor().clone().slice_dim(0, rows.clone()).into());
            input.input_ids = input.input_ids.slice_dim(0, rows);
            input
        };
        let labels = DualLabels { counterparts: of(3..7), pairs: 3, sizes };
        let loss = model.loss(model.logits(of(0..3), &labels), labels);
        let gradients = loss.backward();
        let [mut sum, counterparts] =
            model.sides().map(|side| written(side.clone().map(&mut IntoGradients(&gradients)), &case.config));
        for (name, (_, values)) in &mut sum {
            values.iter_mut().zip(&counterparts[name].1).for_each(|(sum, other)| *sum += other);
        }
        assert_equal(name, (loss.into_scalar::<f32>(), sum), &case.expected);
    }
}

/// From rows of a file to gradients, as training does it.
#[test]
fn gradients_of_gliner_equal_the_reference() {
    for name in ["span", "span_two_lstm_layers", "span_marker", "token"] {
        let folder = fixture(&format!("gliner/{name}"));
        let bytes = std::fs::read(folder.join("gradients.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let [alpha, gamma] = floats(&expected, "focal")[..] else { panic!("two numbers") };
        let focal = FocalLoss { alpha: (alpha >= 0.0).then_some(f64::from(alpha)), gamma: f64::from(gamma) };
        let mut base = GlinerBase::open(&folder, name, Some(&fixture("gliner/tokenizer")), None).unwrap();
        base.config.dropout = 0.0;
        base.config.encoder_config.hidden_dropout_prob = 0.0;
        base.config.encoder_config.attention_probs_dropout_prob = 0.0;
        let reader = EntityReader::new(&base.config, &base.tokenizer, 512).unwrap();
        let rows = fixture("gliner/rows.jsonl");
        let data =
            Splits { train: reader.examples(read_entities(&rows).unwrap(), &rows).unwrap(), valid: None, test: None };
        let collator = Collator { config: base.config.encoder(), pad_id: base.tokenizer.pad_id(), batch_tokens: 1024 };
        let options = EntityOptions { asked: AskedTypes::Sampled, focal, seed: 0 };
        let task = EntityTask::new(reader, collator, data, options);
        for (backend, device) in cpu_devices() {
            let device = device.autodiff();
            let model = base.fresh(&base.config, &device);
            let (model, _) = Checkpoint::open(&folder).unwrap().load(model, &LoadOptions::default()).unwrap();
            let (input, labels) = task.batch(&[0, 1, 2], 0, &device).unwrap();
            let loss = Objective::loss(&model, model.logits(input, &labels), labels);
            assert_equal(&format!("{name} on {backend}"), gradients(model, loss, &base.config), &expected);
        }
    }
}

/// One fixture on one device.
struct Case<'a> {
    name: &'a str,
    reference: Reference,
    expected: SafeTensors<'a>,
    config: ModelConfig,
    device: &'a Device,
    compute_type: Option<FloatDType>,
}

impl<'a> Case<'a> {
    /// A fixture with the gradients in its file.
    fn new(name: &'a str, expected: &'a [u8], device: &'a Device, compute_type: Option<FloatDType>) -> Self {
        Self {
            name,
            reference: Reference::open(fixture(name).join("reference.safetensors")).unwrap(),
            expected: SafeTensors::deserialize(expected).unwrap(),
            config: config_without_dropout(name),
            device,
            compute_type,
        }
    }

    /// The loss, and the gradients of all parameters.
    fn gradients(&self) -> (f32, Tensors) {
        match self.name {
            name if name.starts_with("rtd_") => self.replaced_token(),
            name if name.starts_with("contrastive_") => self.contrastive(),
            name if name.starts_with("emd_") => self.masked_lm(MaskedLmLayout::EnhancedMaskDecoder),
            name if name.contains("masked_lm") => self.masked_lm(match &self.config {
                ModelConfig::Deberta(config) if config.legacy => MaskedLmLayout::Legacy,
                _ => MaskedLmLayout::LastLayer,
            }),
            _ => self.head(),
        }
    }

    fn load<M: Module>(&self, module: M, backbone: impl Fn(&mut M) -> &mut Backbone) -> M {
        let checkpoint = Checkpoint::open(fixture(self.name)).unwrap();
        let (mut module, _) = checkpoint.load(module, &LoadOptions::default()).unwrap();
        backbone(&mut module).set_compute_type(self.compute_type);
        module
    }

    fn input(&self) -> ModelInput {
        self.reference.input(&self.config, self.device).unwrap()
    }

    fn integers<const D: usize>(&self, name: &str) -> Tensor<D, Int> {
        let view = self.expected.tensor(name).unwrap();
        let values: Vec<i64> =
            view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
        Tensor::from_data(TensorData::new(values, view.shape().to_vec()), self.device)
    }

    fn values<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(floats(&self.expected, name), shape), self.device)
    }

    fn finish<M: Module>(&self, module: M, loss: Tensor<1>) -> (f32, Tensors) {
        gradients(module, loss, &self.config)
    }

    fn head(&self) -> (f32, Tensors) {
        let task = self.config.task().architectures[0].split_once("For").expect("a head").1.to_owned();
        match task.as_str() {
            "SequenceClassification" => self.sequence(),
            "TokenClassification" => {
                let model =
                    self.load(TokenClassification::new(&self.config, self.device), InferenceModel::backbone_mut);
                let (input, routing) = self.input().record_routing();
                let loss = model.loss(model.forward(input), self.integers("labels"));
                self.finish(model, routing.add_to(loss))
            }
            "QuestionAnswering" => {
                let model = self.load(QuestionAnswering::new(&self.config, self.device), InferenceModel::backbone_mut);
                let (starts, ends) = (self.integers("start_positions"), self.integers("end_positions"));
                let loss = model.loss(model.forward(self.input()), starts, ends);
                self.finish(model, loss)
            }
            "MultipleChoice" => {
                let model =
                    self.load(MultipleChoice::new(&self.config, self.device), |model| model.backbones_mut().remove(0));
                let choices = self.integers::<1>("labels");
                let rows = self.input().input_ids.dims()[0] / choices.dims()[0];
                let loss = model.loss(model.forward(self.input(), rows), choices);
                self.finish(model, loss)
            }
            other => panic!("{}: no test for {other}", self.name),
        }
    }

    /// Three pairs and a counterpart that belongs to none; or texts and given vectors of another size than the hidden one.
    fn contrastive(&self) -> (f32, Tensors) {
        let given = self.expected.tensor("labels").ok().map(|labels| [labels.shape()[0], labels.shape()[1]]);
        let width = given.map_or(self.config.hidden_size(), |[_, width]| width);
        let encoder = TextEncoder::new(&self.config, Pooling::Mean, width, self.device);
        let model = self.load(encoder, InferenceModel::backbone_mut);
        let vectors = model.forward(self.input());
        let given = |loss| VectorLabels::Given { vectors: self.values("labels", given.expect("vectors")), loss };
        let labels = match self.name {
            "contrastive_v3" => VectorLabels::Pairs { pairs: 3, sizes: vec![] },
            "contrastive_v3_sizes" => VectorLabels::Pairs { pairs: 3, sizes: vec![8, 3] },
            "contrastive_v3_vectors" => given(AlignmentLoss::Contrastive),
            "contrastive_v3_squared" => given(AlignmentLoss::MeanSquaredError),
            other => panic!("{other}: no test for it"),
        };
        let loss = Objective::loss(&model, vectors, labels);
        self.finish(model, loss)
    }

    fn sequence(&self) -> (f32, Tensors) {
        let model = self.load(SequenceClassification::new(&self.config, self.device), InferenceModel::backbone_mut);
        let (input, routing) = self.input().record_routing();
        let logits = model.forward(input);
        let labels = match self.config.task().problem_type() {
            ProblemType::SingleLabelClassification => SequenceLabels::Classes(self.integers("labels")),
            ProblemType::MultiLabelClassification => SequenceLabels::MultiHot(self.values("labels", logits.dims())),
            ProblemType::Regression => SequenceLabels::Values(self.values("labels", logits.dims())),
        };
        let loss = routing.add_to(model.loss(logits, labels));
        self.finish(model, loss)
    }

    /// Training predicts tokens at the masked positions only: the same loss, and the gradients that are compared.
    fn masked_lm(&self, layout: MaskedLmLayout) -> (f32, Tensors) {
        let model = self.load(MaskedLm::new(&self.config, layout, self.device).unwrap(), InferenceModel::backbone_mut);
        let loss = model.loss(model.forward(self.input()), self.integers("labels"));
        let labels = self.integers::<2>("labels");
        let [_, length] = labels.dims();
        let rows = labels.clone().into_data().convert::<i64>().try_to_vec::<i64>().unwrap();
        let rows = rows.chunks(length);
        let chosen = |row: &[i64]| (0..length).filter(|position| row[*position] >= 0).collect::<Vec<_>>();
        let positions = MaskedPositions::new(length, rows.map(chosen));
        let tokens = labels.flatten::<1>(0, 1).select(0, positions.rows(self.device));
        let labels = MaskedLmLabels { positions, tokens };
        let masked = Objective::loss(&model, model.logits(self.input(), &labels), labels);
        let (all, only) = (loss.into_scalar::<f32>(), masked.clone().into_scalar::<f32>());
        assert!((all - only).abs() <= 1e-6 * all, "{}: {only} at the masked positions, {all} at all", self.name);
        self.finish(model, masked)
    }

    fn replaced_token(&self) -> (f32, Tensors) {
        let model = self.load(ReplacedTokenDetection::new(&self.config, self.device), InferenceModel::backbone_mut);
        let replaced = self.integers("labels").equal_elem(1);
        let input = self.input();
        let mask = input.attention_mask.clone();
        let loss = model.loss(model.forward(input), replaced, mask.as_ref());
        self.finish(model, loss)
    }
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}
