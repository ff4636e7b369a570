//! How a block rejoins the stream, in one pass forward and one backward: LayerNorm( dropout(x) + residual ).
//!
//! ```text
//! z = dropout(x) + residual,   n = (z - mean(z)) / sqrt(var(z) + epsilon),   y = n gamma + beta
//!
//! With G the gradient of y and H = G gamma:
//! dz = ( H - mean(H) - n mean(H n) ) / sqrt(var(z) + epsilon),   dgamma = sum_rows G n,   dbeta = sum_rows G
//! ```

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
};
use rayon::prelude::*;

use super::{
    backend::HostBackend,
    dropout::DropoutMask,
    lanes,
    matrix::filled,
    operation::{Operation, apply},
    simd::vectorized,
};
use crate::isa::Isa;

/// Rows that one thread takes at a time; sums over rows are made by chunk, so that they do not depend on the threads.
const CHUNK: usize = 32;

/// What the operation knows beside its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResidualNorm {
    pub epsilon: f32,
    pub dropout: Option<DropoutMask>,
}

/// LayerNorm( dropout(x) + residual ) on a host device, in f32.
///
/// # Shapes
/// - x, residual, output: [.., width]
/// - gamma, beta: [width]
pub(crate) fn residual_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    plan: ResidualNorm,
) -> Tensor<D> {
    apply(plan, [x.into_dispatch(), residual.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch()])
}

/// What the forward pass leaves for the backward pass.
#[derive(Clone, Debug)]
pub(crate) struct Kept<F> {
    gamma: F,
    /// n
    normal: Vec<f32>,
    /// 1 / sqrt(var + epsilon) of each row.
    scales: Vec<f32>,
}

impl ResidualNorm {
    /// The output, and n if it is to be kept, and the scale of each row.
    fn run<B: HostBackend>(
        self,
        [x, residual, gamma, beta]: [FloatTensor<B>; 4],
        keeps: bool,
    ) -> (FloatTensor<B>, Vec<f32>, Vec<f32>) {
        let shape = x.shape();
        let width = shape[shape.num_dims() - 1];
        let [x, residual, gamma, beta] = [x, residual, gamma, beta].map(B::values);
        let (gamma, beta) = (gamma.as_ref(), beta.as_ref());
        assert_eq!([gamma.len(), beta.len()], [width; 2], "gamma and beta have as many numbers as a row");
        assert_eq!(x.as_ref().len(), residual.as_ref().len(), "x and the residual have one shape");
        let (size, chunk, isa) = (shape.num_elements(), CHUNK * width, Isa::in_use());
        let mut normal = vec![0.0; if keeps { size } else { 0 }];
        let mut scales = vec![0.0; size / width];
        let mut kept: Vec<&mut [f32]> = normal.chunks_mut(chunk).collect();
        kept.resize_with(size.div_ceil(chunk), Default::default);
        let fill = |output: &mut [f32]| {
            let inputs = x.as_ref().par_chunks(chunk).zip(residual.as_ref().par_chunks(chunk));
            let outputs = output.par_chunks_mut(chunk).zip(scales.par_chunks_mut(CHUNK)).zip(kept);
            outputs.zip(inputs).enumerate().for_each(|(first, (((output, scales), normal), (x, residual)))| {
                normalise(isa, x, residual, gamma, beta, self, first * CHUNK, output, normal, scales);
            });
        };
        // SAFETY: x and the residual have the output's shape, so that each of its rows is written before it is normalised.
        let output = unsafe { filled(size, fill) };
        (B::tensor(output, shape), normal, scales)
    }
}

impl<B: HostBackend> Operation<B, 4> for ResidualNorm {
    type Kept = Kept<FloatTensor<B>>;

    fn forward(&self, tensors: [FloatTensor<B>; 4]) -> FloatTensor<B> {
        self.run::<B>(tensors, false).0
    }

    fn forward_keeping(&self, tensors: [FloatTensor<B>; 4], _: [bool; 4]) -> (FloatTensor<B>, Kept<FloatTensor<B>>) {
        let gamma = tensors[2].clone();
        let (output, normal, scales) = self.run::<B>(tensors, true);
        (output, Kept { gamma, normal, scales })
    }

    fn backward(
        &self,
        Kept { gamma, normal, scales }: Kept<FloatTensor<B>>,
        gradient: FloatTensor<B>,
        _: [bool; 4],
    ) -> [Option<FloatTensor<B>>; 4] {
        let (shape, norm_shape) = (gradient.shape(), gamma.shape());
        let (gradient, gamma) = (B::values(gradient), B::values(gamma));
        let (gradient, gamma) = (gradient.as_ref(), gamma.as_ref());
        let width = norm_shape[0];
        let (chunk, isa) = (CHUNK * width, Isa::in_use());

        let mut into_residual = vec![0.0; normal.len()];
        let mut sums = vec![0.0; scales.len().div_ceil(CHUNK) * 2 * width];
        let inputs = gradient.par_chunks(chunk).zip(normal.par_chunks(chunk)).zip(scales.par_chunks(CHUNK));
        let outputs = into_residual.par_chunks_mut(chunk).zip(sums.par_chunks_mut(2 * width));
        outputs.zip(inputs).for_each(|((output, sums), ((gradient, normal), scales))| {
            differentiate(isa, gradient, normal, scales, gamma, output, sums);
        });
        let mut into_gamma = vec![0.0; 2 * width];
        for sums in sums.chunks_exact(2 * width) {
            into_gamma.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        let into_beta = into_gamma.split_off(width);

        let dropped = self.dropout.map(|mask| {
            let mut values = into_residual.clone();
            values.par_chunks_mut(chunk).enumerate().for_each(|(first, values)| {
                drop_out(isa, values, width, mask, first * CHUNK);
            });
            B::tensor(values, shape.clone())
        });
        let into_residual = B::tensor(into_residual, shape);
        let into_x = dropped.unwrap_or_else(|| into_residual.clone());
        let into_gamma = B::tensor(into_gamma, norm_shape.clone());
        [into_x, into_residual, into_gamma, B::tensor(into_beta, norm_shape)].map(Some)
    }
}

vectorized! {
    /// The forward pass of some rows, of which the first is `first` in the whole; fills `normal` if it is not empty.
    fn normalise(
        x: &[f32],
        residual: &[f32],
        gamma: &[f32],
        beta: &[f32],
        plan: ResidualNorm,
        first: usize,
        output: &mut [f32],
        normal: &mut [f32],
        scales: &mut [f32],
    ) {
        let width = gamma.len();
        let rows = output.chunks_exact_mut(width).zip(x.chunks_exact(width).zip(residual.chunks_exact(width)));
        for (row, ((output, (x, residual)), scale)) in rows.zip(scales).enumerate() {
            match plan.dropout {
                Some(mask) => {
                    let mask = mask.row(0, first + row);
                    for (column, ((z, x), residual)) in output.iter_mut().zip(x).zip(residual).enumerate() {
                        *z = x * mask.factor(column as u32) + residual;
                    }
                }
                None => {
                    for ((z, x), residual) in output.iter_mut().zip(x).zip(residual) {
                        *z = x + residual;
                    }
                }
            }
            let mean = lanes::sum(output) / width as f32;
            for z in output.iter_mut() {
                *z -= mean;
            }
            *scale = 1.0 / (lanes::dot(output, output) / width as f32 + plan.epsilon).sqrt();
            for n in output.iter_mut() {
                *n *= *scale;
            }
            if let Some(kept) = normal.get_mut(row * width..(row + 1) * width) {
                kept.copy_from_slice(output);
            }
            for ((y, gamma), beta) in output.iter_mut().zip(gamma).zip(beta) {
                *y = *y * gamma + beta;
            }
        }
    }
}

vectorized! {
    /// The backward pass of some rows: dz, and the sums for gamma and beta.
    fn differentiate(
        gradient: &[f32],
        normal: &[f32],
        scales: &[f32],
        gamma: &[f32],
        output: &mut [f32],
        sums: &mut [f32],
    ) {
        let width = gamma.len();
        let (gamma_sums, beta_sums) = sums.split_at_mut(width);
        let rows = output.chunks_exact_mut(width).zip(gradient.chunks_exact(width).zip(normal.chunks_exact(width)));
        for ((output, (gradient, normal)), scale) in rows.zip(scales) {
            for ((h, gradient), gamma) in output.iter_mut().zip(gradient).zip(gamma) {
                *h = gradient * gamma;
            }
            let mean = lanes::sum(output) / width as f32;
            let slope = lanes::dot(output, normal) / width as f32;
            for (h, n) in output.iter_mut().zip(normal) {
                *h = (*h - mean - n * slope) * scale;
            }
            for ((sum, gradient), n) in gamma_sums.iter_mut().zip(gradient).zip(normal) {
                *sum += gradient * n;
            }
            for (sum, gradient) in beta_sums.iter_mut().zip(gradient) {
                *sum += gradient;
            }
        }
    }
}

vectorized! {
    /// Multiplies some rows with their factors of dropout.
    fn drop_out(values: &mut [f32], width: usize, mask: DropoutMask, first: usize) {
        for (row, values) in values.chunks_exact_mut(width).enumerate() {
            let mask = mask.row(0, first + row);
            for (column, value) in values.iter_mut().enumerate() {
                *value *= mask.factor(column as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPSILON: f32 = 1e-7;

    /// The operands of some rows: x, the residual and a gradient, gamma and beta.
    struct Case {
        x: Vec<f32>,
        residual: Vec<f32>,
        gradient: Vec<f32>,
        gamma: Vec<f32>,
        beta: Vec<f32>,
        dropout: Option<DropoutMask>,
    }

    impl Case {
        /// Rows of which the sums have about these means and spreads.
        fn new(rows: usize, width: usize, [mean, spread]: [f32; 2], dropout: bool) -> Self {
            let values = |seed: usize, count: usize| -> Vec<f32> {
                (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
            };
            let mut case = Self {
                x: values(1, rows * width),
                residual: values(2, rows * width),
                gradient: values(3, rows * width),
                gamma: values(4, width),
                beta: values(5, width),
                dropout: dropout.then(|| DropoutMask::new(0.1, 3)),
            };
            case.x.iter_mut().for_each(|x| *x *= spread);
            case.residual.iter_mut().for_each(|residual| *residual = *residual * spread + mean);
            case
        }

        /// Where the first row is in the whole.
        const FIRST: usize = 7;

        /// Output, n, scales, dz and the sums for gamma and beta.
        fn passes(&self, isa: Isa) -> [Vec<f32>; 5] {
            let Self { x, residual, gradient, gamma, beta, dropout } = self;
            let (plan, rows) = (ResidualNorm { epsilon: EPSILON, dropout: *dropout }, x.len() / gamma.len());
            let [mut output, mut normal, mut d_z] = [(); 3].map(|()| vec![f32::NAN; x.len()]);
            let (mut scales, mut sums) = (vec![f32::NAN; rows], vec![0.0; 2 * gamma.len()]);
            normalise(isa, x, residual, gamma, beta, plan, Self::FIRST, &mut output, &mut normal, &mut scales);
            differentiate(isa, gradient, &normal, &scales, gamma, &mut d_z, &mut sums);
            [output, normal, scales, d_z, sums]
        }

        /// The same by the formulas, in f64.
        fn by_definition(&self) -> [Vec<f64>; 5] {
            let width = self.gamma.len();
            let [mut output, mut normal, mut scales, mut d_z] = [(); 4].map(|()| Vec::new());
            let mut sums = vec![0.0; 2 * width];
            let mean = |values: &[f64]| values.iter().sum::<f64>() / width as f64;
            let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
            let (gamma, beta) = (wide(&self.gamma), wide(&self.beta));
            let rows = self.x.chunks(width).zip(self.residual.chunks(width)).zip(self.gradient.chunks(width));
            for (row, ((x, residual), gradient)) in rows.enumerate() {
                let mask = self.dropout.map(|mask| mask.row(0, Self::FIRST + row));
                let factor = |column: usize| mask.as_ref().map_or(1.0, |mask| f64::from(mask.factor(column as u32)));
                let z = wide(x).into_iter().zip(wide(residual)).enumerate().map(|(at, (x, r))| x * factor(at) + r);
                let z: Vec<f64> = z.collect();
                let centre = mean(&z);
                let variance = mean(&z.iter().map(|z| (z - centre).powi(2)).collect::<Vec<_>>());
                let scale = 1.0 / (variance + f64::from(EPSILON)).sqrt();
                let n: Vec<f64> = z.iter().map(|z| (z - centre) * scale).collect();
                let gradient = wide(gradient);
                let h: Vec<f64> = gradient.iter().zip(&gamma).map(|(gradient, gamma)| gradient * gamma).collect();
                let slope = mean(&h.iter().zip(&n).map(|(h, n)| h * n).collect::<Vec<_>>());
                d_z.extend(h.iter().zip(&n).map(|(value, n)| (value - mean(&h) - n * slope) * scale));
                for (column, (gradient, n)) in gradient.iter().zip(&n).enumerate() {
                    sums[column] += gradient * n;
                    sums[width + column] += gradient;
                }
                output.extend(n.iter().zip(&gamma).zip(&beta).map(|((n, gamma), beta)| n * gamma + beta));
                normal.extend(n);
                scales.push(scale);
            }
            [output, normal, scales, d_z, sums]
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        // Rows of zeros, of denormal numbers, of numbers whose squares are nearly too large, and far from zero.
        #[test]
        fn both_passes_are_those_of_f64(
            rows in 1usize..40,
            width in prop_oneof![1usize..70, Just(384), Just(1000)],
            spread in prop_oneof![
                1 => Just(0.0f32), 1 => Just(1e-40), 1 => Just(1e-3), 3 => Just(1.0), 1 => Just(1e3), 1 => Just(1e17)
            ],
            offset in prop_oneof![3 => Just(0.0f32), 1 => Just(-30.0)],
            dropout in any::<bool>(),
        ) {
            let case = Case::new(rows, width, [offset * spread, spread], dropout);
            let expected = case.by_definition();
            let largest = |values: &[f64]| values.iter().fold(1e-30, |largest: f64, value| largest.max(value.abs()));
            let [output, normal, scales, _, sums] = expected.each_ref().map(|values| largest(values));
            // dz is a difference of numbers up to 1, times its row's scale; a sum is one of as many numbers as there are rows.
            let sizes = [output, normal, scales, scales, sums.max(rows as f64)];
            // A row far from zero was rounded there, and its deviations share these roundings; few numbers can be much closer
            // to each other than to zero.
            let roundings = 1e-5 * f64::from(1.0 + offset.abs()) * if width < 8 { 100.0 } else { 1.0 };
            for isa in Isa::available() {
                for (which, (found, expected)) in case.passes(isa).iter().zip(&expected).enumerate() {
                    for (found, expected) in found.iter().zip(expected) {
                        let error = (f64::from(*found) - expected).abs();
                        let is_close = error <= roundings * sizes[which];
                        prop_assert!(is_close, "{isa}, result {which}: {found} instead of {expected}");
                    }
                }
            }
        }

        #[test]
        fn what_is_no_number_stays_in_its_row(
            place in 0usize..3 * 41,
            value in prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
            in_x in any::<bool>(),
        ) {
            let width = 41;
            let mut case = Case::new(3, width, [0.0, 1.0], false);
            let portable = Isa::available().next().expect("there always is one");
            let [expected, ..] = case.passes(portable);
            if in_x { case.x[place] = value } else { case.residual[place] = value }
            for isa in Isa::available() {
                let [output, _, _, d_z, _] = case.passes(isa);
                for (row, values) in output.chunks(width).zip(d_z.chunks(width)).enumerate() {
                    let (is_spoilt, whole) = (row == place / width, &expected[row * width..][..width]);
                    prop_assert!(values.1.iter().all(|value| value.is_nan() == is_spoilt), "{isa}: dz");
                    for (found, expected) in values.0.iter().zip(whole) {
                        // The root of the number of roundings, as above.
                        let close = (found - expected).abs() < 1e-5;
                        prop_assert!(if is_spoilt { found.is_nan() } else { close }, "{isa}: {found}");
                    }
                }
            }
        }
    }
}
