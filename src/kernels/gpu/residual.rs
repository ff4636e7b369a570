//! How a block rejoins the stream, in one pass forward and one backward: LayerNorm( dropout(x) + residual ). The formulas stand in
//! [`cpu::residual`](crate::kernels::cpu::residual), whose masks these are, bit for bit.

pub(super) mod kernels;

use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, TensorMetadata, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, cubecl::dtype_to_elem_type, fusion::custom::TensorSpec, tensor::FloatTensor,
    },
    tensor::{DType, Shape},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{
    features::Plane,
    prelude::{CubeCount, CubeDim},
};

use super::{
    launch::{MOST_CUBES, like, rows},
    sums,
};
use crate::kernels::{
    cpu::residual::ResidualNorm,
    operation::{Operation, differentiable},
};

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

/// The operation.
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
}

/// What it is made of where there are gradients.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait ResidualPasses: Backend {
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
}

impl ResidualPasses for CubeBackend {
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

impl<B: GpuResidual + ResidualPasses, C: CheckpointStrategy> GpuResidual for Autodiff<B, C> {
    fn residual_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: ResidualNorm,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 4>(Residual(plan), [x, residual, gamma, beta])
    }
}

#[derive(Clone, Debug)]
struct Residual(ResidualNorm);

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
}

impl<B: GpuResidual + ResidualPasses> Operation<B, 4> for Residual {
    type Kept = Kept<FloatTensor<B>>;

    fn forward(&self, [x, residual, gamma, beta]: [FloatTensor<B>; 4]) -> FloatTensor<B> {
        B::residual_norm(x, residual, gamma, beta, self.0)
    }

    fn forward_keeping(
        &self,
        [x, residual, gamma, beta]: [FloatTensor<B>; 4],
        _: [bool; 4],
    ) -> (FloatTensor<B>, Self::Kept) {
        let dtype = x.dtype();
        let (output, normal, scales) = B::residual_norm_forward(x, residual, gamma.clone(), beta, self.0);
        (output, Kept { normal, scales, gamma, x: dtype })
    }

    fn backward(&self, kept: Self::Kept, gradient: FloatTensor<B>, _: [bool; 4]) -> [Option<FloatTensor<B>>; 4] {
        let Kept { normal, scales, gamma, x } = kept;
        let (x, residual, gamma, beta) = B::residual_norm_backward(gradient, normal, scales, gamma, x, self.0);
        [x, residual, gamma, beta].map(Some)
    }
}
