//! Element types by name.

use burn::tensor::FloatDType;
use clap::ValueEnum;

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Dtype {
    #[default]
    F32,
    F16,
    Bf16,
}

impl From<Dtype> for FloatDType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}
