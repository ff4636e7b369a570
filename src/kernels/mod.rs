//! What is computed by hand, and on which devices. Nothing here knows of layers or models.

pub(crate) mod cpu;
pub(crate) mod draws;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
mod operation;
mod plan;
mod relative_index;
mod sequence;

use burn::tensor::{
    DType, Device, Int, Tensor,
    module::{self, linear},
};

pub use plan::AttentionPlan;
pub use relative_index::RelativeIndex;
pub(crate) use sequence::QueryPositions;
pub use sequence::SequenceBounds;

pub(crate) use cpu::{
    adamw::{Coefficients, Parameter},
    cross_entropy::cross_entropy,
    residual::ResidualNorm,
};

use crate::device;
use cpu::linear::HostLinear;

/// Whether the CPU kernels serve this device and element type.
pub(crate) fn host_serves(device: &Device, dtype: DType) -> bool {
    dtype == DType::F32 && device::is_host(device)
}

/// Whether the kernels of the CPU or of the GPU serve this device and element type.
pub(crate) fn kernels_serve(device: &Device, dtype: DType) -> bool {
    host_serves(device, dtype) || gpu_serves(device, dtype)
}

/// Whether a fused attention serves this device and element type: the CPU's or the GPU's.
pub(crate) fn attention_serves(device: &Device, dtype: DType) -> bool {
    kernels_serve(device, dtype) || host_widens(device, dtype)
}

/// Whether the GPU kernels serve this device and element type.
fn gpu_serves(device: &Device, dtype: DType) -> bool {
    cfg!(feature = "gpu") && !device::is_host(device) && !device::is_remote(device) && is_float(dtype)
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

/// x weight + bias in the type of x, by the kernels of the device or by burn's product. Parameters of another type are cast to
/// it; their gradients are of their own type.
///
/// # Shapes
/// - x: [.., inputs]
/// - weight: [inputs, outputs]
/// - bias: \[outputs\]
/// - output: [.., outputs]
pub(crate) fn affine<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    affine_of(x, weight, bias, false)
}

/// [`affine`], which on a CPU may [round](HostLinear::rounds) what it multiplies to bf16.
pub(crate) fn affine_of<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    rounds: bool,
) -> Tensor<D> {
    let (device, dtype) = (x.device(), x.dtype());
    if host_widens(&device, dtype) {
        // Parameters are rounded as on a device that computes in the type.
        let bias = bias.map(|bias| bias.cast(dtype).cast(DType::F32));
        let wide = affine(x.cast(DType::F32), weight.cast(dtype).cast(DType::F32), bias);
        return wide.cast(dtype);
    }
    #[cfg(feature = "gpu")]
    if gpu_serves(&device, dtype) {
        return gpu::product::linear(x, weight, false, bias);
    }
    let (weight, bias) = (weight.cast(dtype), bias.map(|bias| bias.cast(dtype)));
    if host_serves(&device, dtype) {
        return cpu::linear::linear(x, weight, bias, HostLinear { rounds, transposed: false });
    }
    linear(x, weight, bias)
}

/// The exact GELU, on a device that kernels [serve](kernels_serve).
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if !device::is_host(&x.device()) {
        return gpu::gelu::gelu(x);
    }
    cpu::gelu::gelu(x)
}

/// The products of matrices that lie in the last two axes, by the kernels of a GPU or by burn's product.
///
/// # Shapes
/// - lhs: [.., rows, inner], rhs: [.., inner, columns]; leading axes of 1 are repeated
/// - output: [.., rows, columns]
pub(crate) fn matmul<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if gpu_serves(&lhs.device(), lhs.dtype()) {
        return gpu::product::matmul(lhs, rhs);
    }
    lhs.matmul(rhs)
}

/// x table^T + bias: scores of the rows of a table, [outputs, inputs].
///
/// # Shapes
/// - as [`affine_of`]'s, but for the weight
pub(crate) fn scores_of_rows(x: Tensor<3>, table: Tensor<2>, bias: Tensor<1>, rounds: bool) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    if gpu_serves(&x.device(), x.dtype()) {
        return gpu::product::linear(x, table, true, Some(bias));
    }
    let dtype = x.dtype();
    if host_serves(&x.device(), dtype) {
        return cpu::linear::linear(
            x,
            table.cast(dtype),
            Some(bias.cast(dtype)),
            HostLinear { rounds, transposed: true },
        );
    }
    x.matmul(table.cast(dtype).transpose().unsqueeze()) + bias.cast(dtype).unsqueeze()
}

/// The sum of the squares of all numbers of tensors in f32 outside of host memory, of which there is at least one, in any number of
/// parts.
pub(crate) fn sum_of_squares(values: Vec<Tensor<1>>) -> Tensor<1> {
    #[cfg(feature = "gpu")]
    if values.iter().all(|values| gpu_serves(&values.device(), DType::F32)) {
        return gpu::sums::squares(values);
    }
    Tensor::cat(values.into_iter().map(|values| values.square().sum()).collect(), 0)
}

/// A step of AdamW outside of host memory: the updated weights and moments of each parameter.
pub(crate) fn adamw(parameters: Vec<Parameter>) -> Vec<[Tensor<1>; 3]> {
    #[cfg(feature = "gpu")]
    if parameters
        .iter()
        .map(|parameter| &parameter.weights)
        .all(|weights| weights.dtype() == DType::F32 && gpu_serves(&weights.device(), DType::F32))
    {
        return gpu::adamw::step(parameters);
    }
    parameters.into_iter().map(Parameter::step).collect()
}

/// The rows of a table of embeddings.
///
/// # Shapes
/// - table: [rows, width]
/// - ids: [batch, length]
/// - output: [batch, length, width]
pub(crate) fn embedding(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    if gpu_serves(&table.device(), table.dtype()) {
        return gpu::embedding::embedding(table, ids);
    }
    module::embedding(table, ids)
}

/// Rows of a table.
///
/// # Shapes
/// - table: [rows, width]
/// - rows: \[count\]
/// - output: [count, width]
pub(crate) fn select_rows(table: Tensor<2>, rows: Tensor<1, Int>) -> Tensor<2> {
    embedding(table, rows.unsqueeze()).squeeze_dim(0)
}

/// LayerNorm( dropout(x) + residual ), on a device that kernels [serve](kernels_serve).
///
/// # Shapes
/// - x, residual, output: [.., width]; the output is of the residual's type
/// - gamma, beta: \[width\]
pub(crate) fn residual_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    plan: ResidualNorm,
) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if !device::is_host(&x.device()) {
        return gpu::residual::residual_norm(x, residual, gamma, beta, plan);
    }
    cpu::residual::residual_norm(x.cast(residual.dtype()), residual, gamma, beta, plan)
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
