//! x W + b as one operation, with its backward pass.
//!
//! ```text
//! y = x W + b,   dx = G W^T,   dW = x^T G,   db = sum_rows G
//! ```
//!
//! burn-flex fills each product's buffer with zeros, copies it to another alignment, and adds the bias in a pass of its own,
//! which together cost a tenth of a training step.

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
    tensor::Shape,
};

use super::{
    backend::HostBackend,
    floats::{AmxBf16, AnyOperand, Bf16, F32, PairedBf16},
    matrix::{Matrix, filled},
    operation::{Operation, apply},
    packed::{WeightType, map_rows, pack_matrix},
    panels::Panels,
    product::{Finish, Start},
    simd::vectorized,
};
use crate::isa::Isa;

/// `x weight + bias` on a host device, of tensors in f32. If it `rounds`, the operands of its products, and of those of the
/// backward pass, are rounded to bf16 where the processor has fast instructions for that, and elsewhere the right ones.
///
/// # Shapes
/// - x: [.., inputs]
/// - weight: [inputs, outputs]
/// - bias: [outputs]
/// - output: [.., outputs]
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    rounds: bool,
) -> Tensor<D> {
    let (x, weight, operation) = (x.into_dispatch(), weight.into_dispatch(), HostLinear { rounds });
    match bias {
        Some(bias) => apply(operation, [x, weight, bias.into_dispatch()]),
        None => apply(operation, [x, weight]),
    }
}

/// The product of x and the weight, and a bias where there is a third tensor.
#[derive(Clone, Debug)]
struct HostLinear {
    rounds: bool,
}

impl HostLinear {
    /// What weights are held in.
    fn weight_type(&self) -> WeightType {
        if self.rounds { WeightType::Bf16 } else { WeightType::F32 }
    }

    /// `lhs rhs` on all threads.
    fn product(&self, lhs: Matrix<'_>, rhs: Matrix<'_>) -> Vec<f32> {
        let isa = Isa::in_use();
        match self.rounds {
            false => product::<F32>(isa, lhs, rhs),
            true if isa.multiplies_tiles() => product::<AmxBf16>(isa, lhs, rhs),
            true if isa.multiplies_bf16() => product::<PairedBf16>(isa, lhs, rhs),
            true => product::<Bf16>(isa, lhs, rhs),
        }
    }
}

/// The same of operands in a format.
fn product<F: AnyOperand>(isa: Isa, lhs: Matrix<'_>, rhs: Matrix<'_>) -> Vec<f32> {
    let panels = Panels::<F>::new(isa, rhs);
    F::with_operand(isa, lhs, |operand| {
        let fill = |output: &mut [f32]| panels.parallel_product(operand, Start::Zero, Finish::Sums, output);
        // SAFETY: a product writes every element of its output.
        unsafe { filled(lhs.shape()[0] * rhs.shape()[1], fill) }
    })
}

/// What the backward pass needs: nothing for a frozen weight, so that its input can go.
#[derive(Clone, Debug)]
struct Kept<F> {
    /// x, for the gradient of the weight.
    x: Option<F>,
    x_shape: Shape,
    /// The weight, for the gradient of x.
    weight: Option<F>,
}

impl<B: HostBackend, const N: usize> Operation<B, N> for HostLinear {
    type Kept = Kept<FloatTensor<B>>;

    fn forward(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B> {
        let [inputs, outputs] = tensors[1].shape().dims();
        let weight = B::values(tensors[1].clone());
        let weight = Matrix::new(weight.as_ref(), 0, inputs, outputs, outputs);
        let weight = pack_matrix(Isa::in_use(), weight, self.weight_type());
        map_rows::<B>(tensors[0].clone(), &*weight, tensors.get(2).cloned(), Finish::Sums)
    }

    fn forward_keeping(
        &self,
        tensors: [FloatTensor<B>; N],
        wanted: [bool; N],
    ) -> (FloatTensor<B>, Kept<FloatTensor<B>>) {
        let kept = Kept {
            x: wanted[1].then(|| tensors[0].clone()),
            x_shape: tensors[0].shape(),
            weight: wanted[0].then(|| tensors[1].clone()),
        };
        (Operation::<B, N>::forward(self, tensors), kept)
    }

    fn backward(
        &self,
        Kept { x, x_shape, weight }: Kept<FloatTensor<B>>,
        gradient: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N] {
        let last = x_shape.num_dims() - 1;
        let (inputs, outputs) = (x_shape[last], gradient.shape()[last]);
        let rows = x_shape.num_elements() / inputs;
        let gradient = B::values(gradient);
        let by_row = Matrix::new(gradient.as_ref(), 0, rows, outputs, outputs);
        let mut gradients = [const { None }; N];
        if let Some(weight) = weight {
            let weight = B::values(weight);
            let weight = Matrix::new(weight.as_ref(), 0, inputs, outputs, outputs);
            gradients[0] = Some(B::tensor(self.product(by_row, weight.transposed()), x_shape));
        }
        if let Some(x) = x {
            let x = B::values(x);
            let x = Matrix::new(x.as_ref(), 0, rows, inputs, inputs);
            gradients[1] = Some(B::tensor(self.product(x.transposed(), by_row), [inputs, outputs].into()));
        }
        if let Some(true) = wanted.get(2) {
            let mut sums = vec![0.0; outputs];
            sum_rows(Isa::in_use(), &mut sums, gradient.as_ref());
            gradients[2] = Some(B::tensor(sums, [outputs].into()));
        }
        gradients
    }
}

vectorized! {
    /// The sum over all rows.
    fn sum_rows(sums: &mut [f32], values: &[f32]) {
        for row in values.chunks_exact(sums.len()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }
}
