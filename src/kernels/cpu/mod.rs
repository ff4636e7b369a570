//! What the CPU kernels share: instruction sets, the seam to burn, matrix views and vectorised loops; and the kernels that
//! belong to no room of their own.

pub(crate) mod adamw;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no other processor has such a unit"))]
pub(crate) mod amx;
pub(crate) mod attention;
pub(crate) mod backend;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod floats;
pub(crate) mod format;
pub(crate) mod gelu;
pub(crate) mod integers;
pub(crate) mod lanes;
pub(crate) mod layout;
pub(crate) mod linear;
pub(crate) mod lines;
pub(crate) mod matrix;
pub(crate) mod operation;
pub(crate) mod packed;
pub(crate) mod panels;
pub(crate) mod product;
pub(crate) mod quantisation;
#[cfg(test)]
pub(crate) mod rate;
pub(crate) mod residual;
pub(crate) mod rotation;
pub(crate) mod rounding;
pub(crate) mod simd;
