//! Attention's kernels and whole models on a GPU, or on what stands in for one: CONTRIBUTING says how to run these without a card.
#![cfg(feature = "gpu")]

#[path = "../benches/device/attention.rs"]
mod attention;
mod common;

use attention::{Case, Implementation, cases};
use burn::tensor::DType;
use common::{fixture, fixtures_with, gpu};
use deberta_burn::parity::Reference;

#[test]
fn attention_equals_its_definition() {
    let device = gpu();
    // Sums of up to 700 f32 numbers of size 1, in another order, leave some 1e-7 of relative error; f16 keeps 11 bits, and a
    // result is as exact as the few roundings between inputs and output.
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::F16, 2e-3)] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        for (number, case) in cases().into_iter().enumerate() {
            for (name, error) in case.errors(&device, dtype, number as u64) {
                assert!(error <= bound, "{dtype:?}, {case:?}: {name} is off by {error:.1e}");
            }
        }
    }
}

#[test]
fn gradients_are_the_same_twice() {
    let case = Case { dropout: 0.1, ..Case::new(&[150, 90], 2, 64) };
    let run = || case.results(Implementation::Fused, &gpu().autodiff(), DType::F32, 5);
    assert_eq!(run(), run());
}

#[test]
fn models_equal_the_reference() {
    let device = gpu();
    let mut names = fixtures_with("reference.safetensors");
    names.retain(|name| !name.starts_with("emd_") && !name.starts_with("rtd_"));
    assert!(names.len() > 25, "fixtures are missing: {names:?}");
    for name in names {
        let folder = fixture(&name);
        let reference = Reference::open(folder.join("reference.safetensors")).expect("a reference");
        let largest = reference.compare(&folder, &device).expect("a model").max();
        assert!(largest <= 1e-4, "{name}: off by {largest:.1e}");
    }
}
