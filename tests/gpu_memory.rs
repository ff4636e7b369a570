//! Memory of attention on a GPU. A program of its own: what a device holds is counted over all that uses it.
#![cfg(feature = "gpu")]

#[path = "../benches/device/attention.rs"]
#[allow(dead_code, reason = "the bench and tests/gpu.rs use the rest")]
mod attention;
mod common;

use attention::{Case, Implementation};
use burn::tensor::{DType, Device};
use common::gpu;

/// Bytes that a device holds.
fn in_use(device: &Device) -> u64 {
    device.sync().expect("a device that works");
    device.memory_pool_usage().expect("GPUs report it").bytes_in_use
}

/// What attention keeps for its backward pass, beyond its inputs.
fn kept(implementation: Implementation, length: usize) -> u64 {
    let device = gpu().autodiff();
    let case = Case::new(&[length], 2, 16);
    let inputs = case.inputs(implementation, &device, DType::F32, 1);
    let before = in_use(&device);
    let context = case.attend(implementation, &inputs);
    let kept = in_use(&device) - before;
    drop(context);
    kept
}

#[test]
fn memory_is_linear_in_length() {
    let bytes = |implementation| [512, 1024, 2048].map(|length| kept(implementation, length));
    // Twice the tokens: twice the bytes, and as much again for what the device's allocator rounds up; the definition keeps four
    // times as much.
    let [short, middle, long] = bytes(Implementation::Fused);
    println!("fused: {short}, {middle}, {long} bytes");
    assert!(middle <= 2 * short + short / 4 && long <= 2 * middle + middle / 4, "{short}, {middle}, {long} bytes");
    let [short, middle, long] = bytes(Implementation::Composed);
    println!("composed: {short}, {middle}, {long} bytes");
    assert!(middle > 3 * short && long > 3 * middle, "the definition: {short}, {middle}, {long} bytes");
}
