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
const SHAPES: [[usize; 3]; 8] = [
    [1, 64, 64],
    [200, 72, 136],
    [1000, 768, 768],
    [300, 64, 24],
    [4100, 128, 256],
    [4099, 256, 128],
    [70, 96, 12],
    [130, 40, 7],
];

/// Whether output and gradients are as exact as the type allows, and the same twice, with parameters in the type and in f32.
pub fn check(dtype: DType, bound: f64, device: &Device) -> bool {
    let mut passed = true;
    let of_parameters = if dtype == DType::F32 { vec![dtype] } else { vec![dtype, DType::F32] };
    for (parameters, [rows, inputs, outputs]) in
        of_parameters.into_iter().flat_map(|parameters| SHAPES.map(|shape| (parameters, shape)))
    {
        // The host gets the numbers as the device rounds them.
        let values = |part: usize, shape: [usize; 2]| {
            let value = |at: usize| ((at * 7919 + part * 104_729) % 2003) as f32 / 1001.0 - 1.0;
            let data = TensorData::new((0..shape[0] * shape[1]).map(value).collect(), shape);
            Tensor::<2>::from_data(data, (&Device::flex(), DType::F32)).cast(dtype).cast(DType::F64).into_data()
        };
        let shapes = [[rows, inputs], [rows, outputs], [inputs, outputs], [1, outputs]];
        let given = [0, 1, 2, 3].map(|part| values(part, shapes[part]));
        let run = |device: &Device, dtype: DType, parameters: DType| {
            let device = device.clone().autodiff();
            let tensor = |part: usize, dtype| Tensor::<2>::from_data(given[part].clone(), (&device, dtype));
            let (x, gradient) = (tensor(0, dtype).require_grad(), tensor(1, dtype));
            let weight = Param::from_tensor(tensor(2, parameters));
            let bias = Param::from_tensor(tensor(3, parameters).flatten(0, 1));
            let output = Linear::new(weight.clone(), Some(bias.clone())).forward(x.clone());
            let gradients = (output.clone() * gradient).sum().backward();
            let [of_weight, of_bias] =
                [weight.val().grad(&gradients).expect("one"), bias.val().grad(&gradients).expect("one").unsqueeze()];
            assert_eq!([of_weight.dtype(), of_bias.dtype()], [parameters; 2], "gradients' types");
            let found = [output.inner(), x.grad(&gradients).expect("one"), of_weight, of_bias];
            found.map(|tensor| tensor.cast(DType::F64).into_data().try_to_vec::<f64>().expect("numbers in f64"))
        };
        let expected = run(&Device::flex(), DType::F64, DType::F64);
        let twice = [(); 2].map(|()| run(device, dtype, parameters));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let errors = [0, 1, 2, 3].map(|number| {
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
                "check": format!("{dtype:?}"), "parameters": format!("{parameters:?}"), "product": [rows, inputs, outputs],
                "errors": errors, "same twice": same, "holds": holds,
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
