//! The flags of the numbers that a model computes with.

#[path = "int8.rs"]
mod int8;

use clap::{Args, ValueEnum};
use deberta_burn::{Error, Int8Layers, Precision, Result};
use int8::Layers;

#[derive(Args)]
pub struct PrecisionArgs {
    /// Numbers to compute with: bf16 and i16 are faster on CPUs and change hardly a decision, int8 is faster still and changes a few
    #[arg(long, visible_alias = "dtype", value_enum, default_value_t = Numbers::F32, help_heading = "Model")]
    precision: Numbers,

    /// With --precision int8: which linear maps are in 8 bits [default: mixed]
    #[arg(long, value_enum, value_name = "LAYERS", help_heading = "Model")]
    int8: Option<Layers>,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "lowercase")]
enum Numbers {
    /// f32 throughout
    F32,
    /// Half the memory, on GPUs
    F16,
    /// On GPUs bf16 throughout, half the memory; on CPUs weights in bf16, multiplied in bf16 where the processor is fast at that, else in f32
    Bf16,
    /// CPUs only: linear maps in integers of 12 bits (weights) and 13 bits (inputs)
    I16,
    /// CPUs only: linear maps in integers of 8 bits
    Int8,
}

impl PrecisionArgs {
    /// # Errors
    /// `--int8` without `--precision int8`.
    pub fn precision(&self) -> Result<Precision> {
        let layers = self.int8.map_or_else(Int8Layers::default, Into::into);
        match self.precision {
            Numbers::Int8 => Ok(Precision::Int8(layers)),
            _ if self.int8.is_some() => {
                Err(Error::setting("--int8", "it says which linear maps are in 8 bits, and needs --precision int8"))
            }
            Numbers::F32 => Ok(Precision::F32),
            Numbers::F16 => Ok(Precision::F16),
            Numbers::Bf16 => Ok(Precision::Bf16),
            Numbers::I16 => Ok(Precision::I16),
        }
    }
}
