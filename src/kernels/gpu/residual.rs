//! How a block rejoins the stream, in one pass forward and one backward: LayerNorm( dropout(x) + residual ). The formulas stand in
//! [`cpu::residual`](crate::kernels::cpu::residual), whose masks these are, bit for bit.

use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        cubecl::dtype_to_elem_type,
        fusion::custom::TensorSpec,
        tensor::FloatTensor,
    },
    tensor::{DType, Shape},
};
use burn_cubecl::{
    CubeBackend, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};
use cubecl::{
    features::Plane,
    prelude::{CubeCount, CubeDim},
};

use super::{launch::MOST_CUBES, sums};
use crate::kernels::cpu::residual::ResidualNorm;

/// Most cubes of the backward pass: each sums the gradients of gamma and beta over its rows.
const MOST_SUMS: usize = 512;

/// LayerNorm( dropout(x) + residual ).
///
/// # Shapes
/// - x, residual, output: [.., width]; the output is of the residual's type, x may be of a shorter one
/// - gamma, beta: \[width\]
pub(crate) fn residual_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    plan: ResidualNorm,
) -> Tensor<D> {
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(<Dispatch as GpuResidual>::residual_norm(
        x.into_dispatch(),
        residual.into_dispatch(),
        gamma,
        beta,
        plan,
    ))
}

/// Shape without its last axis, as one.
fn rows(x: &Shape) -> usize {
    x.num_elements() / x[x.num_dims() - 1]
}

/// The operation, and the two that it is made of.
#[backend_extension(Cube: cfg(feature = "gpu"), Autodiff, Fusion: cfg(feature = "gpu"))]
pub trait GpuResidual: Backend {
    /// y
    #[fusion(dtype = residual, shape = residual)]
    fn residual_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> FloatTensor<Self>;

    /// y, n, and the scale of each row in f32.
    #[fusion(meta = |_x, residual, _gamma, _beta, _plan|
        (residual.clone(), residual.clone(), TensorSpec { shape: Shape::new([rows(&residual.shape)]), dtype: DType::F32 }))]
    fn residual_norm_forward(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of x, which is of a type of its own, residual, gamma and beta.
    #[allow(clippy::type_complexity, reason = "burn's operations give tensors one by one")]
    #[fusion(meta = |gradient, _normal, _scales, gamma, x, _plan|
        (TensorSpec { dtype: *x, ..gradient.clone() }, gradient.clone(), gamma.clone(), gamma.clone()))]
    fn residual_norm_backward(
        gradient: FloatTensor<Self>,
        normal: FloatTensor<Self>,
        scales: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        x: DType,
        plan: ResidualNorm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

fn like(tensor: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), shape, dtype)
}

/// Whether the device sums over a plane.
fn has_planes(tensor: &CubeTensor) -> bool {
    tensor.client.properties().features.plane.contains(Plane::Ops)
}

/// The numbers of dropout: seed, threshold and factor.
fn dropout(plan: &ResidualNorm) -> (u32, u32, f32) {
    plan.dropout.map_or((0, 0, 1.0), |mask| (mask.seed, mask.threshold(), mask.factor() as f32))
}

fn forward(
    [x, residual, gamma, beta]: [CubeTensor; 4],
    plan: &ResidualNorm,
    keeps: bool,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [x, residual, gamma, beta] = [x, residual, gamma, beta].map(into_contiguous);
    let (shape, count, dtype) = (x.shape(), rows(&x.shape()), residual.dtype);
    let output = like(&x, shape.clone(), dtype);
    let normal = like(&x, if keeps { shape.clone() } else { Shape::new([1]) }, dtype);
    let scales = like(&x, Shape::new([if keeps { count } else { 1 }]), DType::F32);
    let (seed, threshold, keep) = dropout(plan);
    for first in (0..count).step_by(MOST_CUBES) {
        kernels::forward::launch(
            &x.client,
            CubeCount::Static(MOST_CUBES.min(count - first) as u32, 1, 1),
            CubeDim::new_1d(kernels::UNITS as u32),
            x.clone().into_tensor_arg(),
            residual.clone().into_tensor_arg(),
            gamma.clone().into_tensor_arg(),
            beta.clone().into_tensor_arg(),
            output.clone().into_tensor_arg(),
            normal.clone().into_tensor_arg(),
            scales.clone().into_tensor_arg(),
            first as u32,
            plan.epsilon,
            seed,
            threshold,
            keep,
            shape[shape.num_dims() - 1],
            keeps,
            plan.dropout.is_some(),
            has_planes(&x),
            [x.dtype, dtype].map(dtype_to_elem_type),
        );
    }
    (output, normal, scales)
}

impl GpuResidual for CubeBackend {
    fn residual_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> FloatTensor<Self> {
        forward([x, residual, gamma, beta], &plan, false).0
    }

    fn residual_norm_forward(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        forward([x, residual, gamma, beta], &plan, true)
    }

    fn residual_norm_backward(
        gradient: FloatTensor<Self>,
        normal: FloatTensor<Self>,
        scales: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        x: DType,
        plan: ResidualNorm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [gradient, normal, scales, gamma] = [gradient, normal, scales, gamma].map(into_contiguous);
        let (shape, dtype) = (gradient.shape(), gradient.dtype);
        let (width, count) = (shape[shape.num_dims() - 1], rows(&shape));
        let cubes = count.min(MOST_SUMS);
        let to_residual = like(&gradient, shape.clone(), dtype);
        // Without dropout, and in the same type, they are one.
        let apart = plan.dropout.is_some() || x != dtype;
        let to_x = if apart { like(&gradient, shape.clone(), x) } else { to_residual.clone() };
        let [to_gamma, to_beta] = [(); 2].map(|()| like(&gradient, Shape::new([cubes, width]), DType::F32));
        let (seed, threshold, keep) = dropout(&plan);
        let target = if apart { to_x.clone() } else { like(&gradient, Shape::new([1]), x) };
        kernels::backward::launch(
            &gradient.client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(kernels::UNITS as u32),
            gradient.clone().into_tensor_arg(),
            normal.into_tensor_arg(),
            scales.into_tensor_arg(),
            gamma.clone().into_tensor_arg(),
            to_residual.clone().into_tensor_arg(),
            target.into_tensor_arg(),
            to_gamma.clone().into_tensor_arg(),
            to_beta.clone().into_tensor_arg(),
            count as u32,
            seed,
            threshold,
            keep,
            width,
            apart,
            has_planes(&gradient),
            [x, dtype].map(dtype_to_elem_type),
        );
        let [to_gamma, to_beta] = [to_gamma, to_beta].map(|sums| sums::sum_rows(sums, gamma.dtype));
        (to_x, to_residual, to_gamma, to_beta)
    }
}

impl<B: GpuResidual, C: CheckpointStrategy> GpuResidual for Autodiff<B, C> {
    fn residual_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> FloatTensor<Self> {
        let all = [x, residual, gamma, beta];
        let nodes = all.each_ref().map(|tensor| tensor.node());
        let [x, residual, gamma, beta] = all.map(|tensor| tensor.into_primitive());
        match ResidualBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let dtype = x.dtype();
                let (output, normal, scales) = B::residual_norm_forward(x, residual, gamma.clone(), beta, plan);
                prep.finish(Kept { normal, scales, gamma, x: dtype, plan }, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::residual_norm(x, residual, gamma, beta, plan)),
        }
    }

    fn residual_norm_forward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: ResidualNorm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("a part of `residual_norm`, which has a gradient as a whole")
    }

    fn residual_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: DType,
        _: ResidualNorm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("a part of `residual_norm`, which has no second derivative")
    }
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct Kept<F> {
    /// n
    normal: F,
    /// 1 / sqrt(var + epsilon) of each row.
    scales: F,
    gamma: F,
    /// The type of x.
    x: DType,
    plan: ResidualNorm,
}

#[derive(Debug)]
struct ResidualBackward;

impl<B: GpuResidual> Backward<B, 4> for ResidualBackward {
    type State = Kept<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let Kept { normal, scales, gamma, x, plan } = ops.state;
        let (x, residual, gamma, beta) = B::residual_norm_backward(gradient, normal, scales, gamma, x, plan);
        for (parent, gradient) in ops.parents.into_iter().zip([x, residual, gamma, beta]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

mod kernels {
    use cubecl::{cube, prelude::*};

    use crate::kernels::gpu::shared::{cube_sum, kept, row_of_bits};

    /// Units of a cube, which share a row.
    pub const UNITS: usize = 128;

    /// A cube a row.
    ///
    /// # Shapes
    /// - x, residual, output, normal: [rows, width]; gamma, beta: \[width\]; scales: \[rows\]
    #[cube(launch)]
    pub fn forward<X: Float, F: Float>(
        x: &Tensor<X>,
        residual: &Tensor<F>,
        gamma: &Tensor<F>,
        beta: &Tensor<F>,
        output: &mut Tensor<F>,
        normal: &mut Tensor<F>,
        scales: &mut Tensor<f32>,
        first: u32,
        epsilon: f32,
        seed: u32,
        threshold: u32,
        keep: f32,
        #[comptime] width: usize,
        #[comptime] keeps: bool,
        #[comptime] drops: bool,
        #[comptime] planes: bool,
        #[define(X, F)] _dtypes: [ElemType; 2],
    ) {
        let parts = comptime!(width.div_ceil(UNITS));
        let row = first + CUBE_POS_X;
        let bits = row_of_bits(seed, 0u32, row);
        let start = row as usize * width;
        let mut shared = Shared::<[f32]>::new_slice(UNITS);
        let mut z = Array::<f32>::new(parts);
        let mut sum = 0.0f32;
        #[unroll]
        for part in 0..parts {
            let column = part * UNITS + UNIT_POS as usize;
            z[part] = 0.0f32;
            if column < width {
                let mut value = f32::cast_from(x[start + column]);
                if comptime!(drops) {
                    value *= kept(bits, column as u32, threshold, keep);
                }
                z[part] = value + f32::cast_from(residual[start + column]);
                sum += z[part];
            }
        }
        let mean = cube_sum(sum, &mut shared, planes) / comptime!(width as f32);
        let mut squares = 0.0f32;
        #[unroll]
        for part in 0..parts {
            if part * UNITS + (UNIT_POS as usize) < width {
                z[part] -= mean;
                squares += z[part] * z[part];
            }
        }
        let variance = cube_sum(squares, &mut shared, planes) / comptime!(width as f32);
        let scale = 1.0f32 / f32::sqrt(variance + epsilon);
        #[unroll]
        for part in 0..parts {
            let column = part * UNITS + UNIT_POS as usize;
            if column < width {
                let n = z[part] * scale;
                output[start + column] = F::cast_from(n * f32::cast_from(gamma[column]) + f32::cast_from(beta[column]));
                if comptime!(keeps) {
                    normal[start + column] = F::cast_from(n);
                }
            }
        }
        let first_unit = UNIT_POS == 0;
        if comptime!(keeps) && first_unit {
            scales[row as usize] = scale;
        }
    }

    /// A cube for every so many rows.
    ///
    /// # Shapes
    /// - gradient, normal, to_residual, to_x: [rows, width]; scales: \[rows\]; gamma: \[width\]
    /// - to_gamma, to_beta: sums over each cube's rows, [cubes, width]
    ///
    /// Without dropout the threshold is 0 and `keep` 1.
    #[cube(launch)]
    pub fn backward<X: Float, F: Float>(
        gradient: &Tensor<F>,
        normal: &Tensor<F>,
        scales: &Tensor<f32>,
        gamma: &Tensor<F>,
        to_residual: &mut Tensor<F>,
        to_x: &mut Tensor<X>,
        to_gamma: &mut Tensor<f32>,
        to_beta: &mut Tensor<f32>,
        rows: u32,
        seed: u32,
        threshold: u32,
        keep: f32,
        #[comptime] width: usize,
        #[comptime] apart: bool,
        #[comptime] planes: bool,
        #[define(X, F)] _dtypes: [ElemType; 2],
    ) {
        let parts = comptime!(width.div_ceil(UNITS));
        let mut shared = Shared::<[f32]>::new_slice(UNITS);
        let mut factors = Array::<f32>::new(parts);
        let mut n = Array::<f32>::new(parts);
        let mut h = Array::<f32>::new(parts);
        let mut sums_of_gamma = Array::<f32>::new(parts);
        let mut sums_of_beta = Array::<f32>::new(parts);
        #[unroll]
        for part in 0..parts {
            let column = part * UNITS + UNIT_POS as usize;
            factors[part] = 0.0f32;
            n[part] = 0.0f32;
            h[part] = 0.0f32;
            sums_of_gamma[part] = 0.0f32;
            sums_of_beta[part] = 0.0f32;
            if column < width {
                factors[part] = f32::cast_from(gamma[column]);
            }
        }
        let mut row = CUBE_POS_X;
        while row < rows {
            let start = row as usize * width;
            let mut sum = 0.0f32;
            let mut product = 0.0f32;
            #[unroll]
            for part in 0..parts {
                let column = part * UNITS + UNIT_POS as usize;
                if column < width {
                    let g = f32::cast_from(gradient[start + column]);
                    n[part] = f32::cast_from(normal[start + column]);
                    h[part] = g * factors[part];
                    sum += h[part];
                    product += h[part] * n[part];
                    sums_of_gamma[part] += g * n[part];
                    sums_of_beta[part] += g;
                }
            }
            let mean = cube_sum(sum, &mut shared, planes) / comptime!(width as f32);
            let along = cube_sum(product, &mut shared, planes) / comptime!(width as f32);
            let scale = scales[row as usize];
            let bits = row_of_bits(seed, 0u32, row);
            #[unroll]
            for part in 0..parts {
                let column = part * UNITS + UNIT_POS as usize;
                if column < width {
                    let dz = (h[part] - mean - n[part] * along) * scale;
                    to_residual[start + column] = F::cast_from(dz);
                    if comptime!(apart) {
                        to_x[start + column] = X::cast_from(dz * kept(bits, column as u32, threshold, keep));
                    }
                }
            }
            row += CUBE_COUNT_X;
        }
        #[unroll]
        for part in 0..parts {
            let column = part * UNITS + UNIT_POS as usize;
            if column < width {
                let at = CUBE_POS_X as usize * width + column;
                to_gamma[at] = sums_of_gamma[part];
                to_beta[at] = sums_of_beta[part];
            }
        }
    }
}
