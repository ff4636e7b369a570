//! What the CPU kernels share: matrix views and vectorised loops.

pub(crate) mod backend;
pub(crate) mod gelu;
pub(crate) mod lanes;
pub(crate) mod matrix;
