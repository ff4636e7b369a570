//! Attention's kernels and whole models on a GPU, or on what stands in for one: CONTRIBUTING says how to run these without a card.
#![cfg(feature = "gpu")]

#[path = "../benches/device/attention.rs"]
mod attention;
mod common;

use attention::{Case, Implementation, cases};
use burn::{
    module::Param,
    tensor::{DType, Device, Tensor, TensorData, f16},
};
use common::{fixture, fixtures_with, gpu};
use deberta_burn::{model::linear::Linear, parity::Reference};

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

/// Products in half precision with parameters in f32: the gradients of those are in f32, too.
#[test]
fn products_in_mixed_precision_equal_the_cpus() {
    for [rows, inputs, outputs] in [[4096, 64, 48], [300, 33, 7], [70, 96, 12]] {
        let run = |device: &Device, dtype: DType, parameters: DType| {
            let values = |part: usize, shape: [usize; 2], dtype: DType| {
                let value = |at: usize| (((at * 7919 + part * 104_729) % 2003) as f32 / 1001.0) - 1.0;
                // Rounded for all, so that what differs is how the products are made.
                let data = TensorData::new((0..shape[0] * shape[1]).map(value).collect(), shape).convert::<f16>();
                Tensor::<2>::from_data(data, (device, dtype))
            };
            let x = values(0, [rows, inputs], dtype).require_grad();
            let bias = Param::from_tensor(values(2, [1, outputs], parameters).flatten(0, 1));
            let linear = Linear::new(Param::from_tensor(values(1, [inputs, outputs], parameters)), Some(bias));
            let output = linear.forward(x.clone());
            let gradients = (output.clone() * values(3, [rows, outputs], dtype)).sum().backward();
            let bias = linear.bias.as_ref().expect("as above").grad(&gradients).expect("a gradient");
            let weight = linear.weight.grad(&gradients).expect("a gradient");
            assert_eq!([weight.dtype(), bias.dtype()], [parameters; 2]);
            [output.inner(), x.grad(&gradients).expect("a gradient"), weight, bias.unsqueeze()]
                .map(|tensor| tensor.cast(DType::F64).into_data().try_to_vec::<f64>().expect("numbers in f64"))
        };
        let found = run(&gpu().autodiff(), DType::F16, DType::F32);
        let expected = run(&Device::flex().autodiff(), DType::F64, DType::F64);
        for (name, (found, expected)) in ["y", "dx", "dW", "db"].into_iter().zip(found.iter().zip(&expected)) {
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
            let error = difference / norm(&mut expected.iter().copied());
            // Outputs and gradients are rounded to the 11 bits of f16 once or twice.
            assert!(error <= 1e-3, "{rows} x {inputs} x {outputs}: {name} is off by {error:e}");
        }
    }
}

/// The gradient of a weight is a sum over all rows: in one go, in parts, and in as many parts as divide the rows.
#[test]
fn products_of_many_rows_equal_the_cpus() {
    for (rows, inputs, outputs) in [(4096, 64, 48), (3000, 33, 7), (2999, 16, 200)] {
        let run = |device: &Device| {
            let values = |part: usize, shape: [usize; 2]| {
                let value = |at: usize| (((at * 7919 + part * 104_729) % 2003) as f32 / 1001.0) - 1.0;
                let data = TensorData::new((0..shape[0] * shape[1]).map(value).collect(), shape);
                Tensor::<2>::from_data(data, device)
            };
            let x = values(0, [rows, inputs]).require_grad();
            let bias = Param::from_tensor(values(2, [1, outputs]).flatten(0, 1));
            let linear = Linear::new(Param::from_tensor(values(1, [inputs, outputs])), Some(bias));
            let output = linear.forward(x.clone());
            let gradients = (output.clone() * values(3, [rows, outputs])).sum().backward();
            let bias = linear.bias.as_ref().expect("as above").grad(&gradients).expect("a gradient");
            let weight = linear.weight.grad(&gradients).expect("a gradient");
            [output.inner(), x.grad(&gradients).expect("a gradient"), weight, bias.unsqueeze()]
                .map(|tensor| tensor.into_data().try_to_vec::<f32>().expect("numbers in f32"))
        };
        let (found, expected) = (run(&gpu().autodiff()), run(&Device::flex().autodiff()));
        for (name, (found, expected)) in ["y", "dx", "dW", "db"].into_iter().zip(found.iter().zip(&expected)) {
            let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            // Some thousand roundings of f32, in another order.
            assert!(difference <= 1e-5 * largest, "{rows} x {inputs} x {outputs}: {name} is off by {difference:e}");
        }
    }
}
