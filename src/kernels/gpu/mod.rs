//! Disentangled attention for GPUs, in CubeCL: the arithmetic of `model::attention::composed` without its [batch, heads, length,
//! length] tensors, forward and backward.
//!
//! ```text
//! score[i, j] = ( Qc[i] . Kc[j]  +  c2p[i, idx(i, j)]  +  p2c[j, idx(i, j)] ) / sqrt(d n)
//! c2p = Qc Kr^T,  p2c = Kc Qr^T   over the rows of the position table
//! context = dropout(softmax(score)) Vc
//! ```
//!
//! c2p and p2c are [products](product), made again for the backward pass. The rest is one kernel forward, whose softmax goes
//! along the keys with a running maximum, and two backward: one whose cubes own queries, one whose cubes own keys, so that each
//! gradient has one writer, in one order. Sequences lie end to end, as on the CPU: a list of blocks says which rows belong
//! together, and serves padded and packed batches alike.

pub(crate) mod adamw;
pub(crate) mod embedding;
mod fragments;
pub(crate) mod gelu;
mod launch;
mod many;
pub(crate) mod operation;
mod plan;
mod portable;
pub(crate) mod product;
#[cfg(all(test, feature = "cuda"))]
mod ptx;
pub(crate) mod residual;
mod shared;
mod strategy;
pub(crate) mod sums;
mod tensor_core;
mod tensor_core_backward;
mod tensor_core_product;

/// A device for tests.
#[cfg(test)]
fn any_device() -> burn::tensor::Device {
    let found = ["cuda", "metal", "vulkan", "wgpu"].into_iter().find_map(|name| crate::device::device(name).ok());
    found.expect("a GPU, or a Vulkan driver that stands in for one")
}
