//! What is computed by hand, and on which devices. Nothing here knows of layers or models.

pub(crate) mod cpu;
pub(crate) mod draws;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
mod plan;
mod relative_index;
mod sequence;

use burn::tensor::{DType, Device, Tensor, module::linear};

pub use plan::AttentionPlan;
pub use relative_index::RelativeIndex;
pub(crate) use sequence::QueryPositions;
pub use sequence::SequenceBounds;

use crate::device;

/// Whether the CPU kernels serve this device and element type.
pub(crate) fn host_serves(device: &Device, dtype: DType) -> bool {
    dtype == DType::F32 && device::is_host(device)
}

/// Whether a fused attention serves this device and element type: the CPU's or the GPU's.
pub(crate) fn attention_serves(device: &Device, dtype: DType) -> bool {
    let gpu = cfg!(feature = "gpu") && !device::is_host(device);
    host_serves(device, dtype) || host_widens(device, dtype) || gpu && is_float(dtype)
}

/// Whether numbers of this type are f32 while a kernel of this device computes with them, and are rounded after that. CPUs
/// compute in f32.
pub(crate) fn host_widens(device: &Device, dtype: DType) -> bool {
    dtype != DType::F32 && is_float(dtype) && device::is_host(device)
}

/// Whether the type is f32 or half of that.
fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// x weight + bias, by the kernels of the device or by burn's product. All are of one type.
///
/// # Shapes
/// - x: [.., inputs]
/// - weight: [inputs, outputs]
/// - bias: \[outputs\]
/// - output: [.., outputs]
pub(crate) fn affine<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let (device, dtype) = (x.device(), x.dtype());
    if host_widens(&device, dtype) {
        let wide = affine(x.cast(DType::F32), weight.cast(DType::F32), bias.map(|bias| bias.cast(DType::F32)));
        return wide.cast(dtype);
    }
    match host_serves(&device, dtype) {
        true => cpu::linear::linear(x, weight, bias),
        false => linear(x, weight, bias),
    }
}

/// Attention over sequences that lie end to end, by the kernels of the device.
///
/// # Shapes
/// - key, value: [.., tokens, hidden]; leading axes of any size count as more tokens
/// - query, output: the same, or [1, queries, hidden]
/// - position_key, position_query: [rows, hidden], from the plan's first row on at least those that its index reaches
pub(crate) fn attend<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    value: Tensor<D>,
    position_key: Option<Tensor<2>>,
    position_query: Option<Tensor<2>>,
    plan: AttentionPlan,
) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if !device::is_host(&query.device()) {
        return gpu::operation::attend(query, key, value, position_key, position_query, plan);
    }
    let dtype = query.dtype();
    let [query, key, value] = [query, key, value].map(|states| states.cast(DType::F32));
    let [position_key, position_query] =
        [position_key, position_query].map(|table| table.map(|table| table.cast(DType::F32)));
    cpu::attention::operation::attend(query, key, value, position_key, position_query, plan).cast(dtype)
}
