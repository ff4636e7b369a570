//! Kernels that a training step launches on a GPU. A program of its own: launches are counted over the whole process.
#![cfg(feature = "gpu")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use common::gpu;
use cubecl::logging::{LaunchObservation, LaunchObserver};
use deberta_burn::{
    DebertaConfig, ModelInput,
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

fn trainer(layers: usize, compute_type: Option<FloatDType>, device: &Device) -> Trainer<MaskedLm> {
    let config = DebertaConfig {
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
    };
    let mut model = MaskedLm::new(&config.into(), MaskedLmLayout::EnhancedMaskDecoder, device).expect("a model");
    model.backbone_mut().set_compute_type(compute_type);
    let optimizer = AdamW::new(AdamWConfig::default(), ParameterGroups { layers, layer_decay: 1.0 });
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

/// The launches of a step, when everything that is made once has been made.
fn launches(layers: usize, compute_type: Option<FloatDType>) -> BTreeMap<&'static str, usize> {
    let device = gpu().autodiff();
    let mut trainer = trainer(layers, compute_type, &device);
    for _ in 0..2 {
        trainer.train_step(vec![batch(&device)]);
    }
    let batch = batch(&device);
    device.sync().expect("a device that works");
    let launches = Arc::new(Launches::default());
    let watching = LaunchObservation::new(launches.clone());
    trainer.train_step(vec![batch]);
    device.sync().expect("a device that works");
    drop(watching);
    let counts = launches.0.lock().expect("as above");
    counts.clone()
}

#[test]
fn a_layer_costs_few_launches() {
    // One more than a layer takes has to be meant. Of 10 products, two of them with the position tables, each has two of its
    // gradients, and the backward pass repeats those two; what is left is burn's: sums of gradients, GELU, copies and casts.
    for (compute_type, most) in [(None, 117), (Some(FloatDType::F16), 152)] {
        let (two, three) = (launches(2, compute_type), launches(3, compute_type));
        let of_layer: BTreeMap<_, _> = three
            .iter()
            .map(|(kernel, count)| (*kernel, count.saturating_sub(two.get(kernel).copied().unwrap_or_default())))
            .collect();
        let of = |name: &str| of_layer.iter().filter(|(kernel, _)| kernel.contains(name)).map(|(_, count)| count).sum();
        let (products, all): (usize, usize) = (of("MatmulEntry"), of(""));
        assert_eq!(products, 32, "{compute_type:?}: {of_layer:#?}");
        assert!(all <= most, "{compute_type:?}: {all} launches: {of_layer:#?}");
    }
}
