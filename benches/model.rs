//! Whole models of published shapes with random weights: the forward pass, words for masks, and a training step of a classifier.
//!
//! ```sh
//! cargo bench --bench model -- base/8x128
//! ```

mod common;
#[path = "common/training.rs"]
mod training;

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deberta_burn::{
    ModelInput, Prepared,
    config::Preset,
    heads::{MaskedLm, MaskedLmLayout, SequenceClassification},
    model::{AttentionMask, MaskedPositions},
};
use training::Training;

/// 16 texts of 8 to 128 tokens.
fn ragged() -> Vec<usize> {
    (1..=16).map(|text| 8 * text).collect()
}

/// Texts of these lengths, padded to the longest.
fn input(lengths: &[usize], device: &Device) -> ModelInput {
    let longest = lengths.iter().copied().max().expect("at least one text");
    let shape = [lengths.len(), longest];
    let cells = || lengths.iter().flat_map(|length| (0..longest).map(move |position| (position, position < *length)));
    // Any ids do, as long as they differ.
    let ids: Vec<i32> = cells().map(|(position, real)| if real { 3 + 97 * position as i32 } else { 0 }).collect();
    let input = ModelInput::new(Tensor::from_data(TensorData::new(ids, shape), device));
    match lengths.iter().any(|length| *length < longest) {
        true => {
            let mask: Vec<bool> = cells().map(|(_, real)| real).collect();
            input.attention_mask(AttentionMask::new(mask, shape, device))
        }
        false => input,
    }
}

fn forward(criterion: &mut Criterion) {
    let device = Device::flex();
    let batches =
        [("1x32", vec![32]), ("1x128", vec![128]), ("8x128", vec![128; 8]), ("1x512", vec![512]), ("ragged", ragged())];
    for preset in [Preset::DebertaV3Xsmall, Preset::DebertaV3Base] {
        let mut group = criterion.benchmark_group(format!("forward/{}", preset.name()));
        group.sample_size(10);
        let model = Prepared::new(common::config(preset).init(&device));
        for (name, lengths) in &batches {
            let input = input(lengths, &device);
            group.throughput(Throughput::Elements(lengths.iter().sum::<usize>() as u64));
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| black_box(model.forward(input.clone()).last_hidden_state.into_data()));
            });
        }
    }
}

/// Texts of 32 tokens with a mask in each: with 128,100 words, their scores take as long as the layers.
fn fill_mask(criterion: &mut Criterion) {
    let (device, preset) = (Device::flex(), Preset::DebertaV3Base);
    let mut group = criterion.benchmark_group(format!("fill_mask/{}", preset.name()));
    group.sample_size(10);
    let model = MaskedLm::new(&common::config(preset).into(), MaskedLmLayout::EnhancedMaskDecoder, &device);
    let model = Prepared::new(model.expect("a decoder fits its layers"));
    for (name, texts) in [("1x32", 1), ("8x32", 8)] {
        let (input, masked) = (input(&vec![32; texts], &device), MaskedPositions::new(32, vec![vec![7]; texts]));
        group.throughput(Throughput::Elements(texts as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| black_box(model.predict_at(input.clone(), &masked).into_data()));
        });
    }
}

fn training_step(criterion: &mut Criterion) {
    let device = Device::flex().autodiff();
    let cases = [(Preset::DebertaV3Xsmall, "8x128", [128; 8].as_slice()), (Preset::DebertaV3Base, "2x512", &[512; 2])];
    for (preset, name, lengths) in cases {
        let mut group = criterion.benchmark_group(format!("training_step/{}", preset.name()));
        group.sample_size(10);
        group.throughput(Throughput::Elements(lengths.iter().sum::<usize>() as u64));
        let input = input(lengths, &device);
        let classes = Tensor::zeros([lengths.len()], &device);
        for (kind, sift) in [("plain", false), ("sift", true)] {
            let model = SequenceClassification::new(&common::config(preset).into(), &device);
            let mut training = Training::new(model, &device, sift);
            group.bench_function(BenchmarkId::new(kind, name), |bencher| {
                bencher.iter(|| black_box(training.step(input.clone(), classes.clone())));
            });
        }
    }
}

criterion_group!(benches, forward, fill_mask, training_step);
criterion_main!(benches);
