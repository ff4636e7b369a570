//! The linear map of inference: weights are laid out for products once, in the type that they are to be multiplied in. A plain
//! product lays them out in every call, which for a short text costs as much as the multiplications.

use std::{
    fmt::{self, Debug},
    sync::Arc,
};

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
};

use super::{
    backend::HostBackend,
    floats::{Bf16, F32, in_bf16},
    format::Format,
    integers::{AmxInt8, I16, Int8, WidenedInt8},
    matrix::{Matrix, filled},
    operation::{Operation, apply},
    panels::Panels,
    product::{Finish, Start},
};
use crate::isa::{InstructionSet, Isa};

/// What the weights of a linear map are held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightType {
    F32,
    Bf16,
    I16,
    Int8,
}

impl WeightType {
    /// Whether attention may round its operands to bf16 where these weights made them, since that loses no more than the weights
    /// have.
    pub fn rounds_attention(self) -> bool {
        matches!(self, Self::Bf16 | Self::Int8)
    }

    /// The table of kernels: the instructions that multiply weights of this type.
    pub fn instructions(self, isa: Isa) -> &'static str {
        match (self, isa.set()) {
            (_, InstructionSet::Portable) => "as the compiler has it",
            #[cfg(target_arch = "aarch64")]
            (Self::F32 | Self::Bf16, InstructionSet::Neon) => "fmla",
            #[cfg(target_arch = "aarch64")]
            (Self::I16 | Self::Int8, InstructionSet::Neon) => "smull",
            #[cfg(target_arch = "x86_64")]
            (Self::Bf16, InstructionSet::Avx512Bf16) => "vdpbf16ps",
            #[cfg(target_arch = "x86_64")]
            (Self::Bf16, InstructionSet::Amx) => "tdpbf16ps",
            #[cfg(target_arch = "x86_64")]
            (Self::Int8, InstructionSet::Amx) => "tdpbusd",
            #[cfg(target_arch = "x86_64")]
            (Self::F32 | Self::Bf16, _) => "vfmadd231ps",
            #[cfg(target_arch = "x86_64")]
            (Self::I16 | Self::Int8, InstructionSet::Avx2 | InstructionSet::Avx512) => "vpmaddwd",
            #[cfg(target_arch = "x86_64")]
            (Self::I16, _) => "vpdpwssd",
            #[cfg(target_arch = "x86_64")]
            (Self::Int8, _) => "vpdpbusd",
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::I16 => "i16",
            Self::Int8 => "int8",
        })
    }
}

/// A weight laid out for products, whatever it is held in.
pub(crate) trait PackedWeight: Debug + Send + Sync {
    /// What it is held in.
    fn weight_type(&self) -> WeightType;

    /// [inputs, outputs]
    fn shape(&self) -> [usize; 2];

    /// `output = finish(start + x weight)`, on all threads, with the rows of x and the output end to end.
    fn map(&self, x: &[f32], start: Start<'_>, finish: Finish, output: &mut [f32]);

    /// The weight as it was, row by row, but for the roundings of its type.
    fn unpack(&self) -> Vec<f32>;
}

impl<F: Format> PackedWeight for Panels<F> {
    fn weight_type(&self) -> WeightType {
        F::WEIGHT_TYPE
    }

    fn shape(&self) -> [usize; 2] {
        self.shape()
    }

    fn map(&self, x: &[f32], start: Start<'_>, finish: Finish, output: &mut [f32]) {
        let [inputs, _] = self.shape();
        let x = Matrix::new(x, 0, x.len() / inputs, inputs, inputs);
        self.parallel_product(F::states(self.isa(), x).operand(), start, finish, output);
    }

    fn unpack(&self) -> Vec<f32> {
        self.unpack()
    }
}

/// `finish(x weight + bias)` on a host device without gradients.
///
/// # Shapes
/// - x: [.., inputs]
/// - bias: [outputs]
/// - output: [.., outputs]
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Arc<dyn PackedWeight>,
    bias: Option<Tensor<1>>,
    finish: Finish,
) -> Tensor<D> {
    let x = x.into_dispatch();
    match bias {
        Some(bias) => apply(PackedLinear { weight, finish }, [x, bias.into_dispatch()]),
        None => apply(PackedLinear { weight, finish }, [x]),
    }
}

/// A weight on a host device, in f32, laid out in a type.
pub(crate) fn pack(weight: Tensor<2>, weight_type: WeightType) -> Arc<dyn PackedWeight> {
    let [inputs, outputs] = weight.dims();
    let data = weight.into_data();
    let values = data.as_slice().expect("a weight in f32");
    pack_matrix(Isa::in_use(), Matrix::new(values, 0, inputs, outputs, outputs), weight_type)
}

/// A matrix laid out in a type.
fn pack_matrix(isa: Isa, matrix: Matrix<'_>, weight_type: WeightType) -> Arc<dyn PackedWeight> {
    match weight_type {
        WeightType::F32 => Arc::new(Panels::<F32>::new(isa, matrix)),
        WeightType::Bf16 => in_bf16!(isa, F => Arc::new(Panels::<F>::new(isa, matrix)), otherwise Bf16),
        WeightType::I16 => Arc::new(Panels::<I16>::new(isa, matrix)),
        WeightType::Int8 if isa.multiplies_tiles() => Arc::new(Panels::<AmxInt8>::new(isa, matrix)),
        WeightType::Int8 if isa.multiplies_bytes() => Arc::new(Panels::<Int8>::new(isa, matrix)),
        WeightType::Int8 => Arc::new(Panels::<WidenedInt8>::new(isa, matrix)),
    }
}

/// The product with x, and a bias where there is a second tensor.
#[derive(Clone, Debug)]
struct PackedLinear {
    weight: Arc<dyn PackedWeight>,
    finish: Finish,
}

impl<B: HostBackend, const N: usize> Operation<B, N> for PackedLinear {
    type Kept = ();

    fn forward(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B> {
        let mut shape = tensors[0].shape();
        let [inputs, outputs] = self.weight.shape();
        let (rows, last) = (shape.num_elements() / inputs, shape.num_dims() - 1);
        shape[last] = outputs;
        let values = tensors.map(B::values);
        let start = values.get(1).map_or(Start::Zero, |bias| Start::Bias(bias.as_ref()));
        let fill = |output: &mut [f32]| self.weight.map(values[0].as_ref(), start, self.finish, output);
        // SAFETY: a product writes every element of its output.
        B::tensor(unsafe { filled(rows * outputs, fill) }, shape)
    }

    fn forward_keeping(&self, _: [FloatTensor<B>; N], _: [bool; N]) -> (FloatTensor<B>, ()) {
        unreachable!("weights are laid out on devices without gradients only")
    }

    fn backward(&self, _: (), _: FloatTensor<B>, _: [bool; N]) -> [Option<FloatTensor<B>>; N] {
        unreachable!("there was no forward pass with gradients")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::{gelu, rate};

    #[test]
    fn gelu_in_the_product_is_gelu_behind_it() {
        let numbers =
            |count: usize| -> Vec<f32> { (0..count).map(|i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0).collect() };
        // More rows and columns than one task takes, and neither a multiple of a register's.
        let [rows, inputs, outputs] = [131, 40, 213];
        let (x, weight, bias) = (numbers(rows * inputs), numbers(inputs * outputs), numbers(outputs));
        for isa in Isa::available() {
            for weight_type in [WeightType::F32, WeightType::Bf16, WeightType::I16, WeightType::Int8] {
                let weight = pack_matrix(isa, Matrix::new(&weight, 0, inputs, outputs, outputs), weight_type);
                let map = |finish: Finish| {
                    let mut output = vec![f32::NAN; rows * outputs];
                    weight.map(&x, Start::Bias(&bias), finish, &mut output);
                    output
                };
                let mut expected = map(Finish::Sums);
                gelu::in_place(isa, &mut expected);
                assert_eq!(map(Finish::Gelu), expected, "{isa}, {weight_type}");
            }
        }
    }

    /// As for the products of f32, with the quantisation of inputs: short and long texts, each map of a layer.
    #[test]
    fn every_type_is_as_fast_as_its_registers_are_wide() {
        let numbers =
            |count: usize| -> Vec<f32> { (0..count).map(|i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0).collect() };
        for [rows, inputs, outputs] in [[1, 768, 768], [4, 768, 768], [32, 768, 768], [128, 768, 384], [128, 1536, 384]]
        {
            let (x, weight) = (numbers(rows * inputs), numbers(inputs * outputs));
            let lhs = Matrix::new(&x, 0, rows, inputs, inputs);
            let rhs = Matrix::new(&weight, 0, inputs, outputs, outputs);
            let mut output = vec![0.0; rows * outputs];
            for isa in Isa::available() {
                for weight_type in [WeightType::Bf16, WeightType::I16, WeightType::Int8] {
                    let weight = pack_matrix(isa, rhs, weight_type);
                    let what = format!("{weight_type} map of {rows} x {inputs} x {outputs}");
                    let map = || weight.map(&x, Start::Zero, Finish::Sums, &mut output);
                    rate::assert_vectorised(isa, &what, [lhs, rhs], map);
                }
            }
        }
    }
}
