//! What is computed by hand, and on which devices. Nothing here knows of layers or models.

pub(crate) mod cpu;
pub(crate) mod draws;
mod relative_index;
mod sequence;

use burn::tensor::{DType, Device};

pub use relative_index::RelativeIndex;
pub(crate) use sequence::QueryPositions;
pub use sequence::SequenceBounds;

use crate::device;

/// Whether the CPU kernels serve this device and element type.
pub(crate) fn can_fuse(device: &Device, dtype: DType) -> bool {
    dtype == DType::F32 && device::is_host(device)
}
