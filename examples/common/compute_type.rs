//! The precisions of training.

use clap::ValueEnum;
use deberta_burn::Precision;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeType {
    F32,
    /// The range of f32 in half the bits; CPUs multiply it faster than f32 from AMD's Zen 4 on, and Intel's with AMX
    Bf16,
    /// For GPUs without bf16; the loss is scaled to keep gradients within its range
    F16,
}

impl From<ComputeType> for Precision {
    fn from(compute_type: ComputeType) -> Self {
        match compute_type {
            ComputeType::F32 => Self::F32,
            ComputeType::Bf16 => Self::Bf16,
            ComputeType::F16 => Self::F16,
        }
    }
}
