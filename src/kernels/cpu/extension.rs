//! What the operations of the CPU backends are written with.

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

#[cfg(feature = "flex")]
pub(crate) use burn::backend::Flex;
#[cfg(feature = "ndarray")]
pub(crate) use burn::backend::NdArray;
pub(crate) use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
};

pub(crate) use super::backend::HostBackend;
