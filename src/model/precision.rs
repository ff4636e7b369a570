//! The numbers that a model computes with.

use std::fmt;

use burn::tensor::{DType, Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use super::linear::LinearRole;
use crate::{Error, Result, device, isa::Isa, kernels::cpu::packed::WeightType};

/// The numbers that a model computes with.
///
/// At inference, GPUs compute in f32, f16 and bf16 throughout. On CPUs a lower precision is that of the linear maps that every
/// token passes, where most of the arithmetic is: their weights are laid out in it once ([`Prepared`](super::Prepared)).
/// Attention, position tables, embeddings, LayerNorm, activations and heads stay in f32, but for the operands of attention's
/// products: in bf16 and int8 they are rounded to bf16 where the processor has fast instructions for that.
///
/// Training in f16 or bf16 is mixed on every device ([`compute_type`](Self::compute_type)): linear maps and attention compute
/// in it, while parameters, their gradients, what runs from layer to layer, LayerNorms, the softmax and losses stay in f32
/// (Micikevicius and others, "Mixed precision training", ICLR 2018). On CPUs bf16 is the type of what is multiplied alone: by linear
/// maps, by attention, and by the scores of a vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// f16, which CPUs are slow in. In training, the loss is scaled to keep gradients within its range.
    F16,
    /// bf16. For inference on CPUs, weights in bf16, half the bytes: multiplied by inputs in bf16 with sums in f32 where the
    /// processor has fast instructions for that (AMD's from Zen 4 on, Intel's with AMX), elsewhere by inputs in f32.
    Bf16,
    /// CPUs only: integers of 12 bits for weights, and of 13 bits for inputs; each output and each token has a scale for every
    /// 256 inputs. The decisions of f32 but for near ties, faster.
    I16,
    /// CPUs only: integers of 8 bits for weights and inputs; each output and each token has a scale for every 128 inputs, which are
    /// rotated before they are rounded, so that an outlier does not take the others' bits.
    Int8(Int8Layers),
}

/// Which linear maps are in 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Int8Layers {
    /// Those of attention; the feed-forward networks, whose inputs have outliers, are as in [`Precision::Bf16`] where the processor
    /// has a matrix unit for that, elsewhere as in [`Precision::I16`].
    #[default]
    Mixed,
    /// All: the fastest, and less exact.
    All,
}

impl Precision {
    /// The element type that parameters are to be loaded in ([`LoadOptions`](crate::checkpoint::LoadOptions)) for a model on
    /// this device.
    ///
    /// # Errors
    /// [`Error::Device`] for integers elsewhere than on a CPU. Whether the device has the type is checked by who loads.
    pub fn load_dtype(self, device: &Device) -> Result<FloatDType> {
        match self {
            Self::F16 => Ok(FloatDType::F16),
            _ if device::is_host(device) => Ok(FloatDType::F32),
            Self::F32 => Ok(FloatDType::F32),
            Self::Bf16 => Ok(FloatDType::BF16),
            Self::I16 | Self::Int8(_) => {
                let problem =
                    format!("it does not compute in {self}, which is for CPUs (flex, ndarray); use f32, bf16 or f16");
                Err(Error::Device { device: device::name(device), problem })
            }
        }
    }

    /// The type that linear maps and attention compute in when a model with parameters in f32 is trained on this device
    /// ([`Backbone::set_compute_type`](super::Backbone::set_compute_type)); none for f32.
    ///
    /// # Errors
    /// [`Error::Setting`] for precisions of inference alone, and [`Error::Device`] if the device lacks the type.
    pub fn compute_type(self, device: &Device) -> Result<Option<FloatDType>> {
        let dtype = match self {
            Self::F32 => return Ok(None),
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
            Self::I16 | Self::Int8(_) => {
                return Err(Error::setting(
                    "--precision",
                    format!("{self} is for inference, expected f32, bf16 or f16"),
                ));
            }
        };
        // A CPU multiplies bf16, but holds nothing in it.
        if device.supports_dtype(DType::from(dtype)) || (self == Self::Bf16 && device::is_host(device)) {
            return Ok(Some(dtype));
        }
        let problem = format!("it does not compute in {self} (--precision); train in f32, or on another device");
        Err(Error::Device { device: device::name(device), problem })
    }

    /// Whether a CPU lays out weights in another type than that of the parameters.
    pub(super) fn is_low(self) -> bool {
        !matches!(self, Self::F32 | Self::F16)
    }

    /// What a linear map's weights are held in on a CPU.
    pub(super) fn weights(self, role: LinearRole, isa: Isa) -> WeightType {
        match self {
            Self::F32 | Self::F16 => WeightType::F32,
            Self::Bf16 => WeightType::Bf16,
            Self::I16 => WeightType::I16,
            Self::Int8(Int8Layers::Mixed) if !role.is_attention() && isa.multiplies_tiles() => WeightType::Bf16,
            Self::Int8(Int8Layers::Mixed) if !role.is_attention() => WeightType::I16,
            Self::Int8(_) => WeightType::Int8,
        }
    }

    /// What this precision means on a device, in a line for a log: which parts are held in which type, on a CPU also
    /// [which one it is](device::describe) and the instructions that multiply them.
    ///
    /// ```
    /// # use deberta_burn::{Precision, device::device};
    /// // flex: AMD EPYC, 2 threads, avx512bf16 kernels; f32 (vfmadd231ps) throughout
    /// println!("{}", Precision::F32.describe(&device("flex")?));
    /// # Ok::<(), deberta_burn::Error>(())
    /// ```
    pub fn describe(self, device: &Device) -> String {
        let name = device::name(device);
        if !device::is_host(device) || self == Self::F16 {
            return format!("{name}: {self} throughout");
        }
        let (cpu, isa) = (format!("{name}: {}", device::describe()), Isa::in_use());
        let kernel = |weights: WeightType| format!("{weights} ({})", weights.instructions(isa));
        let [attention, feed_forward] =
            [LinearRole::Query, LinearRole::Intermediate].map(|role| self.weights(role, isa));
        let mut rest = format!("the rest {}", kernel(WeightType::F32));
        if attention.rounds_attention() && isa.multiplies_any_bf16() {
            rest = format!("attention's products {}, {rest}", kernel(WeightType::Bf16));
        }
        match (attention, feed_forward) {
            (WeightType::F32, WeightType::F32) => format!("{cpu}; {} throughout", kernel(WeightType::F32)),
            (all, other) if all == other => format!("{cpu}; {self}: linear maps {}, {rest}", kernel(all)),
            _ => format!(
                "{cpu}; {self}: attention's linear maps {}, feed-forward {}, {rest}",
                kernel(attention),
                kernel(feed_forward)
            ),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I16 => "i16",
            Self::Int8(Int8Layers::Mixed) => "int8 (mixed)",
            Self::Int8(Int8Layers::All) => "int8 (all)",
        })
    }
}

/// A half-precision tensor in f32, others as they are.
pub(crate) fn in_f32<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(DType::F32),
        _ => tensor,
    }
}

/// A tensor in another type, if there is one.
pub(crate) fn round<const D: usize>(tensor: Tensor<D>, dtype: Option<FloatDType>) -> Tensor<D> {
    match dtype {
        Some(dtype) => tensor.cast(dtype),
        None => tensor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_type() {
        let isa = Isa::in_use();
        let of = |precision: Precision| LinearRole::ALL.map(|role| precision.weights(role, isa));
        assert_eq!(of(Precision::F32), [WeightType::F32; 6]);
        assert_eq!(of(Precision::Bf16), [WeightType::Bf16; 6]);
        assert_eq!(of(Precision::I16), [WeightType::I16; 6]);
        let (attention, feed_forward) = (WeightType::Int8, feed_forward_of_int8(isa));
        let mixed = [attention, attention, attention, attention, feed_forward, feed_forward];
        assert_eq!(of(Precision::Int8(Int8Layers::Mixed)), mixed);
        assert_eq!(of(Precision::Int8(Int8Layers::All)), [WeightType::Int8; 6]);
    }

    fn feed_forward_of_int8(isa: Isa) -> WeightType {
        if isa.multiplies_tiles() { WeightType::Bf16 } else { WeightType::I16 }
    }

    #[test]
    fn descriptions_name_types_and_instructions() {
        let (device, cpu) = (Device::flex(), format!("flex: {}", device::describe()));
        let f32 = WeightType::F32.instructions(Isa::in_use());
        assert_eq!(Precision::F32.describe(&device), format!("{cpu}; f32 ({f32}) throughout"));
        let mixed = Precision::Int8(Int8Layers::Mixed).describe(&device);
        let isa = Isa::in_use();
        let kernel = |weights: WeightType| format!("{weights} ({})", weights.instructions(isa));
        let [int8, feed_forward, bf16] = [WeightType::Int8, feed_forward_of_int8(isa), WeightType::Bf16].map(kernel);
        let products = match isa.multiplies_any_bf16() {
            true => format!("attention's products {bf16}, "),
            false => String::new(),
        };
        assert_eq!(
            mixed,
            format!(
                "{cpu}; int8 (mixed): attention's linear maps {int8}, feed-forward {feed_forward}, {products}the rest f32 ({f32})"
            )
        );
        assert_eq!(Precision::F16.describe(&device), "flex: f16 throughout");
    }
}
