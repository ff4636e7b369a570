//! x W + b as one operation, with its backward pass.
//!
//! ```text
//! y = x W + b,   dx = G W^T,   dW = x^T G,   db = sum_rows G
//! y = x E^T + b, dx = G E,     dE = G^T x
//! ```
//!
//! burn-flex fills each product's buffer with zeros, copies it to another alignment, and adds the bias in a pass of its own,
//! which together cost a tenth of a training step.

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
    tensor::Shape,
};
use rayon::prelude::*;

use super::{
    backend::HostBackend,
    floats::{Bf16, F32, in_bf16},
    format::Format,
    matrix::{Matrix, Shared, filled},
    operation::{Operation, apply},
    panels::{Panels, parts},
    product::{Finish, Start},
    simd::vectorized,
};
use crate::isa::Isa;

/// The most rows whose scores are made without laying out a table for the product.
const FEW_ROWS: usize = 128;

/// Scores of a row that one thread puts in their places at a time: as many of [`FEW_ROWS`] rows stay in a cache.
const OUTPUTS: usize = 256;

/// `x weight + bias` on a host device, of tensors in f32.
///
/// # Shapes
/// - x: [.., inputs]
/// - weight: [inputs, outputs], or as `map` has it
/// - bias: [outputs]
/// - output: [.., outputs]
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    map: HostLinear,
) -> Tensor<D> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    match bias {
        Some(bias) => apply(map, [x, weight, bias.into_dispatch()]),
        None => apply(map, [x, weight]),
    }
}

/// The product of x and the weight, and a bias where there is a third tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLinear {
    /// Whether the operands of its products, and of those of the backward pass, are rounded to bf16 where the processor has fast
    /// instructions for that, and elsewhere the right ones. (The scores of a few rows are in f32 all the same.)
    pub rounds: bool,
    /// Whether the weight has a row for each output, as a table of embeddings has for each word.
    pub transposed: bool,
}

impl HostLinear {
    /// The weight, [inputs, outputs].
    fn weight<'a>(&self, values: &'a [f32], [rows, columns]: [usize; 2]) -> Matrix<'a> {
        let weight = Matrix::new(values, 0, rows, columns, columns);
        if self.transposed { weight.transposed() } else { weight }
    }

    /// `start + lhs rhs` on all threads.
    fn product(&self, lhs: Matrix<'_>, rhs: Matrix<'_>, start: Start<'_>) -> Vec<f32> {
        let isa = Isa::in_use();
        match self.rounds {
            true => in_bf16!(isa, F => product::<F>(isa, lhs, rhs, start), otherwise Bf16),
            false => product::<F32>(isa, lhs, rhs, start),
        }
    }
}

/// The same of operands in a format.
fn product<F: Format>(isa: Isa, lhs: Matrix<'_>, rhs: Matrix<'_>, start: Start<'_>) -> Vec<f32> {
    let ([rows, inner], [_, columns]) = (lhs.shape(), rhs.shape());
    if inner == 0 {
        // The gradient of a weight that no row has passed.
        return vec![0.0; rows * columns];
    }
    let (panels, states) = (Panels::<F>::new(isa, rhs), F::states(isa, lhs));
    let fill = |output: &mut [f32]| panels.parallel_product(states.operand(), start, Finish::Sums, output);
    // SAFETY: a product writes every element of its output.
    unsafe { filled(rows * columns, fill) }
}

/// The scores of a few rows in f32. The table is the left operand, which is read as it lies: laid out for the product it would be
/// written and read once more, which takes longer than so few rows' multiplications.
///
/// # Shapes
/// - x: [rows, inputs]
/// - table: [outputs, inputs]
/// - bias: [outputs]
/// - output: [rows, outputs]
fn scores_of_few_rows(x: Matrix<'_>, table: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let ([rows, _], [outputs, _]) = (x.shape(), table.shape());
    let by_output = product::<F32>(Isa::in_use(), table, x.transposed(), Start::Zero);
    let fill = |scores: &mut [f32]| {
        let scores = Shared::new(scores);
        let parts: Vec<_> = parts(0..outputs, OUTPUTS).collect();
        parts.into_par_iter().for_each(|part| {
            // SAFETY: the parts' columns do not overlap.
            let mut block = unsafe { scores.matrix(part.start, rows, part.len(), outputs) };
            for row in 0..rows {
                for (score, output) in block.row_mut(row).iter_mut().zip(part.clone()) {
                    *score = by_output[output * rows + row] + bias.map_or(0.0, |bias| bias[output]);
                }
            }
        });
    };
    // SAFETY: every row of every part is written.
    unsafe { filled(rows * outputs, fill) }
}

/// What the backward pass needs: nothing for a frozen weight, so that its input can go.
#[derive(Clone, Debug)]
pub(crate) struct Kept<F> {
    /// x, for the gradient of the weight.
    x: Option<F>,
    x_shape: Shape,
    /// The weight, for the gradient of x.
    weight: Option<F>,
}

impl<B: HostBackend, const N: usize> Operation<B, N> for HostLinear {
    type Kept = Kept<FloatTensor<B>>;

    fn forward(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B> {
        let (mut shape, of_weight) = (tensors[0].shape(), tensors[1].shape().dims());
        let values = tensors.map(B::values);
        let mut values = values.iter().map(AsRef::as_ref);
        let (x, weight) = (values.next().expect("x"), values.next().expect("a weight"));
        let (weight, bias) = (self.weight(weight, of_weight), values.next());
        let [inputs, outputs] = weight.shape();
        let x = Matrix::new(x, 0, x.len() / inputs, inputs, inputs);
        let output = match self.transposed && x.shape()[0] <= FEW_ROWS {
            true => scores_of_few_rows(x, weight.transposed(), bias),
            false => self.product(x, weight, bias.map_or(Start::Zero, Start::Bias)),
        };
        let last = shape.num_dims() - 1;
        shape[last] = outputs;
        B::tensor(output, shape)
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
            let (values, shape) = (B::values(weight.clone()), weight.shape().dims());
            let weight = self.weight(values.as_ref(), shape);
            gradients[0] = Some(B::tensor(self.product(by_row, weight.transposed(), Start::Zero), x_shape));
        }
        if let Some(x) = x {
            let x = B::values(x);
            let x = Matrix::new(x.as_ref(), 0, rows, inputs, inputs);
            let (values, shape) = match self.transposed {
                true => (self.product(by_row.transposed(), x, Start::Zero), [outputs, inputs]),
                false => (self.product(x.transposed(), by_row, Start::Zero), [inputs, outputs]),
            };
            gradients[1] = Some(B::tensor(values, shape.into()));
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// A tensor of numbers of size 1 that wants a gradient.
    fn numbers<const D: usize>(seed: usize, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect();
        Tensor::from_data(TensorData::new(values, shape), device).require_grad()
    }

    #[test]
    fn a_table_of_outputs_has_the_results_of_the_plain_weight() {
        let device = Device::flex().autodiff();
        // Few rows and more, and more outputs than a thread takes at a time.
        for (rows, rounds) in [(80, false), (80, true), (3, false), (3, true), (1, false)] {
            let [inputs, outputs] = [50, 300];
            let results = |transposed: bool| {
                let (x, bias) = (numbers(1, [2, rows, inputs], &device), numbers(2, [outputs], &device));
                let weight = numbers(3, [inputs, outputs], &device);
                let weight =
                    if transposed { weight.transpose().detach().require_grad() } else { weight.require_grad() };
                let output = linear(x.clone(), weight.clone(), Some(bias.clone()), HostLinear { rounds, transposed });
                let mut gradients =
                    (output.clone() * numbers(4, [2, rows, outputs], &device).detach()).sum().backward();
                let of_weight = weight.grad_remove(&mut gradients).expect("a gradient");
                [
                    output.inner().flatten(0, 1),
                    x.grad_remove(&mut gradients).expect("a gradient").flatten(0, 1),
                    if transposed { of_weight.transpose() } else { of_weight },
                    bias.grad_remove(&mut gradients).expect("a gradient").unsqueeze(),
                ]
            };
            for (which, (found, expected)) in results(true).into_iter().zip(results(false)).enumerate() {
                let difference = (found - expected).abs().max().into_scalar::<f32>();
                // Sums of up to 300 products of numbers up to 1 in another order. The scores of few rows are not rounded. Processors
                // without products of bf16 round the right operand alone, which for the gradient of the weight is x here and that of
                // the output there: 2^-9 of each product.
                let bound = if rounds && (which == 2 || (which == 0 && 2 * rows <= FEW_ROWS)) { 0.06 } else { 1e-5 };
                assert!(difference < bound, "{rows} rows, rounds {rounds}, output {which}: {difference}");
            }
        }
    }

    #[test]
    fn no_rows_give_gradients_of_zeros() {
        let device = Device::flex().autodiff();
        for rounds in [false, true] {
            let (weight, bias) = (numbers::<2>(3, [8, 5], &device), numbers::<1>(2, [5], &device));
            let x = Tensor::<3>::zeros([0, 4, 8], &device);
            let output = linear(x, weight.clone(), Some(bias), HostLinear { rounds, transposed: false });
            assert_eq!(output.dims(), [0, 4, 5]);
            let gradient = weight.grad(&output.sum().backward()).expect("a gradient");
            assert_eq!(gradient.into_data(), Tensor::<2>::zeros([8, 5], &Device::flex()).into_data());
        }
        // A table of more outputs than a thread takes at a time.
        let table = Tensor::<2>::ones([2 * OUTPUTS, 8], &Device::flex());
        let x = Tensor::<3>::zeros([0, 4, 8], &Device::flex());
        let output = linear(x, table, None, HostLinear { rounds: false, transposed: true });
        assert_eq!(output.dims(), [0, 4, 2 * OUTPUTS]);
    }
}
