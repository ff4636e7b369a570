//! Linear maps on a device: whether they are right, and how long they take.

use anyhow::{Context, Result};
use burn::{
    Tensor,
    module::Param,
    tensor::{DType, Device, Distribution, TensorData},
};
use deberta_burn::model::linear::Linear;
use serde_json::json;

use crate::median;

/// Rows, inputs and outputs: tiles that are full and not, sums in parts, what does not lie in whole lines.
const SHAPES: [[usize; 3]; 7] =
    [[1, 64, 64], [200, 72, 136], [1000, 768, 768], [300, 64, 24], [4100, 128, 256], [4099, 256, 128], [130, 40, 7]];

/// Whether output and gradients are as exact as the type allows, and the same twice.
pub fn check(dtype: DType, bound: f64, device: &Device) -> bool {
    let mut passed = true;
    for [rows, inputs, outputs] in SHAPES {
        // The host gets the numbers as the device rounds them.
        let values = |part: usize, shape: [usize; 2]| {
            let value = |at: usize| ((at * 7919 + part * 104_729) % 2003) as f32 / 1001.0 - 1.0;
            let data = TensorData::new((0..shape[0] * shape[1]).map(value).collect(), shape);
            Tensor::<2>::from_data(data, (&Device::flex(), DType::F32)).cast(dtype).cast(DType::F64).into_data()
        };
        let given = [values(0, [rows, inputs]), values(1, [inputs, outputs]), values(2, [rows, outputs])];
        let run = |device: &Device, dtype: DType| {
            let device = device.clone().autodiff();
            let tensor = |data: &TensorData| Tensor::<2>::from_data(data.clone(), (&device, dtype));
            let [x, weight, gradient] = given.each_ref().map(tensor);
            let (x, weight) = (x.require_grad(), Param::from_tensor(weight));
            let output = Linear::new(weight.clone(), None).forward(x.clone());
            let gradients = (output.clone() * gradient).sum().backward();
            let found = [output.inner(), x.grad(&gradients).expect("one"), weight.val().grad(&gradients).expect("one")];
            found.map(|tensor| tensor.cast(DType::F64).into_data().try_to_vec::<f64>().expect("numbers in f64"))
        };
        let expected = run(&Device::flex(), DType::F64);
        let twice = [(); 2].map(|()| run(device, dtype));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let errors = [0, 1, 2].map(|number| {
            let (found, expected) = (&twice[0][number], &expected[number]);
            let difference = norm(&mut expected.iter().zip(found).map(|(expected, found)| expected - found));
            difference / norm(&mut expected.iter().copied())
        });
        let same = twice[0] == twice[1];
        let holds = same && errors.iter().all(|error| *error <= bound);
        passed &= holds;
        println!(
            "{}",
            json!({
                "check": format!("{dtype:?}"), "product": [rows, inputs, outputs], "errors": errors, "same twice": same,
                "holds": holds,
            })
        );
    }
    passed
}

/// Times of a map INPUTSxOUTPUTS.
pub fn time(dtype: DType, rows: usize, map: &str, times: usize, device: &Device) -> Result<()> {
    let (inputs, outputs) = map.split_once('x').context("a map is written INPUTSxOUTPUTS")?;
    let (inputs, outputs): (usize, usize) = (inputs.parse()?, outputs.parse()?);
    let random = |shape: [usize; 2], device: &Device| {
        Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device).cast(dtype)
    };
    let line = |pass: &str, products: f64, ms: f64| {
        let teraflops = 2e-9 * products * (rows * inputs * outputs) as f64 / ms;
        println!(
            "{}",
            json!({ "map": map, "dtype": format!("{dtype:?}"), "rows": rows, "pass": pass, "ms": ms, "TFLOP/s": teraflops })
        );
    };
    let map = |device: &Device| Linear::new(Param::from_tensor(random([inputs, outputs], device)), None);
    let (linear, x) = (map(device), random([rows, inputs], device));
    line("forward", 1.0, median(times, device, || drop(linear.forward(x.clone()))));
    let tracked = device.clone().autodiff();
    let (linear, x) = (map(&tracked), random([rows, inputs], &tracked).require_grad());
    let weight = random([rows, outputs], &tracked);
    let both = median(times, device, || drop((linear.forward(x.clone()) * weight.clone()).sum().backward()));
    line("forward and backward", 3.0, both);
    Ok(())
}
