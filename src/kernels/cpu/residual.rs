//! How a block rejoins the stream, in one pass forward and one backward: LayerNorm( dropout(x) + residual ).
//!
//! ```text
//! z = dropout(x) + residual,   n = (z - mean(z)) / sqrt(var(z) + epsilon),   y = n gamma + beta
//!
//! With G the gradient of y and H = G gamma:
//! dz = ( H - mean(H) - n mean(H n) ) / sqrt(var(z) + epsilon),   dgamma = sum_rows G n,   dbeta = sum_rows G
//! ```

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

use rayon::prelude::*;

use super::{
    dropout::DropoutMask,
    extension::*,
    lanes::{self, vectorized},
};

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
    let (x, residual) = (x.into_dispatch(), residual.into_dispatch());
    Tensor::from_dispatch(Dispatch::residual_norm(x, residual, gamma.into_dispatch(), beta.into_dispatch(), plan))
}

/// The operation, for the host backends.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Autodiff)]
pub(crate) trait ResidualNormOp: Backend {
    fn residual_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> FloatTensor<Self>;
}

/// n, and 1 / sqrt(var + epsilon) of each row.
type Normalised = (Vec<f32>, Vec<f32>);

/// The output, and if `keeps` what the backward pass needs.
fn forward<B: HostBackend>(
    [x, residual, gamma, beta]: [FloatTensor<B>; 4],
    plan: ResidualNorm,
    keeps: bool,
) -> (FloatTensor<B>, Option<Normalised>) {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    let [x, residual, gamma, beta] = [x, residual, gamma, beta].map(B::values);
    let (gamma, beta) = (gamma.as_ref(), beta.as_ref());
    let (size, chunk) = (shape.num_elements(), CHUNK * width);
    let mut output = vec![0.0; size];
    let mut normal = vec![0.0; if keeps { size } else { 0 }];
    let mut scales = vec![0.0; size / width];
    let inputs = x.as_ref().par_chunks(chunk).zip(residual.as_ref().par_chunks(chunk));
    let outputs = output.par_chunks_mut(chunk).zip(scales.par_chunks_mut(CHUNK));
    let run =
        |first: usize, x: &[f32], residual: &[f32], output: &mut [f32], scales: &mut [f32], normal: &mut [f32]| {
            normalise(x, residual, gamma, beta, plan, first * CHUNK, output, normal, scales);
        };
    if keeps {
        outputs.zip(normal.par_chunks_mut(chunk)).zip(inputs).enumerate().for_each(
            |(first, (((output, scales), normal), (x, residual)))| run(first, x, residual, output, scales, normal),
        );
    } else {
        outputs
            .zip(inputs)
            .enumerate()
            .for_each(|(first, ((output, scales), (x, residual)))| run(first, x, residual, output, scales, &mut []));
    }
    (B::tensor(output, shape), keeps.then_some((normal, scales)))
}

vectorized! {
    /// The forward pass of some rows, of which the first is `first` in the whole; fills `normal` if it is not empty.
    fn normalise<'a>(
        x: &'a [f32],
        residual: &'a [f32],
        gamma: &'a [f32],
        beta: &'a [f32],
        plan: ResidualNorm,
        first: usize,
        output: &'a mut [f32],
        normal: &'a mut [f32],
        scales: &'a mut [f32],
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

/// What the forward pass leaves for the backward pass.
#[derive(Clone, Debug)]
struct State<F> {
    gamma: F,
    normal: Vec<f32>,
    scales: Vec<f32>,
    plan: ResidualNorm,
}

vectorized! {
    /// The backward pass of some rows: dz, and the sums for gamma and beta.
    fn differentiate<'a>(
        gradient: &'a [f32],
        normal: &'a [f32],
        scales: &'a [f32],
        gamma: &'a [f32],
        output: &'a mut [f32],
        sums: &'a mut [f32],
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
    fn drop_out<'a>(values: &'a mut [f32], width: usize, mask: DropoutMask, first: usize) {
        for (row, values) in values.chunks_exact_mut(width).enumerate() {
            let mask = mask.row(0, first + row);
            for (column, value) in values.iter_mut().enumerate() {
                *value *= mask.factor(column as u32);
            }
        }
    }
}

macro_rules! implement {
    ($backend:ty) => {
        impl ResidualNormOp for $backend {
            fn residual_norm(
                x: FloatTensor<Self>,
                residual: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                plan: ResidualNorm,
            ) -> FloatTensor<Self> {
                forward::<Self>([x, residual, gamma, beta], plan, false).0
            }
        }
    };
}

#[cfg(feature = "flex")]
implement!(Flex);
#[cfg(feature = "ndarray")]
implement!(NdArray);

#[derive(Debug)]
struct ResidualNormBackward;

impl<B: HostBackend> Backward<B, 4> for ResidualNormBackward {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let State { gamma, normal, scales, plan } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let (shape, norm_shape) = (gradient.shape(), gamma.shape());
        let (gradient, gamma) = (B::values(gradient), B::values(gamma));
        let (gradient, gamma) = (gradient.as_ref(), gamma.as_ref());
        let width = norm_shape[0];
        let chunk = CHUNK * width;

        let mut into_residual = vec![0.0; normal.len()];
        let mut sums = vec![0.0; scales.len().div_ceil(CHUNK) * 2 * width];
        let inputs = gradient.par_chunks(chunk).zip(normal.par_chunks(chunk)).zip(scales.par_chunks(CHUNK));
        let outputs = into_residual.par_chunks_mut(chunk).zip(sums.par_chunks_mut(2 * width));
        outputs.zip(inputs).for_each(|((output, sums), ((gradient, normal), scales))| {
            differentiate(gradient, normal, scales, gamma, output, sums);
        });
        let mut into_gamma = vec![0.0; 2 * width];
        for sums in sums.chunks_exact(2 * width) {
            into_gamma.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        let into_beta = into_gamma.split_off(width);

        let dropped = plan.dropout.map(|mask| {
            let mut values = into_residual.clone();
            values.par_chunks_mut(chunk).enumerate().for_each(|(first, values)| {
                drop_out(values, width, mask, first * CHUNK);
            });
            B::tensor(values, shape.clone())
        });
        let into_residual = B::tensor(into_residual, shape);
        let into_x = dropped.unwrap_or_else(|| into_residual.clone());
        let into_gamma = B::tensor(into_gamma, norm_shape.clone());
        let into_beta = B::tensor(into_beta, norm_shape);
        for (parent, gradient) in ops.parents.into_iter().zip([into_x, into_residual, into_gamma, into_beta]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: ResidualNormOp + HostBackend, C: CheckpointStrategy> ResidualNormOp for Autodiff<B, C> {
    fn residual_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> FloatTensor<Self> {
        let tensors = [x, residual, gamma, beta];
        let nodes = tensors.each_ref().map(|tensor| tensor.node());
        let tensors = tensors.map(|tensor| tensor.into_primitive());
        let gamma = tensors[2].clone();
        match ResidualNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (output, kept) = forward::<B>(tensors, plan, true);
                let (normal, scales) = kept.expect("asked for");
                prep.finish(State { gamma, normal, scales, plan }, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(forward::<B>(tensors, plan, false).0),
        }
    }
}
