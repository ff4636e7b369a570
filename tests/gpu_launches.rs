//! Kernels that training and inference launch on a GPU. A program of its own: launches are counted over the whole process.
#![cfg(feature = "gpu")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use burn::{
    module::Module,
    tensor::{DType, Device, FloatDType, Int, Tensor, TensorData},
};
use common::{cast::Cast, gpu};
use cubecl::logging::{LaunchObservation, LaunchObserver};
use deberta_burn::{
    Backbone, DebertaConfig, ModelInput,
    config::{DebertaVersion, PositionTerms},
    heads::{MaskedLm, MaskedLmLayout, MaskedPositions},
    model::InferenceModel,
    training::{AdamW, AdamWConfig, MaskedLmLabels, ParameterGroups, Schedule, ScheduleKind, Trainer, Warmup},
};

/// How often each kernel was launched.
#[derive(Default)]
struct Launches(Mutex<BTreeMap<&'static str, usize>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        *self.0.lock().expect("nobody panics with the lock").entry(kernel).or_default() += 1;
    }
}

fn config(layers: usize) -> DebertaConfig {
    DebertaConfig {
        vocab_size: 40,
        hidden_size: 32,
        num_hidden_layers: layers,
        num_attention_heads: 2,
        intermediate_size: 64,
        relative_attention: true,
        position_buckets: 8,
        norm_rel_ebd: "layer_norm".to_owned(),
        share_att_key: true,
        pos_att_type: PositionTerms { c2p: true, p2c: true },
        position_biased_input: false,
        ..DebertaConfig::new(DebertaVersion::V2)
    }
}

fn trainer(layers: usize, compute_type: Option<FloatDType>, device: &Device) -> Trainer<MaskedLm> {
    let mut model =
        MaskedLm::new(&config(layers).into(), MaskedLmLayout::EnhancedMaskDecoder, device).expect("a model");
    model.backbone_mut().set_compute_type(compute_type);
    let optimizer = AdamW::new(AdamWConfig::default(), ParameterGroups::default());
    let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), 1e-3, 10).expect("a schedule");
    Trainer::new(model, vec![device.clone()], optimizer, schedule, None, 0)
}

/// Two texts without padding, and three of their positions.
fn batch(device: &Device) -> (ModelInput, MaskedLmLabels) {
    let ids: Vec<i32> = (0..24).map(|token| 1 + token * 7 % 39).collect();
    let positions = MaskedPositions::new(12, &[vec![2, 5], vec![7]]);
    let tokens = Tensor::<1, Int>::from_data([3, 9, 4], device);
    (ModelInput::new(Tensor::from_data(TensorData::new(ids, [2, 12]), device)), MaskedLmLabels { positions, tokens })
}

/// The launches of a run, when everything that is made once has been made.
fn launches(device: &Device, mut run: impl FnMut()) -> BTreeMap<&'static str, usize> {
    for _ in 0..2 {
        run();
    }
    device.sync().expect("a device that works");
    let launches = Arc::new(Launches::default());
    let watching = LaunchObservation::new(launches.clone());
    run();
    device.sync().expect("a device that works");
    drop(watching);
    let counts = launches.0.lock().expect("as above");
    counts.clone()
}

/// Those of a training step.
fn of_training(layers: usize, compute_type: Option<FloatDType>) -> BTreeMap<&'static str, usize> {
    let device = gpu().autodiff();
    let (mut trainer, batch) = (trainer(layers, compute_type, &device), batch(&device));
    launches(&device, || drop(trainer.train_step(vec![batch.clone()])))
}

/// Those of inference, in a type of the parameters.
fn of_inference(layers: usize, dtype: DType) -> BTreeMap<&'static str, usize> {
    let device = gpu();
    let model = Backbone::new(&config(layers).into(), &device).map(&mut Cast(dtype));
    let (input, _) = batch(&device);
    launches(&device, || drop(model.forward(input.clone())))
}

/// What one more layer adds to the launches of two.
fn of_layer(of: impl Fn(usize) -> BTreeMap<&'static str, usize>) -> BTreeMap<&'static str, usize> {
    let (two, three) = (of(2), of(3));
    let more = |(kernel, count): (&'static str, usize)| {
        (kernel, count.saturating_sub(two.get(kernel).copied().unwrap_or_default()))
    };
    three.into_iter().map(more).filter(|(_, count)| *count > 0).collect()
}

/// Asserts how many products a layer has, and how many launches at most.
fn assert_few(what: &str, of_layer: &BTreeMap<&'static str, usize>, products: usize, most: usize) {
    let is_product = |kernel: &str| ["MatmulEntry", "tensor_core_product"].iter().any(|name| kernel.contains(name));
    let found: usize = of_layer.iter().filter(|(kernel, _)| is_product(kernel)).map(|(_, count)| count).sum();
    let all: usize = of_layer.values().sum();
    assert_eq!(found, products, "{what}: {of_layer:#?}");
    assert!(all <= most, "{what}: {all} launches: {of_layer:#?}");
}

#[test]
fn a_layer_costs_few_launches() {
    // One more than a layer takes has to be meant. Of 10 products, two of them with the position tables, each has two of its
    // gradients, and the backward pass repeats those two. Where tensor cores multiply fragments there are fewer: the products there
    // add the biases, and need no copies.
    for (compute_type, most) in [(None, 92), (Some(FloatDType::F16), 120)] {
        assert_few(
            &format!("training, {compute_type:?}"),
            &of_layer(|layers| of_training(layers, compute_type)),
            32,
            most,
        );
    }
    for (dtype, most) in [(DType::F32, 26), (DType::F16, 30)] {
        assert_few(&format!("inference, {dtype:?}"), &of_layer(|layers| of_inference(layers, dtype)), 10, most);
    }
}
